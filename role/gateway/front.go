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

const handshakeTime = 10 * time.Second

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
	var wg sync.WaitGroup
	h2 := newH2Front(g)
	wg.Go(func() { h2.run() })
	handshakes := make(chan struct{}, 4*runtime.GOMAXPROCS(0))
	var conns sync.WaitGroup
	defer func() {
		h2.stop(g.cfg.Drain)
		conns.Wait()
		stop()
		wg.Wait()
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
			if t := g.handshake(ctx, sc, handshakes); t != nil {
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

// handshake makes the TLS handshake. ctx ends with the first word of a
// drain: who has not asked for anything yet is not waited for. nil: it
// failed.
func (g *Gateway) handshake(ctx context.Context, c *slotConn, gate chan struct{}) *tls.Conn {
	t := tls.Server(channel.NewGather(c, 0), g.front)
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if !g.enterHandshake(ctx, gate) {
		c.Close()
		return nil
	}
	c.gate = gate
	err := t.HandshakeContext(ctx)
	c.gate = nil
	<-gate
	if err != nil {
		c.Close()
		g.counts.handshakeErrors.Add(1)
		g.log.Debug("handshake", "from", c.RemoteAddr().String(), "err", err)
		return nil
	}
	return t
}

// greet hands the connection to the front for its protocol. HTTP/1.1 goes on
// in a fresh goroutine: one that has made a handshake has a large stack, which
// a client that waits would hold for ever.
func (g *Gateway) greet(ctx context.Context, t *tls.Conn, h2 *h2Front, conns *sync.WaitGroup) {
	state := t.ConnectionState()
	if state.NegotiatedProtocol == "h2" {
		h2.serve(t)
		return
	}
	if auth.IsChannel(&state) {
		g.takeChannel(t)
		return
	}
	conns.Go(func() { newClient(g, t, t.NetConn().(*channel.Gather), &state).serve(ctx) })
}

// A slotConn gives its slot back when it is closed, whoever closes it: it
// lies beneath TLS, since net/http wants to see a *tls.Conn. During the
// handshake it also holds a place at the gate, but not while it waits for the
// client: few compute at a time, and those that send nothing hold up nobody.
type slotConn struct {
	net.Conn
	slots chan struct{}
	gate  chan struct{} // nil: there is none
	once  sync.Once
}

func (c *slotConn) Read(p []byte) (int, error) {
	gate := c.gate
	if gate == nil {
		return c.Conn.Read(p)
	}
	<-gate
	defer func() { gate <- struct{}{} }()
	return c.Conn.Read(p)
}

// abort closes the connection with a reset: after half an answer that is to
// end with its connection, the client must not take this for the end.
func (c *slotConn) abort() {
	if t, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		t.SetLinger(0)
	}
	c.Close()
}

func (c *slotConn) Close() error {
	c.giveBack()
	return c.Conn.Close()
}

// giveBack frees the slot of a connection that turned out to be no client's.
func (c *slotConn) giveBack() { c.once.Do(func() { <-c.slots }) }
