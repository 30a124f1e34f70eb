package gateway

import (
	"errors"
	"net"
	"time"

	"github.com/opencmg/cmg/channel"
)

// backlog is how long a listener goes on to take connections that wait in its
// queue: to close it would reset them.
const backlog = 100 * time.Millisecond

// leave ends the serving of clients. Where another process has taken the
// listeners over, connection points are asked to go to it as well.
//
// A connection that waits for its next request cannot be told that it ends
// but by an answer: one that is closed while a request is on its way loses
// it. So each may ask once more, for limits.settle.
func (g *Gateway) leave(d *doors) {
	g.log.Info("gateway is draining", "requests", g.counts.inFlight.Load(), "replaced", g.cfg.Sockets.Replaced())
	g.health.Set("draining", errors.New("told to stop"))
	c := g.live.Load().cfg
	if c.Predrain > 0 && !g.cfg.Sockets.Replaced() {
		time.Sleep(c.Predrain)
	}
	g.draining.Store(true)
	if g.cfg.Sockets.Replaced() {
		d.closeChannel()
		g.budget.retire()
		for _, site := range g.sites {
			site.points.eachSession(func(s *channel.Session) { s.SendAway("another process takes over") })
		}
	}
	d.finish(g.cfg.Sockets.Replaced())
	g.accepting.Wait()
	g.settle()
	close(g.settled)
	g.clients.drain(c.Drain)
}

// settle waits until no client is connected, for a while.
func (g *Gateway) settle() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(g.limits.settle); len(g.clients.slots) > 0 && time.Now().Before(end); {
		<-tick.C
	}
}

// finish ends the accept loops. What waits in the queue they take before,
// unless a successor has the queue.
func (d *doors) finish(successor bool) {
	end := time.Now()
	if !successor {
		end = end.Add(backlog)
	}
	for _, ln := range d.front {
		if u, ok := ln.(interface{ Unwrap() net.Listener }); ok {
			ln = u.Unwrap()
		}
		if t, ok := ln.(*net.TCPListener); ok {
			t.SetDeadline(end)
			continue
		}
		ln.Close()
	}
}

// eachSession calls f for every channel.
func (p *points) eachSession(f func(*channel.Session)) {
	for _, pt := range *p.list.Load() {
		for _, s := range *pt.sessions.Load() {
			f(s)
		}
	}
}
