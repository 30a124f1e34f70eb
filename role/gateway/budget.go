package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/meter"
)

// BudgetConfig bounds what this instance sends to clients: answers cost money
// where the cloud charges for what leaves it. Each instance has its own.
type BudgetConfig struct {
	Bytes    int64         `json:"bytes"`    // of answers in one window; 0: no budget
	Window   time.Duration `json:"window"`   // the time looked back on; 0: 336h
	Warn     int           `json:"warn"`     // percent; 0: 50
	Critical int           `json:"critical"` // percent; 0: 90
	Stop     bool          `json:"stop"`     // refuse requests at 100 percent
	Exempt   []string      `json:"exempt"`   // names of endpoints that pass all the same
}

func (c BudgetConfig) withDefaults() (BudgetConfig, error) {
	if c.Window == 0 {
		c.Window = 14 * 24 * time.Hour
	}
	if c.Warn == 0 {
		c.Warn = 50
	}
	if c.Critical == 0 {
		c.Critical = 90
	}
	if c.Bytes < 0 || c.Window < time.Minute || c.Warn < 0 || c.Warn > c.Critical || c.Critical > 100 {
		return c, fmt.Errorf("budget: wants bytes of 0 or more, a window of a minute or more, and 0 < warn <= critical <= 100: %w", cmg.ErrInvalid)
	}
	return c, nil
}

// exempts says whether a route passes all the same.
func (c BudgetConfig) exempts(r *cmg.Route) bool {
	return slices.ContainsFunc(c.Exempt, func(name string) bool { return strings.EqualFold(name, r.Name) })
}

// How the budget stands.
const (
	budgetFine = iota
	budgetWarn
	budgetCritical
	budgetExhausted
)

var budgetStates = [...]string{"fine", "warning", "critical", "exhausted"}

const (
	budgetTick  = 250 * time.Millisecond // how soon a crossing is seen
	budgetWrite = 750 * time.Millisecond // with a tick on top: a second
	budgetSlots = 336                    // that a window is cut into
	budgetGap   = 1.25                   // seconds of sending that a kill may hide
)

// A budget compares what was sent in the window that ends now with what may
// be. Requests look at one flag.
type budget struct {
	conf  BudgetConfig
	log   *slog.Logger
	file  string
	sent  func() int64 // bytes since the start
	ended atomic.Bool  // there is none left, and requests are to be refused
	cut   atomic.Int64 // answers that were broken off
	gone  atomic.Bool  // another process writes the file now

	mu    sync.Mutex
	kept  budgetFile
	seen  int64     // of sent
	last  time.Time // look
	saved time.Time
	loose int64 // bytes that the file does not have
	state int
	bad   error // of the last write
}

// slot is the length of the pieces in which the window moves on.
func (b *budget) slot() int64 { return max(1, int64(b.conf.Window/time.Second)/budgetSlots) }

// used is what the window holds. It is called with mu held.
func (b *budget) used() (n int64) {
	for _, s := range b.kept.Slots {
		n += s.Bytes
	}
	return n
}

// look takes in what was sent since the last look, and says or does what
// follows from it.
func (b *budget) look(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sent := b.sent()
	more := sent - b.seen
	b.seen = sent
	if dt := now.Sub(b.last).Seconds(); dt > 0 {
		// The gap that a kill leaves is counted at the highest rate of late.
		b.kept.Rate = max(float64(more)/max(dt, budgetTick.Seconds()), b.kept.Rate*(1-min(1, dt/30)))
		b.last = now
	}
	b.enter(now, more)
	b.loose += more
	state := b.judge()
	due := b.loose > 0 && (now.Sub(b.saved) >= budgetWrite || b.loose > b.kept.Allowance)
	if due || state != b.state {
		b.save(now, false)
	}
	b.ended.Store(state == budgetExhausted && b.conf.Stop)
	if state != b.state {
		b.tell(state)
	}
}

// enter counts bytes in the slot of now, and forgets the slots that the
// window has left.
func (b *budget) enter(now time.Time, n int64) {
	at := now.Unix() / b.slot() * b.slot()
	b.kept.Slots = slices.DeleteFunc(b.kept.Slots, func(s budgetSlot) bool { return s.At+b.slot() <= now.Add(-b.conf.Window).Unix() })
	if n == 0 {
		return
	}
	if i := len(b.kept.Slots) - 1; i >= 0 && b.kept.Slots[i].At >= at {
		b.kept.Slots[i].Bytes += n
		return
	}
	b.kept.Slots = append(b.kept.Slots, budgetSlot{at, n})
}

func (b *budget) judge() int {
	percent := float64(b.used()) / float64(b.conf.Bytes) * 100
	switch {
	case percent >= 100:
		return budgetExhausted
	case percent >= float64(b.conf.Critical):
		return budgetCritical
	case percent >= float64(b.conf.Warn):
		return budgetWarn
	}
	return budgetFine
}

func (b *budget) tell(state int) {
	log := b.log.Info
	switch {
	case state > b.state && state == budgetWarn:
		log = b.log.Warn
	case state > b.state:
		log = b.log.Error
	}
	b.state = state
	log("outbound budget", "state", budgetStates[state], "used", b.used(), "bytes", b.conf.Bytes, "window", b.conf.Window, "requests_refused", b.ended.Load())
}

// run looks until ctx ends, and leaves a file that has all of it.
func (b *budget) run(ctx context.Context, now func() time.Time) {
	tick := time.NewTicker(budgetTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.look(now())
		case <-ctx.Done():
			b.look(now())
			b.mu.Lock()
			b.save(now(), true)
			b.mu.Unlock()
			return
		}
	}
}

// refuse says no to a request once the budget is used up.
func (b *budget) refuse(exempt bool) error {
	if b == nil || exempt || !b.ended.Load() {
		return nil
	}
	return cmg.Refuse(503, "CMGService_Budget_Exhausted", "this gateway has sent as much as it may for now", nil)
}

// errBudget ends an answer that is under way when the budget is used up.
var errBudget = errors.New("the outbound budget is used up")

// cuts says whether an answer under way has to end.
func (b *budget) cuts(exempt bool) bool {
	if b == nil || exempt || !b.ended.Load() {
		return false
	}
	b.cut.Add(1)
	return true
}

// status tells the status page how the budget stands.
func (b *budget) status() any {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	row := map[string]any{"bytes": b.conf.Bytes, "used": b.used(), "window": b.conf.Window.String(), "state": budgetStates[b.state],
		"percent": float64(int64(float64(b.used())/float64(b.conf.Bytes)*1000)) / 10, "refusing": b.ended.Load(), "cut": b.cut.Load()}
	if b.bad != nil {
		row["write_error"] = b.bad.Error()
	}
	return row
}

func (b *budget) gather(e *meter.Emit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.Value(mBudget, float64(b.conf.Bytes))
	e.Value(mBudgetUsed, float64(b.used()))
	e.Value(mBudgetState, float64(b.state))
	e.Value(mBudgetCut, float64(b.cut.Load()))
}
