package gate

import (
	"sync/atomic"
	"time"
)

// An Adapter finds a gate's limit: it grows by one each time as many as the
// limit went through quickly, and shrinks by a tenth, once in a period, when
// too many of the period were slow (additive increase, multiplicative
// decrease). Observe costs two additions while a period lasts.
type Adapter struct {
	gate     *Gate
	min, max int64
	slow     time.Duration // what takes longer says that there are too many inside

	begun       atomic.Int64 // the period, Unix nanoseconds
	seen, slows atomic.Int64 // in the period
}

// period is how long one looks before the limit changes; a period in which
// there was less than enough to see goes on.
const (
	period = 250 * time.Millisecond
	enough = 8
)

// NewAdapter makes one for g, whose limit stays between min and max.
func NewAdapter(g *Gate, min, max int64, slow time.Duration) *Adapter {
	return &Adapter{gate: g, min: min, max: max, slow: slow}
}

// Observe takes note of something that was inside for a time.
func (a *Adapter) Observe(took time.Duration, now time.Time) {
	seen := a.seen.Add(1)
	if took > a.slow {
		a.slows.Add(1)
	}
	begun := a.begun.Load()
	if seen < enough || now.UnixNano()-begun < int64(period) || !a.begun.CompareAndSwap(begun, now.UnixNano()) {
		return
	}
	seen, slows := a.seen.Swap(0), a.slows.Swap(0)
	limit := a.gate.Limit()
	switch {
	case slows*4 > seen: // more than a quarter
		limit -= max(1, limit/10)
	case slows*20 > seen: // more than a twentieth: as it is
		return
	case a.gate.Inside() < limit*3/4 && a.gate.Waiting() == 0:
		return // nobody needs more
	default:
		limit += max(1, seen/max(1, limit))
	}
	a.gate.SetLimit(min(max(limit, a.min), a.max))
}
