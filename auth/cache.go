package auth

import (
	"crypto/sha256"
	"hash/maphash"
	"sync"
	"time"
)

const cacheShards = 16

// A cache keeps what was proven for as long as it holds. It is bounded: each
// shard keeps two generations and drops the older when the newer is full, so
// that what is asked for stays and a flood of other keys passes through.
type cache[K comparable, V any] struct {
	seed   maphash.Seed
	each   int // entries in a generation of a shard
	shards [cacheShards]shard[K, V]
}

type shard[K comparable, V any] struct {
	mu       sync.RWMutex
	new, old map[K]kept[V]
	_        [24]byte // shards are not to share a cache line
}

// kept is a value that holds at from ≤ t < until.
type kept[V any] struct {
	value       V
	from, until time.Time
}

func (k kept[V]) holds(at time.Time) bool { return !at.Before(k.from) && at.Before(k.until) }

// newCache makes a cache of at most about size entries.
func newCache[K comparable, V any](size int) *cache[K, V] {
	return &cache[K, V]{seed: maphash.MakeSeed(), each: max(size/(2*cacheShards), 1)}
}

func (c *cache[K, V]) shard(key K) *shard[K, V] {
	return &c.shards[maphash.Comparable(c.seed, key)%cacheShards]
}

// get gives the value of key if one holds at that time.
func (c *cache[K, V]) get(key K, at time.Time) (v V, ok bool) {
	s := c.shard(key)
	s.mu.RLock()
	k, young := s.new[key]
	ok = young
	if !ok {
		k, ok = s.old[key]
	}
	s.mu.RUnlock()
	if !ok || !k.holds(at) {
		return v, false
	}
	if !young {
		c.put(key, k, at)
	}
	return k.value, true
}

// put keeps k, unless another goroutine was first with a value that holds;
// it gives the value that is kept.
func (c *cache[K, V]) put(key K, k kept[V], at time.Time) V {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if first, ok := s.new[key]; ok && first.holds(at) {
		return first.value
	}
	if s.new == nil || len(s.new) >= c.each {
		s.old, s.new = s.new, make(map[K]kept[V])
	}
	s.new[key] = k
	return k.value
}

// digest stands for a token or header in a cache, where the text itself would
// lie about. It takes no memory for texts of the usual size.
func digest(s string) [sha256.Size]byte {
	return sha256.Sum256(append(make([]byte, 0, 1024), s...))
}
