// Command gopath joins two network interfaces by an emulated path: rate, delay, a drop-tail queue and
// random loss in the direction from b to a; the other direction only delays and loses.
//
// It creates the TUN devices, prints one JSON line when they exist, and one with what happened when
// standard input ends. The caller moves the devices into network namespaces of its own.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	a := flag.String("a", "patha", "device on the client's side")
	b := flag.String("b", "pathb", "device on the server's side")
	rate := flag.Float64("rate", 2.5e6, "bytes per second from b to a")
	delay := flag.Duration("delay", 25*time.Millisecond, "one-way delay")
	queue := flag.Int("queue", 125_000, "bytes that may wait for the link")
	loss := flag.Float64("loss", 0, "probability of losing a packet, each way")
	seed := flag.Uint64("seed", 1, "of the losses")
	flag.Parse()
	if err := run(*a, *b, *rate, *delay, *queue, *loss, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "gopath:", err)
		os.Exit(1)
	}
}

func run(
	nameA, nameB string, rate float64, delay time.Duration, queue int, loss float64, seed uint64,
) error {
	a, err := open(nameA)
	if err != nil {
		return err
	}
	b, err := open(nameB)
	if err != nil {
		return err
	}
	down := newLink(b, a, rate, delay, queue, loss, rand.New(rand.NewPCG(seed, 1)))
	up := newLink(a, b, 0, delay, 1<<30, loss, rand.New(rand.NewPCG(seed, 2)))
	for _, link := range []*link{down, up} {
		go link.receive()
		go link.deliver()
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(map[string]any{"ready": true}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return out.Encode(down.summary())
}

// open creates a TUN device whose packets have no header of their own.
func open(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

type packet struct {
	data []byte
	due  time.Time
}

// A link carries packets one way. Without a rate it only delays.
type link struct {
	from, to  *os.File
	rate      float64
	delay     time.Duration
	queue     int
	loss      float64
	random    *rand.Rand
	inTransit chan packet

	// Written by receive alone; read when the run is over.
	free      time.Time // when the last queued packet will have left
	begun     time.Time
	last      time.Time
	packets   int
	lost      int
	dropped   int
	waitBytes float64 // integral of the backlog over time, in byte seconds
}

func newLink(
	from, to *os.File, rate float64, delay time.Duration, queue int, loss float64, random *rand.Rand,
) *link {
	return &link{
		from: from, to: to, rate: rate, delay: delay, queue: queue, loss: loss, random: random,
		inTransit: make(chan packet, 1<<16),
	}
}

func (l *link) receive() {
	buffer := make([]byte, 65536)
	for {
		count, err := l.from.Read(buffer)
		if err != nil {
			continue // the device is down until the caller has configured it
		}
		l.enqueue(append([]byte(nil), buffer[:count]...), time.Now())
	}
}

func (l *link) enqueue(data []byte, now time.Time) {
	if l.begun.IsZero() {
		l.begun, l.last, l.free = now, now, now
	}
	l.packets++
	backlog := l.backlog(now)
	l.waitBytes += backlog * now.Sub(l.last).Seconds()
	l.last = now
	if l.random.Float64() < l.loss {
		l.lost++
		return
	}
	if l.rate > 0 {
		if backlog+float64(len(data)) > float64(l.queue) {
			l.dropped++
			return
		}
		if l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(time.Duration(float64(len(data)) / l.rate * float64(time.Second)))
	} else {
		l.free = now
	}
	l.inTransit <- packet{data, l.free.Add(l.delay)}
}

// backlog returns the bytes that wait for the link.
func (l *link) backlog(now time.Time) float64 {
	if wait := l.free.Sub(now).Seconds(); wait > 0 {
		return wait * l.rate
	}
	return 0
}

func (l *link) deliver() {
	for packet := range l.inTransit {
		time.Sleep(time.Until(packet.due))
		if _, err := l.to.Write(packet.data); err != nil {
			continue
		}
	}
}

func (l *link) summary() map[string]any {
	seconds := l.last.Sub(l.begun).Seconds()
	return map[string]any{
		"packets": l.packets, "lost": l.lost, "dropped": l.dropped,
		"mean_backlog_bytes": l.waitBytes / max(seconds, 1e-3),
	}
}
