package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/gate"
	"github.com/opencmg/cmg/h1"
)

// An edge is what one publication makes of the gateway: an immutable
// snapshot that requests look at without a lock.
type edge struct {
	publication cmg.Publication
	trust       *auth.Trust
	routes      map[string]*published // by prefix in lower case
	longest     int                   // length of the longest prefix
}

// A published is a route with what its requests need at hand.
type published struct {
	cmg.Route
	endpoint *endpoint
	exempt   bool       // from the outbound budget
	gate     *gate.Gate // nil: no limit
}

func (g *Gateway) newEdge(s *served, p cmg.Publication) (*edge, error) {
	trust, err := auth.NewTrustWith(p, s.inquiry.known(p))
	if err != nil {
		return nil, err
	}
	live := g.live.Load()
	e := &edge{publication: p, trust: trust, routes: make(map[string]*published, len(p.Routes))}
	for i := range p.Routes {
		r := &p.Routes[i]
		norm, err := h1.NormalPath([]byte(r.Prefix))
		if err != nil || string(norm) != r.Prefix {
			return nil, fmt.Errorf("route %q is not in normal form: %w", r.Prefix, cmg.ErrInvalid)
		}
		e.routes[strings.ToLower(r.Prefix)] = &published{Route: *r, endpoint: g.accounts.endpoint(p.Site, r), exempt: live.cfg.Budget.exempts(r), gate: gateOf(s, r)}
		e.longest = max(e.longest, len(r.Prefix))
	}
	return e, nil
}

// match finds the route with the longest prefix of whole segments of path,
// without letter case. nil: nothing is published there.
func (e *edge) match(path []byte) *published {
	var stack [256]byte
	low := stack[:0]
	for i := 0; i < len(path) && i <= e.longest; i++ {
		c := path[i]
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		low = append(low, c)
	}
	for n := len(low); n > 1; n-- {
		if n < len(path) && path[n] != '/' {
			continue
		}
		if r, ok := e.routes[string(low[:n])]; ok {
			return r
		}
	}
	return nil
}

// publicationFile keeps the first site's publication.
const publicationFile = "publication.jws"

// loadPublication takes the publication kept by an earlier run.
func (g *Gateway) loadPublication(s *served) error {
	file := filepath.Join(g.cfg.StateDir, s.file)
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := g.readPublication(s, string(b))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	s.edge.Store(e)
	g.tickets.trust(e.publication)
	g.updateReadiness()
	return nil
}

func (g *Gateway) readPublication(s *served, jws string) (*edge, error) {
	p, err := auth.ReadPublication(g.live.Load().of(s).identity, jws, g.now())
	if err != nil {
		return nil, err
	}
	return g.newEdge(s, p)
}

// takePublication checks a publication that a connection point of the site
// brought, keeps it, and lets all new requests meet it.
func (g *Gateway) takePublication(s *served, version uint64, doc []byte) error {
	g.taking.Lock()
	defer g.taking.Unlock()
	old := s.version()
	if version == old && old != 0 {
		return nil
	}
	p, err := auth.ReadPublication(g.live.Load().of(s).identity, string(doc), g.now())
	if v := p.Version; err == nil && (v != version || v < old) {
		// Not even its lists of revoked certificates may take the place of the newer ones.
		return fmt.Errorf("publication says version %d, was sent as %d, and version %d is known: %w", v, version, old, cmg.ErrConflict)
	}
	var e *edge
	if err == nil {
		e, err = g.newEdge(s, p)
	}
	if err != nil {
		g.log.Warn("a publication was refused", "site", s.code, "version", version, "err", err)
		return err
	}
	if err := g.keep(s.file, doc); err != nil {
		g.log.Error("the publication could not be kept: a restart would not know it", "err", err)
	}
	s.edge.Store(e)
	g.tickets.trust(e.publication)
	g.endBlocked(s, e.trust)
	s.inquiry.rouse()
	g.updateReadiness()
	g.log.Info("publication taken", "version", version, "site", e.publication.Site, "routes", len(e.publication.Routes),
		"anchors", len(e.publication.Anchors), "keys", len(e.publication.Keys), "blocks", e.publication.Blocks.Len())
	return nil
}

// keep writes the publication so that a crash leaves the old or the new one.
func (g *Gateway) keep(file string, doc []byte) error {
	return writeWhole(filepath.Join(g.cfg.StateDir, file), doc)
}
