package gateway

import "sync"

// scratch buffers are lent for as long as one request lasts, so that a
// connection that waits for its next holds little.
var scratch = [...]struct {
	size int
	pool *sync.Pool
}{{4 << 10, new(sync.Pool)}, {20 << 10, new(sync.Pool)}, {80 << 10, new(sync.Pool)}}

// keepScratch is the capacity of a buffer that stays with its connection.
const keepScratch = 4 << 10

// grown gives a buffer like b with room for n bytes: b itself where it has
// it. What was in b is gone otherwise.
func grown(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:0]
	}
	giveBack(b)
	for _, s := range scratch {
		if n > s.size {
			continue
		}
		if p, ok := s.pool.Get().(*[]byte); ok {
			return (*p)[:0]
		}
		return make([]byte, 0, s.size)
	}
	return make([]byte, 0, n)
}

// giveBack takes a buffer that nobody looks into any more.
func giveBack(b []byte) {
	for _, s := range scratch {
		if cap(b) == s.size {
			s.pool.Put(&b)
		}
	}
}

// small gives b back, and nil for it, if it is too large to be kept.
func small(b []byte) []byte {
	if cap(b) <= keepScratch {
		return b[:0]
	}
	giveBack(b)
	return nil
}
