package gateway

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencmg/cmg/meter"
	"github.com/opencmg/cmg/web"
)

// counters count what this instance did since it started.
type counters struct {
	requests, inFlight, parked, upgraded, repeated, aborted, manifests, bootstraps, shed, handshakeErrors, handshakesFull atomic.Int64

	refusals sync.Map // code → *atomic.Int64; codes are our own, so there are few
}

func (c *counters) refused(code string) {
	n, ok := c.refusals.Load(code)
	if !ok {
		n, _ = c.refusals.LoadOrStore(code, new(atomic.Int64))
	}
	n.(*atomic.Int64).Add(1)
}

func (c *counters) refusalRows() any {
	rows := map[string]int64{}
	c.refusals.Range(func(code, n any) bool {
		rows[code.(string)] = n.(*atomic.Int64).Load()
		return true
	})
	return rows
}

// requestIDs makes ids that no other instance, and no other run of this one,
// makes: a random part drawn at the start, and a count.
type requestIDs struct {
	prefix string
	n      *atomic.Uint64
}

func newRequestIDs() requestIDs {
	var b [5]byte
	rand.Read(b[:])
	return requestIDs{prefix: strings.ToLower(base32.StdEncoding.EncodeToString(b[:])) + "-", n: new(atomic.Uint64)}
}

func (r requestIDs) next() string { return r.prefix + strconv.FormatUint(r.n.Add(1), 36) }

// publishStatus says what the status page shows.
func (g *Gateway) publishStatus() {
	count := func(name string, n *atomic.Int64) { g.health.Publish(name, func() any { return n.Load() }) }
	count("requests", &g.counts.requests)
	count("in_flight", &g.counts.inFlight)
	count("parked", &g.counts.parked)
	count("repeated", &g.counts.repeated)
	count("aborted", &g.counts.aborted)
	count("manifests", &g.counts.manifests)
	count("bootstraps", &g.counts.bootstraps)
	count("shed", &g.counts.shed)
	count("handshake_errors", &g.counts.handshakeErrors)
	g.health.Publish("refusals", g.counts.refusalRows)
	g.health.Publish("connection_points", func() any { return g.points.rows() })
	g.health.Publish("accounts", g.accountRows)
	g.health.Publish("budget", func() any { return g.budget.status() })
	g.health.Publish("callers", g.accounts.callers.status)
	g.health.Publish("channels", g.channels.rows)
	g.health.Publish("tickets", g.tickets.row)
	g.health.Publish("revocation", g.revocationRows)
	g.health.Publish("certificate", func() any { return g.live.Load().shown.Status() })
	g.health.Publish("name", func() any { return g.cfg.Name })
	g.health.Publish("publication", func() any { return g.publicationRow() })
	g.health.Publish("sites", g.siteRows)
	g.health.Publish("waiting", func() any {
		w := g.waiting
		return map[string]int64{"requests": w.requests.Load(), "bytes": w.bytes.Load(), "refused": w.refused.Load(), "expired": w.expired.Load()}
	})
	g.health.Publish("gate", g.gateRows)
	g.health.Mount(web.RefusalsPath, g.refusals)
	g.health.Mount("/metrics", meter.Handler(Metrics, g.gather))
	g.updateReadiness()
}

// publicationRow tells which publication is in force.
func (s *served) publicationRow() any {
	e := s.edge.Load()
	if e == nil {
		return nil
	}
	p := e.publication
	return map[string]any{"version": p.Version, "site": p.Site, "issued": p.Issued, "routes": len(p.Routes), "anchors": len(p.Anchors), "keys": len(p.Keys),
		"blocks": p.Blocks.Len(), "tenants": len(p.Tenants), "revocation_lists": len(p.Revocation.Lists)}
}

// siteRows tells how each site stands.
func (g *Gateway) siteRows() any {
	rows := map[string]any{}
	for _, s := range g.sites {
		rows[s.code] = map[string]any{"publication": s.publicationRow(), "connection_points": s.points.rows()}
	}
	return rows
}

// updateReadiness says whether this instance can serve: some site at least.
// An instance that serves several is not to be taken from all for the sake of
// one.
func (g *Gateway) updateReadiness() {
	g.judging.Lock() // what was seen first is said first
	defer g.judging.Unlock()
	points, known := false, false
	for _, s := range g.sites {
		points = points || len(*s.points.list.Load()) > 0
		known = known || s.edge.Load() != nil
	}
	var err error
	if !points {
		err = errors.New("no connection point is connected")
	}
	g.health.Set("connection_point", err)
	err = nil
	if !known {
		err = errors.New("no publication was received yet")
	}
	g.health.Set("publication", err)
}
