package gateway

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg/channel"
)

// A point is one connection point and the connections it holds open. It is
// kept, with its counts, when its last connection ends.
type point struct {
	name     string
	slot     int // in the accounts
	requests atomic.Int64
	next     atomic.Uint32
	sessions atomic.Pointer[[]*channel.Session] // never changed in place
	load     pointLoad
}

// points is the set of one site's connection points. Requests read a
// snapshot.
type points struct {
	slots *pointSlots
	label string // of this site, in the slots' names
	next  atomic.Uint32
	least bool // pick the one with the least load, not the next
	list  atomic.Pointer[[]*point]
	queue *waiting // requests that wait for a connection point, of all sites

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	counts  map[string]*point
}

func (g *Gateway) newPoints(label string) *points {
	p := &points{slots: g.slots, label: label, least: g.cfg.Choice == ChoiceLeastLoaded, queue: g.waiting,
		changed: make(chan struct{}), counts: map[string]*point{}}
	p.list.Store(&[]*point{})
	return p
}

// add puts a session into the set, remove takes it out.
func (p *points) add(name string, s *channel.Session) { p.change(name, s, true) }

func (p *points) remove(name string, s *channel.Session) { p.change(name, s, false) }

func (p *points) change(name string, s *channel.Session, in bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pt := p.counts[name]
	if pt == nil {
		pt = &point{name: name, slot: p.slots.take(p.label + name)}
		pt.sessions.Store(&[]*channel.Session{})
		p.counts[name] = pt
	}
	sessions := slices.DeleteFunc(slices.Clone(*pt.sessions.Load()), func(x *channel.Session) bool { return x == s })
	if in {
		sessions = append(sessions, s)
	}
	pt.sessions.Store(&sessions)
	list := slices.DeleteFunc(slices.Clone(*p.list.Load()), func(x *point) bool { return x == pt })
	if len(sessions) > 0 {
		list = append(list, pt)
	}
	slices.SortFunc(list, func(a, b *point) int { return strings.Compare(a.name, b.name) })
	p.list.Store(&list)
	close(p.changed)
	p.changed = make(chan struct{})
}

// pick goes round the connection points, or takes the lighter one of two; and
// it goes round the connections of that one. A point named in not is passed
// over as long as there is another.
func (p *points) pick(not []string) (*point, *channel.Session) {
	list := *p.list.Load()
	if len(list) == 0 {
		return nil, nil
	}
	turn := int(p.next.Add(1) % uint32(len(list)))
	if p.least && len(list) > 1 {
		turn = lighter(list, turn)
	}
	var spare *point
	var spareSession *channel.Session
	for i := range list {
		pt := list[(turn+i)%len(list)]
		s := pt.usable()
		if s == nil {
			continue
		}
		if !slices.Contains(not, pt.name) {
			return pt, s
		}
		if spare == nil {
			spare, spareSession = pt, s
		}
	}
	return spare, spareSession
}

func (pt *point) usable() *channel.Session {
	sessions := *pt.sessions.Load()
	if len(sessions) == 0 {
		return nil
	}
	turn := int(pt.next.Add(1) % uint32(len(sessions)))
	for i := range sessions {
		if s := sessions[(turn+i)%len(sessions)]; s.Usable() {
			return s
		}
	}
	return nil
}

// wait blocks until the set changes, at most until the deadline. It says
// false at once if too much waits already; held is what the request holds in
// memory meanwhile.
func (p *points) wait(ctx context.Context, deadline time.Time, held int) bool {
	p.mu.Lock()
	changed := p.changed
	p.mu.Unlock()
	if _, s := p.pick(nil); s != nil {
		return true
	}
	if !p.queue.enter(held) {
		return false
	}
	defer p.queue.leave(held)
	t := time.NewTimer(time.Until(deadline))
	defer t.Stop()
	select {
	case <-changed:
		return true
	case <-t.C:
		p.queue.expired.Add(1)
	case <-ctx.Done():
	}
	return false
}

// pointSlots numbers the connection points of all sites for the accounts.
type pointSlots struct {
	mu sync.Mutex
	of map[string]int // by name
}

func newPointSlots() *pointSlots { return &pointSlots{of: map[string]int{}} }

func (s *pointSlots) take(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.of[name]; !ok {
		s.of[name] = min(len(s.of)+1, otherPoint)
	}
	return s.of[name]
}

// names names the slots.
func (s *pointSlots) names() (names [maxPoints + 2]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, slot := range s.of {
		names[slot] = name
	}
	names[otherPoint] = "(other)"
	return names
}

// A pointRow is how one connection point stands.
type pointRow struct {
	Channels  int     `json:"channels"`
	InFlight  int     `json:"in_flight"`
	Requests  int64   `json:"requests"`
	RoundTrip float64 `json:"round_trip_ms"`
	Short     int64   `json:"short_requests,omitempty"` // in flight, long polls apart; counted where the choice needs it
	Latency   float64 `json:"latency_ms,omitempty"`     // moving average of them
}

// rows tells what is connected.
func (p *points) rows() map[string]pointRow {
	p.mu.Lock()
	defer p.mu.Unlock()
	rows := map[string]pointRow{}
	for name, pt := range p.counts {
		sessions := *pt.sessions.Load()
		r := pointRow{Channels: len(sessions), Requests: pt.requests.Load(), Short: pt.load.short(time.Now()), Latency: float64(pt.load.latency.Load()) / 1e6}
		for _, s := range sessions {
			r.InFlight += s.InFlight()
			r.RoundTrip = max(r.RoundTrip, float64(s.RTT().Microseconds())/1000)
		}
		rows[name] = r
	}
	return rows
}
