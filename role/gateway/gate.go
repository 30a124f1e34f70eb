package gateway

import (
	"context"
	"errors"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/gate"
)

// gateOf gives a route's own gate. It stays from one publication to the next
// as long as its limit does, for what is inside leaves by it.
func gateOf(s *served, r *cmg.Route) *gate.Gate {
	if r.MaxConcurrent == 0 {
		return nil
	}
	if e := s.edge.Load(); e != nil {
		if old := e.routes[strings.ToLower(r.Prefix)]; old != nil && old.gate != nil && old.MaxConcurrent == r.MaxConcurrent {
			return old.gate
		}
	}
	return gate.New(gate.Config{Limit: r.MaxConcurrent})
}

// admit sends a request inward once there is room for it: among its caller's,
// at its route's gate, then at that of all.
func (x *exchange) admit(ctx context.Context) error {
	if err := x.enterCaller(); err != nil {
		return err
	}
	if err := x.enter(ctx, x.route.gate); err != nil {
		x.leaveCaller()
		return err
	}
	if err := x.enter(ctx, x.g.gate); err != nil {
		x.route.gate.Leave()
		x.leaveCaller()
		return err
	}
	return x.leave(x.forward(ctx))
}

// leave makes room again, unless the request is parked: then it keeps its
// places until it is answered.
func (x *exchange) leave(err error) error {
	if err != errParked {
		x.g.gate.Leave()
		x.route.gate.Leave()
		x.leaveCaller()
	}
	return err
}

func (x *exchange) enter(ctx context.Context, g *gate.Gate) error {
	switch err := g.Enter(ctx, x.route.Class); {
	case err == nil:
		return nil
	case errors.Is(err, gate.ErrFull), errors.Is(err, gate.ErrLate):
		return cmg.Refuse(503, "CMGService_Overloaded", "too many requests are under way: "+err.Error(), nil)
	default:
		return errors.Join(errGone, err)
	}
}

// gateRows tells how the gates stand: of all requests, and of each route that
// has one.
func (g *Gateway) gateRows() any {
	routes := map[string]gate.Stats{}
	for _, s := range g.sites {
		if e := s.edge.Load(); e != nil {
			for _, r := range e.routes {
				if r.gate != nil {
					routes[s.code+r.Prefix] = r.gate.Stats()
				}
			}
		}
	}
	return map[string]any{"all": g.gate.Stats(), "routes": routes, "handshakes_full": g.counts.handshakesFull.Load()}
}
