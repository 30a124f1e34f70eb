package content

import (
	"context"
	"sync"
	"sync/atomic"
)

// each calls f for 0 to n-1, up to parallel at once, and returns after all
// calls have. The first error ends ctx for the others and is returned.
func each(ctx context.Context, n, parallel int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, parallel) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(ctx, i); err != nil {
					cancel(err) // the first one stays
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// A tally counts what several goroutines have done and tells about it.
type tally struct {
	mu   sync.Mutex
	now  Progress
	tell func(Progress) // may be nil
}

func (t *tally) add(files int, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now.Files += files
	t.now.Bytes += bytes
	if t.tell != nil {
		t.tell(t.now)
	}
}

// buffers are what files are read and written through.
var buffers = sync.Pool{New: func() any { return new([smallFile + 1]byte) }}

// smallFile is the size up to which a file is held in memory as a whole.
const smallFile = 256 << 10
