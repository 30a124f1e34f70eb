package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
)

// clients keeps track of client connections, so that a drain can end them.
type clients struct {
	slots chan struct{} // one for each connection that may be open

	mu   sync.Mutex
	open map[*client]struct{}
	late bool // the drain's time is over: end what comes
}

func (cs *clients) add(c *client) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = map[*client]struct{}{}
	}
	if cs.late {
		return false
	}
	cs.open[c] = struct{}{}
	return true
}

func (cs *clients) remove(c *client) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.open, c)
}

func (cs *clients) each(f func(*client)) (n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		f(c)
	}
	return len(cs.open)
}

// drain ends idle connections at once, and the others when their request is
// answered or the time is over.
func (cs *clients) drain(limit time.Duration) {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		if cs.each((*client).endIfIdle) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	cs.mu.Lock()
	cs.late = true
	cs.mu.Unlock()
	cs.each((*client).end)
}

// serveClients accepts clients until ln is closed, and returns when all of
// them are gone.
func (g *Gateway) serveClients(ctx context.Context, ln net.Listener) error {
	// Requests under way outlive ctx: a drain lets them finish.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	h2 := newH2Front(g)
	shakes := handshakes{gate: make(chan struct{}, 4*runtime.GOMAXPROCS(0))}
	var conns sync.WaitGroup
	defer func() {
		ln.Close()
		g.accepting.Done()
		if g.draining.Load() {
			<-g.settled
		}
		shakes.end()
		h2.stop(g.live.Load().cfg.Drain)
		conns.Wait()
		stop()
	}()
	for {
		c, err := ln.Accept()
		if err != nil {
			if g.draining.Load() || ctx.Err() != nil {
				return nil
			}
			if !temporary(ctx, err) {
				return err
			}
			continue
		}
		select {
		case g.clients.slots <- struct{}{}:
		default:
			g.counts.shed.Add(1)
			c.Close()
			continue
		}
		if g.memory.level() >= memoryShort {
			g.counts.shed.Add(1)
			<-g.clients.slots
			c.Close()
			continue
		}
		sc := &slotConn{Conn: channel.Quick(c), slots: g.clients.slots}
		conns.Go(func() {
			if t := g.handshake(sc, &shakes); t != nil {
				g.greet(inner, t, h2, &conns)
			}
		})
	}
}

// temporary waits a moment after an error of Accept that may pass, such as
// no descriptors being left, and says whether to go on.
func temporary(ctx context.Context, err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	select {
	case <-ctx.Done():
	case <-time.After(50 * time.Millisecond):
	}
	return true
}

// greet hands the connection to the front for its protocol. HTTP/1.1 goes on
// in a fresh goroutine: one that has made a handshake has a large stack, which
// a client that waits would hold for ever.
func (g *Gateway) greet(ctx context.Context, t *tls.Conn, h2 *h2Front, conns *sync.WaitGroup) {
	state := t.ConnectionState()
	if state.NegotiatedProtocol == "h2" {
		h2.serve(t, &state)
		return
	}
	if auth.IsChannel(&state) {
		g.takeChannel(t)
		return
	}
	conns.Go(func() { newClient(g, t, t.NetConn().(*channel.Gather), &state, conns).serve(ctx) })
}
