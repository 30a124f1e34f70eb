package channel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPublish(t *testing.T) {
	for _, n := range []int{0, 100, maxPiece, 3*maxPiece + 17} {
		doc := noise(n)
		acks := make(chan string, 1)
		_, in := sessions(t, true, Config{Version: 6, Published: func(v uint64, got []byte) error {
			if v != 7 || !bytes.Equal(got, doc) {
				return fmt.Errorf("version %d, %d bytes", v, len(got))
			}
			return errors.New(strings.Repeat("x", 2*maxText))
		}}, Config{Acknowledged: func(v uint64, problem string) { acks <- fmt.Sprint(v, len(problem)) }})
		if in.PeerVersion() != 6 {
			t.Errorf("the peer's version is %d", in.PeerVersion())
		}
		if err := in.Publish(7, doc); err != nil {
			t.Fatal(err)
		}
		if got, want := <-acks, fmt.Sprint(7, maxText); got != want {
			t.Errorf("%d bytes: got %s, want %s", n, got, want)
		}
	}
	if err := new(Session).Publish(1, make([]byte, maxPublication+1)); err == nil {
		t.Error("a publication over the limit was taken")
	}
}

func TestVersions(t *testing.T) {
	for name, h := range map[string]hello{
		"too new": {min: 2, max: 3},
		"too old": {min: 0, max: 0},
		"crossed": {min: 3, max: 1},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t, false)
			defer a.Close()
			defer b.Close()
			b.Write(h.append(nil))
			if _, err := Outside(a, Config{}); err == nil {
				t.Error("the hello was taken")
			}
		})
	}
}

// TestDead shows that a silent peer is noticed, and that one that answers
// pings is not given up.
func TestDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go func() {
			greet(b, hello{min: 1, max: 1, streams: 1}, false)
			io.Copy(io.Discard, b) // reads, and says nothing
		}()
		s, err := Outside(a, Config{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := s.Run(context.Background()); !errors.Is(err, errDead) {
			t.Errorf("got %v", err)
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("noticed after %v, %v", d, s.err)
		}
		b.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go func() {
			greet(b, hello{min: 1, max: 1, streams: 1}, false) // and reads no more
		}()
		s, err := Outside(a, Config{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := s.Run(context.Background()); err == nil {
			t.Error("a peer that does not read was kept")
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("noticed after %v, %v", d, s.err)
		}
		b.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		out, _ := run(t, a, b, Config{}, Config{})
		time.Sleep(5 * time.Minute)
		if !out.Usable() {
			t.Error("an idle session was given up")
		}
		if out.RTT() < 0 {
			t.Error("no round trip")
		}
	})
}

// TestUnknownFrames shows that frames of a later version are passed over.
func TestUnknownFrames(t *testing.T) {
	a, b := pair(t, false)
	var greeting sync.WaitGroup
	greeting.Go(func() {
		greet(b, hello{min: 1, max: 1, streams: 10, credit: 1000}, false)
		f := appendHeader(nil, 5, 99, 3, 77)
		f = append(f, "hello"...)
		f = appendHeader(f, 4, framePing, 0, 0)
		b.Write(append(f, "ping"...))
	})
	s, err := Outside(a, Config{})
	if err != nil {
		t.Fatal(err)
	}
	greeting.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	for { // its own first PING may come before the answer
		var h [frameHeader]byte
		if _, err := io.ReadFull(b, h[:]); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, parseHeader(h[:]).length)
		if _, err := io.ReadFull(b, p); err != nil {
			t.Fatal(err)
		}
		if frameType(h[3]) == framePing {
			continue
		}
		if frameType(h[3]) != framePong || string(p) != "ping" {
			t.Errorf("got %v, %q", h, p)
		}
		break
	}
	cancel()
	wg.Wait()
	b.Close()
}
