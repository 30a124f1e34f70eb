package gateway

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
)

// A Choice says how a connection point is chosen among those of a site.
type Choice string

// The choices.
const (
	ChoiceRoundRobin  Choice = "round-robin"  // each in turn
	ChoiceLeastLoaded Choice = "least-loaded" // of two drawn, the one with less under way and quicker answers
)

func (c Choice) check() error {
	if all := []Choice{"", ChoiceRoundRobin, ChoiceLeastLoaded}; !slices.Contains(all, c) {
		return fmt.Errorf("choice %.40q is not %s or %s: %w", string(c), ChoiceRoundRobin, ChoiceLeastLoaded, cmg.ErrInvalid)
	}
	return nil
}

// A pointLoad is what a connection point has to do, as far as the choice
// needs it: requests that wait for their answer's head, long polls not among
// them, and a moving average of how long such a request takes.
//
// Which request is a long poll shows in time only: requests are counted by
// when they came, and what came too long ago is forgotten, without a timer
// for each. (A request is parked much sooner, when it holds no buffers.)
type pointLoad struct {
	came    [moments]atomic.Uint64 // moment<<32 + requests that came in it and wait still
	latency atomic.Int64           // nanoseconds
	heard   atomic.Int64           // when the average was last moved, Unix nanoseconds
}

// A moment is a quarter of a second, about; a request of more than moments of
// them is a long poll.
const (
	moments    = 8
	momentBits = 28 // of nanoseconds
)

func momentOf(t time.Time) uint32 { return uint32(t.UnixNano() >> momentBits) }

// A share is one request's part in a point's load. Its zero value is none.
type share struct {
	of    *pointLoad
	since time.Time
}

// take begins a request's share.
func (l *pointLoad) take() share {
	s := share{l, time.Now()}
	l.count(momentOf(s.since), 1)
	return s
}

// count adds to the requests that came in a moment, unless it is forgotten.
func (l *pointLoad) count(moment uint32, n int32) {
	c := &l.came[moment%moments]
	for {
		was := c.Load()
		of, have := uint32(was>>32), int32(uint32(was))
		if of != moment {
			if n < 0 || was != 0 && int32(moment-of) < 0 {
				return
			}
			have = 0
		}
		if c.CompareAndSwap(was, uint64(moment)<<32|uint64(uint32(have+n))) {
			return
		}
	}
}

// short is how many requests wait that are no long polls.
func (l *pointLoad) short(now time.Time) (n int64) {
	moment := momentOf(now)
	for i := range l.came {
		if c := l.came[i].Load(); moment-uint32(c>>32) < moments {
			n += int64(int32(uint32(c)))
		}
	}
	return n
}

// end gives the share back; answered says that the answer's head is there,
// and not after a long poll.
func (s *share) end(answered bool) {
	l := s.of
	if l == nil {
		return
	}
	s.of = nil
	l.count(momentOf(s.since), -1)
	now := time.Now()
	took := now.Sub(s.since)
	if !answered || took > moments<<momentBits {
		return
	}
	was := l.latency.Load() // a race with another loses one sample of many
	if was == 0 {
		was = int64(took)
	}
	l.latency.Store(was + (int64(took)-was)/8)
	l.heard.Store(now.UnixNano())
}

// forgets is how long it takes for half of an average that nobody moves to be
// forgotten: a point that was slow once is to be tried again.
const forgets = 2 * time.Second

// floor keeps a difference of microseconds from outweighing one request.
const floor = int64(200 * time.Microsecond)

func (l *pointLoad) weight(now time.Time) int64 {
	age := max(0, now.UnixNano()-l.heard.Load()) / int64(forgets)
	return (l.short(now) + 1) * max(floor, l.latency.Load()>>min(age, 62))
}

// lighter compares the point whose turn it is with another drawn by lot (the
// power of two choices).
func lighter(list []*point, turn int) int {
	other := (turn + 1 + rand.IntN(len(list)-1)) % len(list)
	now := time.Now()
	if list[other].load.weight(now) < list[turn].load.weight(now) {
		return other
	}
	return turn
}

// WaitingConfig bounds what waits for a connection point, when there is none.
type WaitingConfig struct {
	Requests int64 `json:"requests"` // at once; 0: 1,024
	Bytes    int64 `json:"bytes"`    // that they hold in memory, heads and bodies; 0: 32 MiB
}

func (c WaitingConfig) withDefaults() (WaitingConfig, error) {
	if c.Requests < 0 || c.Bytes < 0 {
		return c, fmt.Errorf("waiting: requests and bytes have to be 0 or more: %w", cmg.ErrInvalid)
	}
	if c.Requests == 0 {
		c.Requests = 1024
	}
	if c.Bytes == 0 {
		c.Bytes = 32 << 20
	}
	return c, nil
}

// waiting counts the requests that wait for a connection point.
type waiting struct {
	WaitingConfig
	requests, bytes  atomic.Int64
	refused, expired atomic.Int64 // for want of a place; for want of a connection point in time
}

func (w *waiting) enter(held int) bool {
	n, b := w.requests.Add(1), w.bytes.Add(int64(held))
	if n <= w.Requests && b <= w.Bytes {
		return true
	}
	w.leave(held)
	w.refused.Add(1)
	return false
}

func (w *waiting) leave(held int) {
	w.requests.Add(-1)
	w.bytes.Add(-int64(held))
}
