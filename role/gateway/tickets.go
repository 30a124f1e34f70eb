package gateway

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

const (
	ownTickets  = 24 * time.Hour // how long an instance uses a secret of its own
	ticketsLook = 30 * time.Second
)

// tickets are the secrets of which the keys of session tickets are made. They
// come from the site over the channel, are in memory only, and are the same
// at each instance. An instance that has none yet uses one of its own. The
// keys depend on the trust anchors: when these change, no ticket from before
// can be read, so that nobody resumes past the change.
//
// Whoever knows the secrets can take any client's session for his own. One
// site's inside is not to be able to do that to another site's clients: an
// instance that serves several uses secrets of its own only.
type tickets struct {
	g *Gateway

	mu     sync.Mutex
	shared map[string]cmg.TicketSecret
	own    cmg.TicketSecret
	known  map[string][]string // the anchors in force, by site
	scope  auth.TicketScope    // what known makes
}

func (t *tickets) begin(g *Gateway) {
	t.g, t.shared, t.known = g, map[string]cmg.TicketSecret{}, map[string][]string{}
	t.refresh()
}

// take adds what a connection point brought. There may be several, which
// asked at different times: what still holds is kept.
func (t *tickets) take(doc []byte) {
	if len(t.g.sites) > 1 {
		return
	}
	var in cmg.TicketSecrets
	d := json.NewDecoder(bytes.NewReader(doc))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil || d.Decode(new(json.RawMessage)) != io.EOF || in.Check() != nil {
		t.g.log.Warn("secrets of session tickets were refused: they cannot be read") // not why: that could quote them
		return
	}
	t.mu.Lock()
	before := len(t.shared)
	for _, s := range in.Secrets {
		t.shared[s.ID] = s
	}
	t.prune(t.g.now())
	for len(t.shared) > cmg.MaxTicketSecrets { // the oldest
		oldest := slices.MinFunc(slices.Collect(maps.Values(t.shared)), func(a, b cmg.TicketSecret) int { return a.From.Compare(b.From) })
		delete(t.shared, oldest.ID)
	}
	n := len(t.shared)
	t.mu.Unlock()
	if n != before {
		t.g.log.Info("session tickets are shared", "secrets", n)
	}
	t.refresh()
}

// trust learns of the anchors in force.
func (t *tickets) trust(p cmg.Publication) {
	t.mu.Lock()
	t.known[p.Site] = p.Anchors
	t.scope = scopeOf(t.known)
	t.mu.Unlock()
	t.refresh()
}

// scopeOf binds tickets to the anchors of all sites: each with its site's
// code, where there are several, since one that moves from a site to another
// is a change as well.
func scopeOf(known map[string][]string) (scope auth.TicketScope) {
	codes := slices.Sorted(maps.Keys(known))
	scope.Site = strings.Join(codes, " ")
	for _, code := range codes {
		for _, a := range known[code] {
			if len(codes) > 1 {
				a = code + " " + a
			}
			scope.Anchors = append(scope.Anchors, a)
		}
	}
	return scope
}

// use gives settings the keys in force, before they are.
func (t *tickets) use(front *tls.Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.g.now()
	t.prune(now)
	if auth.SetTicketKeys(front, t.scope, slices.Collect(maps.Values(t.shared)), now) {
		return
	}
	if !now.Before(t.own.Until) {
		t.own = cmg.TicketSecret{ID: "own", Secret: make([]byte, 32), From: now, Until: now.Add(ownTickets)}
		rand.Read(t.own.Secret)
	}
	auth.SetTicketKeys(front, t.scope, []cmg.TicketSecret{t.own}, now)
}

// prune forgets what has ended. It is called with mu held.
func (t *tickets) prune(now time.Time) {
	maps.DeleteFunc(t.shared, func(_ string, s cmg.TicketSecret) bool { return !now.Before(s.Until) })
}

func (t *tickets) refresh() { t.use(t.g.live.Load().front) }

// run moves on to the secret whose time has come, until ctx ends.
func (t *tickets) run(ctx context.Context) {
	tick := time.NewTicker(ticketsLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.refresh()
		case <-ctx.Done():
			return
		}
	}
}

// row is what the status page shows.
func (t *tickets) row() any {
	t.mu.Lock()
	defer t.mu.Unlock()
	return map[string]any{"shared": len(t.shared) > 0, "secrets": len(t.shared)}
}
