package gateway

import (
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/opencmg/cmg/channel"
)

const (
	handshakeTime = 10 * time.Second

	// handshakeWait is how long a connection may wait for its handshake to
	// begin. Whoever has waited longer is closed: the work goes to those that a
	// client still waits for.
	handshakeWait = 5 * time.Second
)

// handshakes are those under way at one listener.
type handshakes struct {
	gate chan struct{} // one for each that may compute at a time

	mu   sync.Mutex
	open map[*slotConn]struct{}
	over bool
}

func (hs *handshakes) begin(c *slotConn) bool {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if hs.open == nil {
		hs.open = map[*slotConn]struct{}{}
	}
	if !hs.over {
		hs.open[c] = struct{}{}
	}
	return !hs.over
}

func (hs *handshakes) done(c *slotConn) {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	delete(hs.open, c)
}

// end breaks them off when a drain has settled: who has not asked for anything
// by then is not waited for.
func (hs *handshakes) end() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	hs.over = true
	for c := range hs.open {
		c.Close()
	}
}

// enter takes a place among those that compute. false: there was none in time.
func (hs *handshakes) enter() bool {
	select {
	case hs.gate <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(handshakeWait)
	defer t.Stop()
	select {
	case hs.gate <- struct{}{}:
		return true
	case <-t.C:
		return false
	}
}

// handshake makes the TLS handshake. nil: it failed, or is not to be.
func (g *Gateway) handshake(c *slotConn, hs *handshakes) *tls.Conn {
	if !hs.begin(c) {
		c.Close()
		return nil
	}
	defer hs.done(c)
	wire := channel.NewGather(c, 0)
	t := tls.Server(wire, g.live.Load().front)
	c.SetDeadline(time.Now().Add(handshakeTime))
	wire.Delay()
	if !hs.enter() {
		wire.Close()
		g.counts.handshakesFull.Add(1)
		return nil
	}
	c.gate = hs.gate
	err := t.Handshake()
	c.gate = nil
	<-hs.gate
	if err == nil && t.ConnectionState().Version < tls.VersionTLS13 {
		err = wire.Settle() // what is left to write is what the client waits for
	}
	if err != nil {
		wire.Close()
		g.counts.handshakeErrors.Add(1)
		g.log.Debug("handshake", "from", c.RemoteAddr().String(), "err", err)
		return nil
	}
	wire.DelayRest() // tickets
	c.SetDeadline(time.Time{})
	return t
}

// A slotConn gives its slot back when it is closed, whoever closes it, and
// so lies beneath TLS and all that holds the connection. During the
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
