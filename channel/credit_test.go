package channel

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A farLink delays what is written by half a round trip, without bound.
type farLink struct {
	net.Conn
	late chan farPiece
}

type farPiece struct {
	at time.Time
	b  []byte
}

func newFarLink(c net.Conn, delay time.Duration, wg *sync.WaitGroup) *farLink {
	l := &farLink{c, make(chan farPiece, 1<<16)}
	wg.Go(func() {
		for p := range l.late {
			time.Sleep(time.Until(p.at.Add(delay)))
			if _, err := l.Conn.Write(p.b); err != nil {
				for range l.late {
				}
				return
			}
		}
	})
	return l
}

func (l *farLink) Write(p []byte) (int, error) {
	l.late <- farPiece{time.Now(), bytes.Clone(p)}
	return len(p), nil
}

func (l *farLink) SetWriteDeadline(time.Time) error { return nil }

// TestCreditHolds plays a hundred scenes of streams with bodies of any length
// both ways, over links of any length, to readers that are quick, slow, stop
// for a while or leave: no stream stands still for ever, none is sent more
// than its credit (the session would end), every byte arrives, and at the end
// all that was lent is back in the pool.
func TestCreditHolds(t *testing.T) {
	fresh := func() { bellPool = sync.Pool{New: bellPool.New} } // a bubble's channels are of no use outside it
	fresh()
	defer fresh()
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) { creditScene(t, rand.New(rand.NewPCG(seed, 7))) })
		if t.Failed() {
			t.Fatalf("scene %d", seed)
		}
		fresh()
	}
}

func creditScene(t *testing.T, r *rand.Rand) {
	delay := []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 150 * time.Millisecond}[r.IntN(4)]
	x, y := net.Pipe()
	var links, sessions, handlers, work sync.WaitGroup
	a, b := newFarLink(x, delay, &links), newFarLink(y, delay, &links)
	ctx, cancel := context.WithCancel(t.Context())

	var outside, inside *Session
	var greeting sync.WaitGroup
	greeting.Go(func() { outside, _ = Outside(a, Config{}) })
	inside, _ = Inside(b, Config{Handler: func(st *Stream) {
		handlers.Go(func() { echo(st) })
	}})
	greeting.Wait()
	sessions.Go(func() { outside.Run(ctx) })
	sessions.Go(func() { inside.Run(ctx) })

	for i := range 1 + r.IntN(12) {
		length, pause, leaves := r.IntN(1<<[]int{4, 16, 20, 22}[r.IntN(4)]), time.Duration(0), r.IntN(8) == 0
		if r.IntN(3) == 0 {
			pause = time.Duration(r.IntN(200)) * time.Millisecond
		}
		sent := bytes.Repeat([]byte{byte(i)}, length)
		st, err := outside.Open([]byte("h"), nil, false)
		if err != nil {
			t.Fatal(err)
		}
		work.Go(func() {
			if err := st.WriteEnd(sent); err != nil && !leaves {
				t.Errorf("stream %d of %d bytes: sent: %v", i, length, err)
			}
		})
		work.Go(func() {
			defer st.Close()
			if _, err := st.Head(); err != nil {
				t.Errorf("stream %d: %v", i, err)
				return
			}
			got, end := st.First()
			n := len(got)
			for !end {
				if leaves && n > length/2 {
					return
				}
				time.Sleep(pause)
				p, err := st.Next()
				if err != nil {
					end = true
					continue
				}
				n += len(p)
			}
			if n != length {
				t.Errorf("stream %d: %d of %d bytes came back", i, n, length)
			}
		})
	}
	work.Wait()
	time.Sleep(time.Minute) // of the bubble: streams that were left have ended at the inside too
	if !outside.Usable() || !inside.Usable() {
		t.Error("the session has ended")
	}
	for _, s := range []*Session{outside, inside} {
		if left := s.pool.Load(); left != poolSize {
			t.Errorf("%d bytes are still lent", poolSize-left)
		}
	}
	cancel()
	sessions.Wait()
	handlers.Wait()
	close(a.late)
	close(b.late)
	links.Wait()
}
