// Command goload loads an edge over HTTP/3, HTTP/2 or HTTP/1.1 and checks every response.
//
// It prints one JSON object: counts, seconds, latencies in milliseconds. Any wrong or missing
// response ends it with status 1.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

type options struct {
	mode        string
	address     string
	protocol    string
	connections int
	streams     int
	total       int
	rate        float64
	size        int
	fields      int
	path        string
	hold        bool
	interval    time.Duration
	warmUp      time.Duration
	measured    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.mode, "mode", "requests", "requests, rate, handshakes, idle or goodput")
	flag.StringVar(&o.address, "address", "", "host:port of the edge")
	flag.StringVar(&o.protocol, "protocol", "h3", "h3, h2 or http/1.1")
	flag.IntVar(&o.connections, "connections", 10, "connections; for handshakes: concurrent ones")
	flag.IntVar(&o.streams, "streams", 10, "concurrent requests per connection")
	flag.IntVar(&o.total, "total", 4000, "requests, handshakes or idle connections")
	flag.Float64Var(&o.rate, "rate", 1000, "requests per second in mode rate")
	flag.IntVar(&o.size, "size", 100, "bytes of each response body")
	flag.IntVar(&o.fields, "fields", 1, "request fields beside the pseudo-header fields")
	flag.StringVar(&o.path, "path", "/download", "path of the requests")
	flag.BoolVar(&o.hold, "hold", false, "once connected, wait for a line on standard input")
	flag.DurationVar(&o.interval, "interval", 0, "goodput: time between the starts of connections")
	flag.DurationVar(&o.warmUp, "warm-up", 2*time.Second, "goodput: not measured")
	flag.DurationVar(&o.measured, "measured", 8*time.Second, "goodput: measured")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "goload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	ctx, cancel := context.WithTimeout(ctx, 110*time.Second)
	defer cancel()
	switch o.mode {
	case "requests":
		return requests(ctx, o)
	case "rate":
		return fixedRate(ctx, o)
	case "handshakes":
		return handshakes(ctx, o)
	case "idle":
		return idle(ctx, o)
	case "goodput":
		return goodput(ctx, o)
	}
	return fmt.Errorf("unknown mode %q", o.mode)
}

// requests sends total requests, streams at a time on each connection.
func requests(ctx context.Context, o options) error {
	clients, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	share := o.total / (o.connections * o.streams)
	latencies := make([][]time.Duration, o.connections*o.streams)
	started := time.Now()
	err = concurrently(len(latencies), func(worker int) error {
		client := clients[worker%o.connections]
		for range share {
			begin := time.Now()
			if err := client.get(ctx, o); err != nil {
				return err
			}
			latencies[worker] = append(latencies[worker], time.Since(begin))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return report(latencies, time.Since(started))
}

// fixedRate starts total requests at their scheduled times, whatever became of earlier ones, and
// measures each latency from its scheduled time: a stall of the edge delays all that follow.
func fixedRate(ctx context.Context, o options) error {
	clients, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	latencies := make([][]time.Duration, o.total)
	interval := time.Duration(float64(time.Second) / o.rate)
	started := time.Now()
	err = concurrently(o.total, func(number int) error {
		due := started.Add(time.Duration(number) * interval)
		time.Sleep(time.Until(due))
		if err := clients[number%o.connections].get(ctx, o); err != nil {
			return err
		}
		latencies[number] = []time.Duration{time.Since(due)}
		return nil
	})
	if err != nil {
		return err
	}
	return report(latencies, time.Since(started))
}

// handshakes makes total full handshakes, connections at a time, without a request.
func handshakes(ctx context.Context, o options) error {
	var next atomic.Int64
	started := time.Now()
	err := concurrently(o.connections, func(int) error {
		for next.Add(1) <= int64(o.total) {
			client, err := dial(ctx, o)
			if err != nil {
				return err
			}
			client.close()
		}
		return nil
	})
	if err != nil {
		return err
	}
	return printJSON(map[string]float64{
		"done": float64(o.total), "seconds": time.Since(started).Seconds(),
	})
}

// idle opens total connections with one request each, reports them, and holds them until standard
// input ends.
func idle(ctx context.Context, o options) error {
	clients, err := connect(ctx, o, o.total)
	if err != nil {
		return err
	}
	for _, client := range clients {
		if err := client.get(ctx, o); err != nil {
			return err
		}
	}
	if err := printJSON(map[string]float64{"done": float64(o.total)}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// prepare connects and, if asked to hold, reports it and waits for a line on standard input, so that
// handshakes are not part of what is measured.
func prepare(ctx context.Context, o options) ([]*client, error) {
	clients, err := connect(ctx, o, o.connections)
	if err != nil || !o.hold {
		return clients, err
	}
	if err := printJSON(map[string]float64{"connected": float64(len(clients))}); err != nil {
		return nil, err
	}
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	return clients, err
}

func connect(ctx context.Context, o options, count int) ([]*client, error) {
	clients := make([]*client, count)
	for number := range clients {
		client, err := dial(ctx, o)
		if err != nil {
			return nil, err
		}
		clients[number] = client
	}
	return clients, nil
}

// concurrently runs work(0) to work(count-1) and returns the first error.
func concurrently(count int, work func(int) error) error {
	var group sync.WaitGroup
	failed := make(chan error, count)
	for number := range count {
		group.Go(func() {
			if err := work(number); err != nil {
				failed <- err
			}
		})
	}
	group.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// get sends one request and checks the status and every byte of the response.
func (c *client) get(ctx context.Context, o options) error {
	url := fmt.Sprintf("https://%s%s?size=%d", c.authority, o.path, o.size)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "goload")
	for number := 1; number < o.fields; number++ {
		request.Header.Set(fmt.Sprintf("X-Field-%d", number), "a value of ordinary length")
	}
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return checkBody(response.Body, o.size)
}

var block = func() []byte {
	data := make([]byte, 65536)
	for at := range data {
		data[at] = byte(at)
	}
	return data
}()

// checkBody reads a body, which repeats the bytes 0 to 255.
func checkBody(body io.Reader, size int) error {
	buffer := make([]byte, min(size, 32768)+1)
	at := 0
	for {
		count, err := body.Read(buffer)
		for part := buffer[:count]; len(part) > 0; {
			offset := at % 256
			length := min(len(part), len(block)-offset)
			if !bytes.Equal(part[:length], block[offset:offset+length]) {
				return fmt.Errorf("wrong content near byte %d", at)
			}
			at += length
			part = part[length:]
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if at != size {
		return fmt.Errorf("%d bytes of %d", at, size)
	}
	return nil
}

func report(latencies [][]time.Duration, elapsed time.Duration) error {
	var all []time.Duration
	for _, some := range latencies {
		all = append(all, some...)
	}
	if len(all) == 0 {
		return fmt.Errorf("no requests: total is below connections x streams")
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	at := func(share float64) float64 {
		return all[int(share*float64(len(all)-1))].Seconds() * 1e3
	}
	return printJSON(map[string]float64{
		"done": float64(len(all)), "seconds": elapsed.Seconds(),
		"p50_ms": at(0.5), "p99_ms": at(0.99),
	})
}

func printJSON(figures map[string]float64) error {
	return json.NewEncoder(os.Stdout).Encode(figures)
}
