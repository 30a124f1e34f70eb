package web

import (
	"net/http"
	"strconv"
	"sync"

	"github.com/opencmg/cmg"
)

// RefusalsPath is where a role's status listener tells of what it said no to,
// and where roles hand that on inward.
const RefusalsPath = "/cmg/v1/refusals"

const (
	ringSize    = 4096 // refusals a role remembers
	ringPending = 512  // that wait to be handed on
)

// A RefusalRing remembers a role's last refusals, for whoever asks why. It is
// bounded: the oldest go first; of those that are to be handed on inward, the
// newest. It may be used by many goroutines at once.
type RefusalRing struct {
	mu      sync.Mutex
	ring    []cmg.RefusalRecord // the next place is next
	next    int
	pending []cmg.RefusalRecord
	hands   bool // somebody takes what is pending
	lost    int64
}

// NewRefusalRing makes a ring. handsOn says that somebody calls Take.
func NewRefusalRing(handsOn bool) *RefusalRing { return &RefusalRing{hands: handsOn} }

// Put remembers r, which is cut where it is too long.
func (g *RefusalRing) Put(r cmg.RefusalRecord) {
	r = r.Bounded()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.ring) < ringSize {
		g.ring = append(g.ring, r)
	} else {
		g.ring[g.next] = r
		g.next = (g.next + 1) % ringSize
	}
	if g.hands {
		g.wait(r)
	}
}

func (g *RefusalRing) wait(r cmg.RefusalRecord) {
	if len(g.pending) >= ringPending {
		g.lost++
		return
	}
	g.pending = append(g.pending, r)
}

// Take gives what was put since the last call, at most most of it.
func (g *RefusalRing) Take(most int) []cmg.RefusalRecord {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(most, len(g.pending))
	if n == 0 {
		return nil
	}
	taken := append([]cmg.RefusalRecord(nil), g.pending[:n]...)
	g.pending = append(g.pending[:0], g.pending[n:]...)
	return taken
}

// Return puts back what could not be handed on.
func (g *RefusalRing) Return(rs []cmg.RefusalRecord) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range rs {
		g.wait(r)
	}
}

// Lost is how many were not handed on, since too many came at once.
func (g *RefusalRing) Lost() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lost
}

// Find gives what is remembered of the request with this id; of an empty id
// the newest refusals, at most most.
func (g *RefusalRing) Find(id string, most int) (found []cmg.RefusalRecord) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.ring {
		r := &g.ring[(g.next+len(g.ring)-1-i)%len(g.ring)] // the newest first
		if id == "" || r.ID == id {
			if found = append(found, *r); len(found) == most {
				break
			}
		}
	}
	return found
}

// ServeHTTP answers GET with the records of ?id=, or with the newest (?limit=,
// 100 unless told), as JSON. It belongs on a status listener.
func (g *RefusalRing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	limit := 100
	if n, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil && n > 0 {
		limit = min(n, ringSize)
	}
	found := g.Find(r.URL.Query().Get("id"), limit)
	if found == nil {
		found = []cmg.RefusalRecord{}
	}
	writeJSON(w, http.StatusOK, found)
}
