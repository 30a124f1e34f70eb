package channel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A slowLink passes so many bytes a second of the bubble's time.
type slowLink struct {
	net.Conn
	rate int
}

func (l slowLink) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		step := p[:min(len(p), 4<<10)]
		time.Sleep(time.Duration(len(step)) * time.Second / time.Duration(l.rate))
		var m int
		m, err = l.Conn.Write(step)
		n, p = n+m, p[m:]
	}
	return n, err
}

func (l slowLink) SetWriteDeadline(t time.Time) error { return nil }

// TestTurns has sixteen streams send all they can over a slow link, some in
// large pieces and some in small ones, and shows that each gets the same; and
// that a small answer between them does not wait for what they have pending.
func TestTurns(t *testing.T) {
	fresh := func() { bellPool = sync.Pool{New: bellPool.New} } // a bubble's channels are of no use outside it
	fresh()
	defer fresh()
	synctest.Test(t, func(t *testing.T) {
		const (
			rate    = 1 << 20
			streams = 16
			length  = 60 * time.Second
		)
		a, b := net.Pipe()
		var outside, inside *Session
		var wg, handlers sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		handler := func(st *Stream) {
			handlers.Go(func() {
				defer st.Close()
				h, _ := st.Head()
				switch string(h) {
				case "small":
					st.Respond([]byte("h"), []byte("answer"), true)
					return
				case "crumbs":
					st.Respond([]byte("h"), nil, false)
					for p := make([]byte, 2000); ; {
						if _, err := st.Write(p); err != nil {
							return
						}
					}
				}
				st.Respond([]byte("h"), nil, false)
				for p := make([]byte, 1<<20); ; {
					if _, err := st.Write(p); err != nil {
						return
					}
				}
			})
		}
		wg.Go(func() { outside, _ = Outside(a, Config{}) })
		inside, _ = Inside(slowLink{b, rate}, Config{Handler: handler})
		wg.Wait()
		wg.Go(func() { outside.Run(ctx) })
		wg.Go(func() { inside.Run(ctx) })

		var got [streams]int
		var readers sync.WaitGroup
		until := time.Now().Add(length)
		for i := range streams {
			readers.Go(func() {
				head := "large"
				if i%2 == 1 {
					head = "crumbs"
				}
				st, err := outside.Open([]byte(head), nil, true)
				if err != nil {
					t.Error(err)
					return
				}
				defer st.Close()
				st.Head()
				st.First()
				for time.Now().Before(until) {
					p, err := st.Next()
					if err != nil {
						t.Error(err)
						return
					}
					got[i] += len(p)
				}
			})
		}
		var worst time.Duration
		for range 40 {
			time.Sleep(time.Second)
			begun := time.Now()
			st, err := outside.Open([]byte("small"), nil, true)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := bodyAfterHead(st); string(b) != "answer" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
			st.Close()
			worst = max(worst, time.Since(begun))
		}
		readers.Wait()
		cancel()
		wg.Wait()
		handlers.Wait()

		sum, least, most := 0, got[0], got[0]
		for _, n := range got {
			sum, least, most = sum+n, min(least, n), max(most, n)
		}
		if sum < int(length.Seconds())*rate*8/10 {
			t.Errorf("%d bytes in %v: the link was not filled", sum, length)
		}
		if most > least*12/10 {
			t.Errorf("streams got between %d and %d bytes: %v", least, most, got)
		}
		// What is being written can be overtaken by nothing: see maxWrite.
		if limit := 2 * maxWrite * time.Second / rate; worst > limit {
			t.Errorf("a small answer took %v of the bubble's time, more than %v", worst, limit)
		}
	})
}

// TestTurnsEnd has those who wait for their turn return when the connection
// ends.
func TestTurnsEnd(t *testing.T) {
	a, b := net.Pipe() // which nobody reads
	defer b.Close()
	w := newWriter(a, &new(Session).open)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			sh := &share{bell: make(chan struct{}, 1)}
			var err error
			for err == nil {
				err = w.sendBody(sh, frameData, 0, uint32(i), make([]byte, maxPiece))
			}
			if !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("sender %d: %v", i, err)
			}
		})
	}
	for {
		w.mu.Lock()
		n := len(w.turns)
		w.mu.Unlock()
		if n > 16 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	w.close(io.ErrClosedPipe)
	a.Close()
	wg.Wait()
	w.helpers.Wait()
}

// TestWholeFrames cuts between frames only.
func TestWholeFrames(t *testing.T) {
	var b []byte
	var ends []int
	for _, n := range []int{0, 5, 100, 70, 300} {
		b = appendFrame(b, frameData, 0, 1, make([]byte, n))
		ends = append(ends, len(b))
	}
	for limit, want := range map[int]int{1: ends[0], ends[1]: ends[1], ends[2] - 1: ends[1], ends[3]: ends[3], 1 << 20: ends[4]} {
		if got := wholeFrames(b, limit); got != want {
			t.Errorf("of at most %d bytes: %d, want %d", limit, got, want)
		}
	}
	if n := wholeFrames(nil, 10); n != 0 {
		t.Errorf("of none: %d", n)
	}
}
