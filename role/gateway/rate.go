package gateway

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
)

// CallerLimits bound what one proven caller may ask for.
type CallerLimits struct {
	Rate  float64 `json:"rate"`  // requests a second that are given in the long run; 0: no limit
	Burst int     `json:"burst"` // requests that may come at once; 0: ten seconds of rate, at least 1

	Concurrent int64 `json:"concurrent"` // requests inward at the same time, long polls among them; 0: no limit
}

func (c CallerLimits) withDefaults() (CallerLimits, error) {
	if !(c.Rate >= 0) || c.Rate > 1e6 || c.Burst < 0 || c.Concurrent < 0 {
		return c, fmt.Errorf("caller_limits: wants 0 <= rate <= 1,000,000 and burst and concurrent of 0 or more: %w", cmg.ErrInvalid)
	}
	if c.Burst == 0 {
		c.Burst = max(1, int(10*c.Rate))
	}
	return c, nil
}

// A tokenBucket is one caller's, without a lock: it holds the time at which
// it will be full again, which each request moves on by its share of a
// second.
type tokenBucket struct{ full atomic.Int64 } // Unix nanoseconds

// take takes one token, or says how long to wait for it.
func (b *tokenBucket) take(c CallerLimits, now time.Time) (wait time.Duration) {
	share := int64(float64(time.Second) / c.Rate)
	at := now.UnixNano()
	for {
		was := b.full.Load()
		full := max(was, at) + share
		if over := full - at - int64(c.Burst)*share; over > 0 {
			return time.Duration(over)
		}
		if b.full.CompareAndSwap(was, full) {
			return 0
		}
	}
}

// limit refuses a caller who asks for too much, before anything upstream is
// used. Callers without a row of their own have no bucket: a table that is
// full is not to make one caller wait for another.
func (x *exchange) limit() error {
	row, c := x.bill.caller, x.g.live.Load().cfg.CallerLimits
	if c.Rate == 0 || row == &x.g.accounts.callers.others {
		return nil
	}
	wait := row.bucket.take(c, x.started)
	if wait == 0 {
		return nil
	}
	x.bill.wait = wait
	return cmg.Refuse(429, "CMGService_Too_Many_Requests", "this caller has sent more requests than it may for now", nil)
}

// enterCaller takes one of the places that a caller has inward, where that is
// limited, and leaveCaller frees it.
func (x *exchange) enterCaller() error {
	row, most := x.bill.caller, x.g.live.Load().cfg.CallerLimits.Concurrent
	if most == 0 || row == &x.g.accounts.callers.others {
		return nil
	}
	if row.inside.Add(1) > most {
		row.inside.Add(-1)
		return cmg.Refuse(429, "CMGService_Too_Many_Requests", "this caller has as many requests under way as it may", nil)
	}
	x.inside = row
	return nil
}

func (x *exchange) leaveCaller() {
	if x.inside != nil {
		x.inside.inside.Add(-1)
		x.inside = nil
	}
}
