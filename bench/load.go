//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A result is what a load saw: one JSON line.
type result struct {
	N     int64   `json:"n"` // answers
	Err   int64   `json:"err"`
	Secs  float64 `json:"secs"`
	P50   float64 `json:"p50us"`
	P99   float64 `json:"p99us"`
	P999  float64 `json:"p999us"`
	Bytes int64   `json:"bytes"` // of bodies, bulk only
	First string  `json:"first_err,omitempty"`
}

// A load is the part of the work that wrk and h2load do not do.
type load struct {
	*client
	conns          int
	rate, ramp     float64
	length         time.Duration
	path           string
	size           int64
	hold           time.Duration
	limit          time.Duration
	start          time.Time
	ok, bad, bytes atomic.Int64

	mu        sync.Mutex
	latencies []float64 // µs
	first     error
}

// modes are the shapes of load.
var modes = map[string]struct {
	what string
	run  func(*load) error
}{
	"closed": {"-c keep-alive connections, each asks again when answered; with -n BYTES it posts so many", (*load).closed},
	"rate":   {"open loop: -r requests/s over -c connections; latency from the intended start", (*load).open},
	"hs":     {"-c at once, a new TLS connection for each request", (*load).handshakes},
	"dl":     {"downloads -n BYTES from /b on each of -c connections", (*load).download},
	"ul":     {"posts -n BYTES to /p on each of -c connections", (*load).upload},
	"hold":   {"-c long polls of -ms, outstanding at once; prints READY when all are sent", (*load).polls},
}

func loadMain(args []string) error {
	fs := flag.NewFlagSet("load", flag.ExitOnError)
	l := &load{}
	mode := fs.String("mode", "rate", "")
	addr := fs.String("addr", "127.0.0.1:9443", "")
	ca := fs.String("ca", "ca.pem", "PEM that vouches for the server")
	header := fs.String("H", "", "header line to send along")
	resume := fs.Bool("resume", false, "resume TLS sessions by ticket")
	ms := fs.Int("ms", 60000, "")
	sources := fs.Int("sources", 16, "addresses from 127.0.0.1 on that it comes from")
	fs.IntVar(&l.conns, "c", 64, "")
	fs.Float64Var(&l.rate, "r", 2000, "")
	fs.DurationVar(&l.length, "d", 5*time.Second, "")
	fs.StringVar(&l.path, "path", "/s", "")
	fs.Int64Var(&l.size, "n", 0, "")
	fs.DurationVar(&l.limit, "limit", 0, "stop downloads after this long and count what came")
	fs.Float64Var(&l.ramp, "ramp", 2000, "new connections/s of long polls")
	fs.Usage = func() {
		fs.PrintDefaults()
		for name, m := range modes {
			fmt.Fprintf(fs.Output(), "mode %s: %s\n", name, m.what)
		}
	}
	fs.Parse(args)
	m, ok := modes[*mode]
	if !ok {
		return fmt.Errorf("there is no mode %q", *mode)
	}
	var err error
	if l.client, err = newClient(*addr, *ca, *header); err != nil {
		return err
	}
	l.sources = *sources
	if *resume {
		l.tls.ClientSessionCache = tls.NewLRUClientSessionCache(4096)
	}
	l.hold = time.Duration(*ms) * time.Millisecond
	if err := m.run(l); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(l.result())
}

func (l *load) result() result {
	slices.Sort(l.latencies)
	r := result{N: l.ok.Load(), Err: l.bad.Load(), Bytes: l.bytes.Load(), Secs: time.Since(l.start).Seconds(),
		P50: quantile(l.latencies, .50), P99: quantile(l.latencies, .99), P999: quantile(l.latencies, .999)}
	if l.first != nil {
		r.First = l.first.Error()
	}
	return r
}

func (l *load) fail(err error) {
	l.bad.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first == nil {
		l.first = err
	}
}

func (l *load) keep(latencies []float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.latencies = append(l.latencies, latencies...)
}

func (l *load) over() bool { return time.Since(l.start) >= l.length }

func since(t time.Time) float64 { return float64(time.Since(t).Nanoseconds()) / 1e3 }

// each runs f on so many open connections, which were dialled before the
// clock starts.
func (l *load) each(f func(i int, t *tls.Conn)) error {
	conns := make([]*tls.Conn, l.conns)
	for i := range conns {
		var err error
		if conns[i], err = l.dial(); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	l.start = time.Now()
	var wg sync.WaitGroup
	for i, t := range conns {
		wg.Go(func() {
			defer t.Close()
			f(i, t)
		})
	}
	wg.Wait()
	return nil
}

func (l *load) closed() error {
	req := l.request("GET", l.path)
	if l.size > 0 {
		req = append(l.request("POST", l.path, fmt.Sprintf("Content-Length: %d", l.size)), make([]byte, l.size)...)
	}
	return l.each(func(_ int, t *tls.Conn) {
		br := bufio.NewReaderSize(t, 8<<10)
		var mine []float64
		for !l.over() {
			begin := time.Now()
			if err := exchange(t, br, req); err != nil {
				l.fail(err)
				break
			}
			l.ok.Add(1)
			mine = append(mine, since(begin))
		}
		l.keep(mine)
	})
}

func (l *load) open() error {
	req := l.request("GET", l.path)
	gap := time.Duration(float64(time.Second) * float64(l.conns) / l.rate)
	return l.each(func(i int, t *tls.Conn) {
		br := bufio.NewReaderSize(t, 8<<10)
		var mine []float64
		at := l.start.Add(gap * time.Duration(i) / time.Duration(l.conns))
		for ; at.Sub(l.start) < l.length; at = at.Add(gap) {
			if w := time.Until(at); w > 0 {
				time.Sleep(w)
			}
			if err := exchange(t, br, req); err != nil {
				l.fail(err)
				break
			}
			l.ok.Add(1)
			mine = append(mine, since(at))
		}
		l.keep(mine)
	})
}

func (l *load) handshakes() error {
	req := l.request("GET", l.path, "Connection: close")
	once := func() error {
		t, err := l.dial()
		if err != nil {
			return err
		}
		defer t.Close()
		return exchange(t, bufio.NewReaderSize(t, 4<<10), req)
	}
	l.start = time.Now()
	var wg sync.WaitGroup
	for range l.conns {
		wg.Go(func() {
			var mine []float64
			for !l.over() {
				begin := time.Now()
				if err := once(); err != nil {
					l.fail(err)
					time.Sleep(10 * time.Millisecond)
					continue
				}
				l.ok.Add(1)
				mine = append(mine, since(begin))
			}
			l.keep(mine)
		})
	}
	wg.Wait()
	return nil
}

const bulkPatience = 150 * time.Second

func (l *load) download() error {
	req := l.request("GET", fmt.Sprintf("/b?n=%d", l.size))
	return l.each(func(_ int, t *tls.Conn) {
		t.SetDeadline(l.start.Add(bulkPatience))
		if _, err := t.Write(req); err != nil {
			l.fail(err)
			return
		}
		if l.limit > 0 {
			t.SetReadDeadline(l.start.Add(l.limit))
		}
		n, err := readReply(bufio.NewReaderSize(t, 64<<10))
		l.bytes.Add(n)
		if err != nil && (l.limit == 0 || n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			l.fail(err)
			return
		}
		l.ok.Add(1)
	})
}

func (l *load) upload() error {
	head := l.request("POST", "/p", fmt.Sprintf("Content-Length: %d", l.size))
	once := func(t *tls.Conn) error {
		t.SetDeadline(l.start.Add(bulkPatience))
		if _, err := t.Write(head); err != nil {
			return err
		}
		for left := l.size; left > 0; left -= int64(len(bulk)) {
			if _, err := t.Write(bulk[:min(left, int64(len(bulk)))]); err != nil {
				return err
			}
		}
		_, err := readReply(bufio.NewReaderSize(t, 4<<10))
		return err
	}
	return l.each(func(_ int, t *tls.Conn) {
		if err := once(t); err != nil {
			l.fail(err)
			return
		}
		l.bytes.Add(l.size)
		l.ok.Add(1)
	})
}

func (l *load) polls() error {
	req := l.request("GET", fmt.Sprintf("/hold?ms=%d", l.hold.Milliseconds()))
	l.start = time.Now()
	var answered, sent sync.WaitGroup
	turn := make(chan struct{}, 64) // handshakes at once
	open := make([]*tls.Conn, l.conns)
	for i := range l.conns {
		if w := time.Until(l.start.Add(time.Duration(float64(i) / l.ramp * 1e9))); w > 0 {
			time.Sleep(w)
		}
		turn <- struct{}{}
		sent.Add(1)
		answered.Go(func() {
			t, err := l.dial()
			if err == nil {
				defer t.Close()
				_, err = t.Write(req)
			}
			<-turn
			sent.Done()
			if err == nil {
				l.mu.Lock()
				open[i] = t
				l.mu.Unlock()
				t.SetDeadline(time.Now().Add(l.hold + 30*time.Second))
				_, err = readReply(bufio.NewReaderSize(t, 1<<10))
			}
			if err != nil {
				l.fail(err)
				return
			}
			l.ok.Add(1)
		})
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() { // whoever is not answered by then has failed
		<-stop
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, t := range open {
			if t != nil {
				t.SetDeadline(time.Now())
			}
		}
	}()
	sent.Wait()
	fmt.Printf("READY %.2fs err=%d\n", time.Since(l.start).Seconds(), l.bad.Load())
	answered.Wait()
	return nil
}
