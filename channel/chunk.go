package channel

import "sync"

// A chunk is one frame's payload in a pooled buffer.
type chunk struct {
	b      []byte
	pooled *[]byte
}

// classes are the sizes of pooled buffers.
var classes = [...]int{1 << 10, 4 << 10, 20 << 10, maxPiece, maxPayload}

var pools [len(classes)]sync.Pool

func getChunk(n int) chunk {
	for i, c := range classes {
		if n > c {
			continue
		}
		p, _ := pools[i].Get().(*[]byte)
		if p == nil {
			b := make([]byte, c)
			p = &b
		}
		return chunk{(*p)[:n], p}
	}
	return chunk{b: make([]byte, n)} // never: frames are bounded by the last class
}

func (c chunk) free() {
	if c.pooled == nil {
		return
	}
	for i, k := range classes {
		if len(*c.pooled) == k {
			pools[i].Put(c.pooled)
		}
	}
}
