package connectionpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/opencmg/cmg/h1"
)

const (
	h2Dials   = 4                // connections to one target made at once
	h2Without = 10 * time.Minute // how long a server that speaks no HTTP/2 is not asked again
)

// An h2Pool holds the HTTP/2 connections to one target, on which requests
// wait that may wait long: many on one connection. All else goes over
// HTTP/1.1, which costs less a request.
type h2Pool struct {
	t     *target
	tls   *tls.Config
	ctx   context.Context // ends with the pool
	end   context.CancelFunc
	tasks sync.WaitGroup // connections and dials

	mu      sync.Mutex
	conns   []*h2Conn
	dials   []*h2Dial
	without time.Time // until then the server is taken to speak no HTTP/2
	closed  bool
}

// An h2Dial is a connection that is being made; err is valid once done is
// closed.
type h2Dial struct {
	done chan struct{}
	err  error
}

// errNoH2 says that the request has to go over HTTP/1.1.
var errNoH2 = errors.New("the server speaks no HTTP/2")

func newH2Pool(t *target) *h2Pool {
	p := &h2Pool{t: t, tls: t.tls.Clone()}
	p.tls.NextProtos = []string{"h2", "http/1.1"}
	p.ctx, p.end = context.WithCancel(context.Background())
	return p
}

// send puts the request on a connection with room for it, and makes one where
// there is none. errNoH2: it cannot be sent so. ctx ends the wait for a
// connection.
func (p *h2Pool) send(ctx context.Context, w *wait, q *h1.Request, path []byte) error {
	if !fitsH2(w) {
		return errNoH2
	}
	for {
		d, err := p.offer(w, q, path)
		if err != nil || d == nil {
			return err
		}
		select {
		case <-d.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if d.err != nil {
			return d.err
		}
	}
}

// offer tries every connection. It gives the dial to wait for if all are
// full.
func (p *h2Pool) offer(w *wait, q *h1.Request, path []byte) (*h2Dial, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, errH2Closed
	case time.Now().Before(p.without):
		return nil, errNoH2
	}
	never := false
	for i, c := range p.conns {
		sent, no := c.open(w, q, path)
		never = never || no
		if sent {
			if i > 0 && i == len(p.conns)-1 { // those before it are full: it is the first to try
				p.conns[0], p.conns[i] = c, p.conns[0]
			}
			return nil, nil
		}
	}
	if never { // a further connection would not take it either
		return nil, errNoH2
	}
	if len(p.dials) >= h2Dials {
		return p.dials[0], nil
	}
	d := &h2Dial{done: make(chan struct{})}
	p.dials = append(p.dials, d)
	p.tasks.Go(func() { p.dial(d) })
	return d, nil
}

// dial makes a connection and serves it until it ends.
func (p *h2Pool) dial(d *h2Dial) {
	c, err := p.connect()
	p.mu.Lock()
	p.dials = slices.DeleteFunc(p.dials, func(o *h2Dial) bool { return o == d })
	switch {
	case errors.Is(err, errNoH2):
		p.without = time.Now().Add(h2Without)
	case err == nil && p.closed:
		err = errH2Closed
		c.raw.Close()
	case err == nil:
		p.conns = append(p.conns, c)
	}
	d.err = err
	p.mu.Unlock()
	close(d.done)
	if err == nil {
		c.run()
	}
}

func (p *h2Pool) connect() (*h2Conn, error) {
	ctx, cancel := context.WithTimeout(p.ctx, upstreamDial)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", p.t.address)
	if err != nil {
		p.reached(err)
		return nil, err
	}
	conn := tls.Client(raw, p.tls)
	err = conn.HandshakeContext(ctx)
	if p.reached(err); err != nil {
		raw.Close()
		return nil, fmt.Errorf("tls to %s: %w", p.t.address, err)
	}
	if conn.ConnectionState().NegotiatedProtocol != "h2" {
		p.t.put(newConn(conn, raw)) // it serves as one of HTTP/1.1
		return nil, errNoH2
	}
	c, err := newH2Conn(p, conn, raw)
	if err != nil {
		raw.Close()
		return nil, fmt.Errorf("http/2 with %s: %w", p.t.address, err)
	}
	return c, nil
}

// reached is target.reached, but for a pool that is being closed.
func (p *h2Pool) reached(err error) {
	if p.ctx.Err() == nil {
		p.t.reached(err)
	}
}

// speaks says that the server may speak HTTP/2.
func (p *h2Pool) speaks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().After(p.without)
}

// forget takes out a connection that has ended.
func (p *h2Pool) forget(c *h2Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = slices.DeleteFunc(p.conns, func(o *h2Conn) bool { return o == c })
}

// avoid has requests go over HTTP/1.1 for a while: the server asked for it.
func (p *h2Pool) avoid() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.without = time.Now().Add(h2Without)
}

// tend looks after the connections: see h2Conn.tend.
func (p *h2Pool) tend(now time.Time, answerTime time.Duration) {
	p.mu.Lock()
	conns := slices.Clone(p.conns)
	p.mu.Unlock()
	for _, c := range conns {
		c.tend(now, answerTime)
	}
}

// retire takes no more requests; connections end with their last one.
func (p *h2Pool) retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.conns {
		c.mu.Lock()
		c.away = true
		c.mu.Unlock()
	}
}

// close ends all connections and returns when nothing of them is left.
func (p *h2Pool) close() {
	p.end()
	p.mu.Lock()
	p.closed = true
	conns := slices.Clone(p.conns)
	p.mu.Unlock()
	for _, c := range conns {
		c.close(errH2Closed)
	}
	p.tasks.Wait()
}

// http2 says how many HTTP/2 connections there are to all targets.
func (u *upstreams) http2() (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.all {
		if t.h2 != nil {
			t.h2.mu.Lock()
			n += len(t.h2.conns)
			t.h2.mu.Unlock()
		}
	}
	return n
}
