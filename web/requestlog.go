package web

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
)

// RequestLogConfig says which requests are logged.
type RequestLogConfig struct {
	Rate float64 `json:"rate"` // share of requests that went well, 0 to 1; 0: 0.01; below 0: none of them
}

// Check says what is wrong with c.
func (c RequestLogConfig) Check() error {
	if math.IsNaN(c.Rate) || c.Rate > 1 {
		return fmt.Errorf("access_log: rate %v is more than 1: %w", c.Rate, cmg.ErrInvalid)
	}
	return nil
}

// A RequestLog writes lines about requests from a goroutine of its own. It
// never holds a request up: what does not fit between the two is dropped and
// counted. Which requests are samples follows from their id, so that every
// role on a request's way with the same rate logs the same ones.
type RequestLog struct {
	log              *slog.Logger
	below            atomic.Uint64 // an id whose hash is below this is a sample
	lines            chan RequestLine
	written, dropped atomic.Int64
}

// A RequestLine is one request that is over.
type RequestLine struct {
	Level   slog.Level
	Message string
	Attrs   []slog.Attr
}

// pendingLines is how many lines may wait to be written.
const pendingLines = 1024

// NewRequestLog makes a RequestLog that writes to l once it runs.
func NewRequestLog(l *slog.Logger, c RequestLogConfig) *RequestLog {
	r := &RequestLog{log: Log(l), lines: make(chan RequestLine, pendingLines)}
	r.Configure(c)
	return r
}

// Configure changes which requests are logged from now on.
func (r *RequestLog) Configure(c RequestLogConfig) {
	rate := c.Rate
	if rate == 0 {
		rate = 0.01
	}
	r.below.Store(uint64(max(0, min(rate, 1)) * (1 << 32)))
}

// Sample says whether a request that went well is to be logged.
func (r *RequestLog) Sample(id string) bool {
	h := uint64(14695981039346656037) // FNV-1a
	for i := range len(id) {
		h = (h ^ uint64(id[i])) * 1099511628211
	}
	// FNV's upper half hardly moves with the last characters, which are all
	// that differs from one id to the next: mix once more.
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	return h>>32 < r.below.Load()
}

// Put has a line written soon, or drops it.
func (r *RequestLog) Put(l RequestLine) {
	select {
	case r.lines <- l:
	default:
		r.dropped.Add(1)
	}
}

// Written is how many lines were written since the start.
func (r *RequestLog) Written() int64 { return r.written.Load() }

// Dropped is how many lines there was no room for.
func (r *RequestLog) Dropped() int64 { return r.dropped.Load() }

// Run writes until ctx ends, and then what still waits.
func (r *RequestLog) Run(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	told := int64(0)
	for {
		select {
		case l := <-r.lines:
			r.write(l)
		case <-tick.C:
			if n := r.dropped.Load(); n > told {
				r.log.Warn("lines about requests were dropped: they came faster than they are written", "dropped", n-told)
				told = n
			}
		case <-ctx.Done():
			for {
				select {
				case l := <-r.lines:
					r.write(l)
				default:
					return
				}
			}
		}
	}
}

func (r *RequestLog) write(l RequestLine) {
	r.log.LogAttrs(context.Background(), l.Level, l.Message, l.Attrs...)
	r.written.Add(1)
}
