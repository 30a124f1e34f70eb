package gateway

import (
	"context"
	"errors"
	"sync"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// tunnels are the connections that went on with another protocol: no request
// comes on them any more at which their callers would be proven again.
type tunnels struct {
	mu   sync.Mutex
	open map[*tunnel]struct{}
}

func (ts *tunnels) add(t *tunnel) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.open == nil {
		ts.open = map[*tunnel]struct{}{}
	}
	ts.open[t] = struct{}{}
}

func (ts *tunnels) remove(t *tunnel) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.open, t)
}

func (ts *tunnels) all() []*tunnel {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	all := make([]*tunnel, 0, len(ts.open))
	for t := range ts.open {
		all = append(all, t)
	}
	return all
}

// recheck ends the tunnels whose callers a site would refuse by what is known
// now.
func (g *Gateway) recheck(ctx context.Context, s *served) {
	e := s.edge.Load()
	if e == nil {
		return
	}
	for _, t := range g.tunnels.all() {
		x := &t.c.x
		if x.site != s {
			continue
		}
		err := g.mayStay(ctx, e, x)
		var refused *cmg.Refusal
		if !errors.As(err, &refused) || ctx.Err() != nil {
			continue
		}
		g.log.Info("a connection that went on with another protocol is ended: its caller is let in no more", "request", x.id, "code", refused.Code, "err", err)
		t.c.end()
	}
}

// mayStay judges who has a tunnel as a request at its path would be.
func (g *Gateway) mayStay(ctx context.Context, e *edge, x *exchange) error {
	route := e.match(x.path)
	if route == nil {
		return cmg.Refuse(403, "CMGService_Not_Published", "nothing is published at this path", nil)
	}
	_, err := e.trust.Verify(x.evidence, route.Proofs, g.now())
	var unchecked *auth.Unchecked
	if errors.As(err, &unchecked) {
		x.site.inquiry.certificates(ctx, unchecked.Chain)
		_, err = e.trust.Verify(x.evidence, route.Proofs, g.now())
	}
	return err
}
