package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// goodput starts connections one interval apart, each with one endless download, and measures the
// bytes that each receives per second, from the end of the warm-up of the last one on.
func goodput(ctx context.Context, o options) error {
	received := make([]chan int64, o.connections)
	for number := range received {
		if number > 0 {
			time.Sleep(o.interval)
		}
		client, err := dial(ctx, o)
		if err != nil {
			return err
		}
		received[number] = make(chan int64, 1)
		body, err := client.endless(ctx, o)
		if err != nil {
			return err
		}
		go count(body, received[number], o.warmUp+o.interval*time.Duration(o.connections-1-number),
			o.measured)
	}
	figures := map[string]float64{}
	for number, result := range received {
		figures[fmt.Sprintf("flow_%d", number)] = float64(<-result) / o.measured.Seconds()
	}
	return printJSON(figures)
}

func (c *client) endless(ctx context.Context, o options) (io.ReadCloser, error) {
	url := fmt.Sprintf("https://%s%s?size=%d", c.authority, o.path, o.size)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", response.StatusCode)
	}
	return response.Body, nil
}

// count sends the bytes that arrive during `measured`, after `skip`; a flow that ends early counts
// what it got.
func count(body io.ReadCloser, result chan<- int64, skip, measured time.Duration) {
	defer body.Close()
	from := time.Now().Add(skip)
	until := from.Add(measured)
	buffer := make([]byte, 65536)
	var total int64
	for {
		read, err := body.Read(buffer)
		now := time.Now()
		if now.After(until) || err != nil {
			result <- total
			return
		}
		if now.After(from) {
			total += int64(read)
		}
	}
}
