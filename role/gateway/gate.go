package gateway

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
)

// A gate bounds how many requests are inward at once. While there is room a
// request that enters and leaves costs two additions. Beyond that requests
// wait in a bounded queue, those of a better class first, and each no longer
// than its time. Under pressure the last class is turned away first: the
// others have room that it may not use.
type gate struct {
	room    [cmg.Classes]int64 // how many requests may be inside when one of the class enters
	queue   int                // requests that may wait
	patient time.Duration      // how long each may

	inside  atomic.Int64
	waiting atomic.Int64
	refused atomic.Int64

	mu    sync.Mutex
	lines [cmg.Classes][]chan struct{} // a closed channel has been let in
}

// newGate makes a gate for limit requests. A tenth of them is kept for the
// first class, as much again for each class below.
func newGate(limit int64, reserve bool) *gate {
	g := &gate{queue: int(min(max(limit, 16), 1024)), patient: 2 * time.Second}
	for c := range g.room {
		g.room[c] = limit
		if reserve {
			g.room[c] = max(1, limit-int64(c)*limit/10)
		}
	}
	return g
}

// enter waits for room. Its error is a refusal, or that ctx has ended.
func (g *gate) enter(ctx context.Context, c cmg.Class) error {
	if g == nil {
		return nil
	}
	rank := c.Rank()
	if g.waiting.Load() == 0 && g.tryEnter(rank) {
		return nil
	}
	in, ok := g.wait(rank)
	if !ok {
		g.refused.Add(1)
		return errBusy()
	}
	if in == nil {
		return nil
	}
	t := time.NewTimer(g.patient)
	defer t.Stop()
	var err error
	select {
	case <-in:
		return nil
	case <-t.C:
		err = errBusy()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if !g.giveUp(rank, in) {
		return nil // let in at the last moment
	}
	g.refused.Add(1)
	return err
}

func errBusy() error {
	return cmg.Refuse(503, "CMGService_Overloaded", "too many requests are under way", nil)
}

func (g *gate) tryEnter(rank int) bool {
	if g.inside.Add(1) <= g.room[rank] {
		return true
	}
	g.inside.Add(-1)
	return false
}

// wait takes a place in the queue. nil: there is room after all; not ok:
// there is no place.
func (g *gate) wait(rank int) (in chan struct{}, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiting.Add(1) > int64(g.queue) {
		g.waiting.Add(-1)
		return nil, false
	}
	in = make(chan struct{})
	g.lines[rank] = append(g.lines[rank], in)
	g.admit() // whoever left before we stood here did not see us
	return in, true
}

// admit lets in whom there is room for, the first class first. It is called
// with mu held.
func (g *gate) admit() {
	for rank := range g.lines {
		for len(g.lines[rank]) > 0 && g.tryEnter(rank) {
			close(g.lines[rank][0])
			g.lines[rank] = slices.Delete(g.lines[rank], 0, 1)
			g.waiting.Add(-1)
		}
	}
}

// giveUp leaves the queue; false: too late, it was let in.
func (g *gate) giveUp(rank int, in chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.lines[rank], in)
	if i < 0 {
		return false
	}
	g.lines[rank] = slices.Delete(g.lines[rank], i, i+1)
	g.waiting.Add(-1)
	return true
}

// leave makes room.
func (g *gate) leave() {
	if g == nil {
		return
	}
	g.inside.Add(-1)
	if g.waiting.Load() > 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.admit()
	}
}

// gateOf gives a route's own gate. It stays from one publication to the next
// as long as its limit does, for what is inside leaves by it.
func (g *Gateway) gateOf(r *cmg.Route) *gate {
	if r.MaxConcurrent == 0 {
		return nil
	}
	if e := g.edge.Load(); e != nil {
		if old := e.routes[strings.ToLower(r.Prefix)]; old != nil && old.gate != nil && old.MaxConcurrent == r.MaxConcurrent {
			return old.gate
		}
	}
	return newGate(r.MaxConcurrent, false)
}

// admit sends a request inward once there is room for it: at its route's
// gate, then at that of all.
func (x *exchange) admit(ctx context.Context) error {
	if err := x.enter(ctx, x.route.gate); err != nil {
		return err
	}
	if err := x.enter(ctx, x.g.gate); err != nil {
		x.route.gate.leave()
		return err
	}
	return x.leave(x.forward(ctx))
}

// leave makes room again, unless the request is parked.
func (x *exchange) leave(err error) error {
	if err != errParked {
		x.g.gate.leave()
		x.route.gate.leave()
	}
	return err
}

func (x *exchange) enter(ctx context.Context, g *gate) error {
	err := g.enter(ctx, x.route.Class)
	if err != nil && ctx.Err() != nil {
		return errors.Join(errGone, err)
	}
	return err
}
