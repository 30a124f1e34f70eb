// Package gate bounds how much is under way at once. While there is room,
// what enters and leaves costs two additions. Beyond that it waits in a
// bounded queue, a better class first, each no longer than its time.
//
// In normal times a queue is first come, first served. One that has not been
// empty for a while will not be: then the newest goes first and whoever has
// waited too long is turned away at once, so that some are served in time
// rather than all too late (adaptive LIFO with controlled delay). A queue
// that is full gives the place of the worst class's oldest to a newcomer that
// is no worse.
package gate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
)

// Why somebody is not let in.
var (
	ErrFull = errors.New("nobody may wait any more")
	ErrLate = errors.New("there was no room in time")
)

// Config says how a gate is. Limit has to be positive.
type Config struct {
	Limit    int64         // inside at once
	Reserve  bool          // keep a tenth for the first class, as much again for each class below
	Queue    int64         // may wait; 0: as Limit, at least 16 and at most 1,024
	Patience time.Duration // how long each may wait; 0: 2 s
}

// Stats is how a gate stands.
type Stats struct {
	Limit    int64 `json:"limit"`
	Inside   int64 `json:"inside"`
	Waiting  int64 `json:"waiting"`
	Queued   int64 `json:"queued"`   // had to wait, so far
	Full     int64 `json:"full"`     // turned away: nobody may wait any more
	Late     int64 `json:"late"`     // turned away: no room in time
	Pressure bool  `json:"pressure"` // the queue has not been empty for a while
}

// A Gate is one. It may be used by many goroutines at once; a nil *Gate lets
// everybody in.
type Gate struct {
	queue    int64
	patience time.Duration
	reserve  bool
	limit    atomic.Int64
	inside   atomic.Int64
	waiting  atomic.Int64

	queued, full, late atomic.Int64

	mu    sync.Mutex
	lines [cmg.Classes][]*waiter // the oldest first
	since time.Time              // when the queue was last empty
}

// A waiter waits for in to be closed.
type waiter struct {
	in      chan struct{}
	since   time.Time
	refused error // set before in is closed: it was not let in
}

// New makes a gate.
func New(c Config) *Gate {
	if c.Queue == 0 {
		c.Queue = min(max(c.Limit, 16), 1024)
	}
	if c.Patience == 0 {
		c.Patience = 2 * time.Second
	}
	g := &Gate{queue: c.Queue, patience: c.Patience, reserve: c.Reserve}
	g.limit.Store(c.Limit)
	return g
}

// room is how many may be inside when one of the rank enters.
func (g *Gate) room(rank int) int64 {
	limit := g.limit.Load()
	if g.reserve {
		return max(1, limit-int64(rank)*limit/10)
	}
	return limit
}

// Enter waits for room for one of class c. Its error is ErrFull, ErrLate or
// that of ctx. Whoever was let in has to leave.
func (g *Gate) Enter(ctx context.Context, c cmg.Class) error {
	if g == nil || g.TryEnter(c) {
		return nil
	}
	return g.Wait(ctx, c)
}

// TryEnter enters if there is room and nobody waits for it.
func (g *Gate) TryEnter(c cmg.Class) bool {
	return g == nil || g.waiting.Load() == 0 && g.try(c.Rank())
}

// Wait is Enter for whom TryEnter has turned away.
func (g *Gate) Wait(ctx context.Context, c cmg.Class) error {
	rank := c.Rank()
	w := g.join(rank)
	if w == nil {
		g.full.Add(1)
		return ErrFull
	}
	t := time.NewTimer(g.patience)
	defer t.Stop()
	err := ErrLate
	select {
	case <-w.in:
		return g.verdict(w)
	case <-t.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if !g.giveUp(rank, w) {
		<-w.in
		return g.verdict(w)
	}
	if err == ErrLate {
		g.late.Add(1)
	}
	return err
}

func (g *Gate) verdict(w *waiter) error {
	switch w.refused {
	case ErrFull:
		g.full.Add(1)
	case ErrLate:
		g.late.Add(1)
	}
	return w.refused
}

func (g *Gate) try(rank int) bool {
	if g.inside.Add(1) <= g.room(rank) {
		return true
	}
	g.inside.Add(-1)
	return false
}

// join takes a place in the queue. nil: there is none.
func (g *Gate) join(rank int) *waiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if g.waiting.Load() == 0 {
		g.since = now
	}
	if g.waiting.Load() >= g.queue && !g.displace(rank) {
		return nil
	}
	w := &waiter{in: make(chan struct{}), since: now}
	g.lines[rank] = append(g.lines[rank], w)
	g.waiting.Add(1)
	g.queued.Add(1)
	g.admit(now) // whoever left before we stood here did not see us
	return w
}

// displace turns the oldest of the worst class away, if that is no better
// than rank. It is called with mu held.
func (g *Gate) displace(rank int) bool {
	for r := len(g.lines) - 1; r >= rank; r-- {
		if len(g.lines[r]) > 0 {
			g.turnAway(r, 0, ErrFull)
			return true
		}
	}
	return false
}

// turnAway and letIn end a wait. They are called with mu held.
func (g *Gate) turnAway(rank, i int, why error) {
	g.lines[rank][i].refused = why
	g.letIn(rank, i)
}

func (g *Gate) letIn(rank, i int) {
	close(g.lines[rank][i].in)
	g.lines[rank] = slices.Delete(g.lines[rank], i, i+1)
	g.waiting.Add(-1)
}

// pressed says that the queue has not been empty for a quarter of what one
// has patience for. It is called with mu held.
func (g *Gate) pressed(now time.Time) bool {
	return g.waiting.Load() > 0 && now.Sub(g.since) > g.patience/4
}

// admit lets in whom there is room for, the first class first. It is called
// with mu held.
func (g *Gate) admit(now time.Time) {
	pressed := g.pressed(now)
	for rank := range g.lines {
		for pressed && len(g.lines[rank]) > 0 && now.Sub(g.lines[rank][0].since) > g.patience/4 {
			g.turnAway(rank, 0, ErrLate)
		}
		for len(g.lines[rank]) > 0 && g.try(rank) {
			next := 0
			if pressed {
				next = len(g.lines[rank]) - 1
			}
			g.letIn(rank, next)
		}
	}
	if g.waiting.Load() == 0 {
		g.since = now
	}
}

// giveUp leaves the queue; false: too late, the wait has ended.
func (g *Gate) giveUp(rank int, w *waiter) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.Index(g.lines[rank], w)
	if i < 0 {
		return false
	}
	g.lines[rank] = slices.Delete(g.lines[rank], i, i+1)
	g.waiting.Add(-1)
	return true
}

// Leave makes room.
func (g *Gate) Leave() {
	if g == nil {
		return
	}
	g.inside.Add(-1)
	if g.waiting.Load() > 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.admit(time.Now())
	}
}

// SetLimit changes the limit. Those inside stay.
func (g *Gate) SetLimit(n int64) {
	if g.limit.Swap(n) < n && g.waiting.Load() > 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.admit(time.Now())
	}
}

// Limit gives the limit.
func (g *Gate) Limit() int64 { return g.limit.Load() }

// Waiting is how many wait.
func (g *Gate) Waiting() int64 {
	if g == nil {
		return 0
	}
	return g.waiting.Load()
}

// Inside is how many are inside.
func (g *Gate) Inside() int64 {
	if g == nil {
		return 0
	}
	return g.inside.Load()
}

// Stats tells how the gate stands.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Stats{Limit: g.limit.Load(), Inside: g.inside.Load(), Waiting: g.waiting.Load(), Queued: g.queued.Load(),
		Full: g.full.Load(), Late: g.late.Load(), Pressure: g.pressed(time.Now())}
}
