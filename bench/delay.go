//go:build linux

package main

import (
	"flag"
	"fmt"
	"net"
	"sync"
	"time"
)

// delayMain is a TCP proxy that holds every byte for -ms in each direction (a
// one-way delay: the round trip is twice that). It acknowledges locally, so
// what it shows is the window of the protocol above TCP, not TCP's own. At
// most -buf bytes are in flight each way.
func delayMain(args []string) error {
	fs := flag.NewFlagSet("delay", flag.ExitOnError)
	addr := fs.String("addr", "127.0.0.1:9501", "listen address")
	to := fs.String("to", "127.0.0.1:9500", "where to forward to")
	ms := fs.Int("ms", 50, "one-way delay in ms")
	buf := fs.Int("buf", 256<<20, "bytes in flight, each way")
	fs.Parse(args)
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go delayed(c, *to, time.Duration(*ms)*time.Millisecond, *buf)
	}
}

func delayed(c net.Conn, to string, d time.Duration, limit int) {
	defer c.Close()
	s, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer s.Close()
	var wg sync.WaitGroup
	wg.Go(func() { pipeDelayed(s, c, d, limit) })
	wg.Go(func() { pipeDelayed(c, s, d, limit) })
	wg.Wait()
}

func pipeDelayed(dst, src net.Conn, d time.Duration, limit int) {
	type chunk struct {
		b  []byte
		at time.Time
	}
	const size = 128 << 10
	queue := make(chan chunk, limit/size)
	pool := sync.Pool{New: func() any { b := make([]byte, size); return &b }}
	go func() {
		defer close(queue)
		for {
			p := pool.Get().(*[]byte)
			n, err := src.Read((*p)[:size])
			if n > 0 {
				queue <- chunk{(*p)[:n], time.Now().Add(d)}
			}
			if err != nil {
				return
			}
		}
	}()
	broken := false
	for c := range queue {
		if w := time.Until(c.at); w > 0 {
			time.Sleep(w)
		}
		if !broken {
			if _, err := dst.Write(c.b); err != nil {
				broken = true
				src.Close() // ends the reader, which ends the queue
			}
		}
		b := c.b[:cap(c.b)]
		pool.Put(&b)
	}
	if t, ok := dst.(*net.TCPConn); ok {
		t.CloseWrite()
	}
}
