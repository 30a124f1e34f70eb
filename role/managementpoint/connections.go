package managementpoint

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// connections counts who connected, by the role in the peer's verified
// certificate. Whoever is no connection point is "other", also one that went
// away before its handshake was done.
type connections struct {
	mu    sync.Mutex
	fresh map[net.Conn]bool // accepted, not yet counted
	n     connectionCount
}

type connectionCount struct {
	ConnectionPoint int64 `json:"connection_point"`
	Other           int64 `json:"other"`
}

// changed is the server's ConnState. A connection's first active state comes
// after its handshake.
func (c *connections) changed(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == http.StateNew {
		if c.fresh == nil {
			c.fresh = map[net.Conn]bool{}
		}
		c.fresh[conn] = true
		return
	}
	if !c.fresh[conn] {
		return
	}
	delete(c.fresh, conn)
	if t, ok := conn.(*tls.Conn); ok {
		cs := t.ConnectionState()
		if name, ok := auth.PeerRole(&cs); ok && name.Role == cmg.RoleConnectionPoint {
			c.n.ConnectionPoint++
			return
		}
	}
	c.n.Other++
}

func (c *connections) counts() connectionCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// counters are what /status tells of the requests.
type counters struct {
	mu       sync.Mutex
	requests map[string]int64 // by endpoint
	refusals map[string]int64 // by code
}

func (c *counters) request(endpoint string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.requests == nil {
		c.requests = map[string]int64{}
	}
	c.requests[endpoint]++
}

// refused counts an error by its code. Codes are our own constants, so there
// is a bounded number of them.
func (c *counters) refused(err error) {
	code := http.StatusText(cmg.StatusOf(err))
	var r *cmg.Refusal
	if errors.As(err, &r) {
		code = r.Code
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refusals == nil {
		c.refusals = map[string]int64{}
	}
	c.refusals[code]++
}

func copied(mu *sync.Mutex, m *map[string]int64) map[string]int64 {
	mu.Lock()
	defer mu.Unlock()
	out := make(map[string]int64, len(*m))
	for k, v := range *m {
		out[k] = v
	}
	return out
}

func (p *Point) publishStatus() {
	p.health.Publish("connections", func() any { return p.conns.counts() })
	p.health.Publish("requests", func() any { return copied(&p.count.mu, &p.count.requests) })
	p.health.Publish("refusals", func() any { return copied(&p.count.mu, &p.count.refusals) })
	p.health.Publish("publication", func() any { return p.maps.version() })
	p.health.Publish("notification", func() any { return p.hub.counts() })
	p.health.Mount(web.RefusalsPath, p.refusals)
}

// lastSeen gathers when devices were seen, to be written in one go. What is
// in it may be lost.
type lastSeen struct {
	mu sync.Mutex
	at map[cmg.DeviceID]time.Time
}

func (l *lastSeen) note(id cmg.DeviceID, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == nil {
		l.at = map[cmg.DeviceID]time.Time{}
	}
	l.at[id] = at
}

func (l *lastSeen) take() map[cmg.DeviceID]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.at
	l.at = nil
	return at
}
