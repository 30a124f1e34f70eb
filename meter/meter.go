// Package meter counts on hot paths without a lock and shows the counts to
// Prometheus.
//
// A counter that every processor adds to is slow: its cache line travels at
// each addition. So whoever counts holds a [Shard], adds to that shard's
// copy, and readers, who are few, sum the copies.
package meter

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"
)

// A Shard says which copy of a counter to add to. A connection takes one for
// its life.
type Shard uint32

// maxShards bounds the memory of a machine with many processors.
const maxShards = 16

var shards = func() Shard {
	n := Shard(1)
	for n < maxShards && int(n) < runtime.GOMAXPROCS(0) {
		n *= 2
	}
	return n
}()

// Shards is how many copies a counter has: a power of two, the same for the
// life of the process.
func Shards() int { return int(shards) }

// Pick gives a shard by chance.
func Pick() Shard { return Shard(rand.Uint32()) & (shards - 1) }

// A Sum is one counter with a copy a shard. The zero Sum cannot be used: see
// NewSum.
type Sum struct{ copies []paddedCount }

type paddedCount struct {
	n atomic.Int64
	_ [56]byte // the rest of a cache line
}

// NewSum makes a counter that stands at zero.
func NewSum() Sum { return Sum{make([]paddedCount, shards)} }

// Add adds to the shard's copy.
func (s Sum) Add(at Shard, n int64) { s.copies[at].n.Add(n) }

// Load sums the copies. What is added meanwhile may or may not be in it.
func (s Sum) Load() (n int64) {
	for i := range s.copies {
		n += s.copies[i].n.Load()
	}
	return n
}

// A Traffic is what one kind of request amounts to.
type Traffic struct{ Requests, In, Out int64 }

// Plus adds two.
func (t Traffic) Plus(o Traffic) Traffic {
	return Traffic{t.Requests + o.Requests, t.In + o.In, t.Out + o.Out}
}

// A Tally counts the traffic of one kind of request in one shard.
type Tally struct{ requests, in, out atomic.Int64 }

// Add counts a request with the bytes it took and gave.
func (t *Tally) Add(requests, in, out int64) {
	t.requests.Add(requests)
	t.in.Add(in)
	t.out.Add(out)
}

// Load reads the counts.
func (t *Tally) Load() Traffic { return Traffic{t.requests.Load(), t.in.Load(), t.out.Load()} }

// Take reads the counts and sets them to zero: nothing added is lost.
func (t *Tally) Take() Traffic {
	return Traffic{t.requests.Swap(0), t.in.Swap(0), t.out.Swap(0)}
}
