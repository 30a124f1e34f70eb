package meter

import (
	"sync/atomic"
	"time"
)

// bounds are the upper ends of the histogram's buckets. Behind the last one
// lie long polls, which take minutes by intent.
var bounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2500 * time.Millisecond,
	5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// A Latency is a histogram of durations in one shard. Its zero value is
// empty.
type Latency struct {
	counts [len(bounds) + 1]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

// Observe counts a duration.
func (l *Latency) Observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	l.counts[i].Add(1)
	l.sum.Add(int64(d))
}

// A Histogram is the sum of some Latencies.
type Histogram struct {
	Count   uint64
	Seconds float64            // sum of all
	Upto    map[float64]uint64 // how many took at most so many seconds
}

// SumLatency adds up histograms, which may be nil.
func SumLatency(ls ...*Latency) Histogram {
	h := Histogram{Upto: make(map[float64]uint64, len(bounds))}
	var counts [len(bounds) + 1]uint64
	for _, l := range ls {
		if l == nil {
			continue
		}
		for i := range counts {
			counts[i] += l.counts[i].Load()
		}
		h.Seconds += time.Duration(l.sum.Load()).Seconds()
	}
	for i, n := range counts {
		h.Count += n
		if i < len(bounds) {
			h.Upto[bounds[i].Seconds()] = h.Count
		}
	}
	return h
}
