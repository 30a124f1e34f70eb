package gateway

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// inwardHead is the compact head for a session. One whose inside does not
// know of other protocols is sent the request without its offer: the server
// answers as one that does not take it.
func (x *exchange) inwardHead(s *channel.Session) []byte {
	if len(x.upgrade) == 0 || s.Upgrades() {
		return x.head
	}
	x.upgrade = x.upgrade[:0]
	var r h1.Request
	if r.ParseCompact(x.head) == nil { // it was made here
		r.Upgrade = nil
		x.head = r.AppendCompact(nil)
	}
	return x.head
}

// switchOver makes a client's connection one of the protocol that its server
// chose, until either ends. It never returns to HTTP.
func (x *exchange) switchOver(st *channel.Stream) error {
	c, ok := x.out.(*client)
	if !ok || !h1.Accepts(x.upgrade, x.res.Upgrade) {
		return cmg.Refuse(http.StatusBadGateway, "CMGConnector_Failed", "the connection point sent an answer that is not HTTP", nil)
	}
	x.begun = true
	x.g.counts.upgraded.Add(1)
	defer x.g.counts.upgraded.Add(-1)
	t := &tunnel{c: c, st: st}
	return t.run()
}

// errUpgradeOverHTTP2 tells a client of HTTP/2 that asks for a tunnel.
func errUpgradeOverHTTP2() error {
	return cmg.Refuse(http.StatusNotImplemented, "CMGService_Upgrade_Over_HTTP2",
		"CONNECT is not served over HTTP/2: a WebSocket goes over a connection of HTTP/1.1", nil)
}

// badH2 makes the refusal of a head of HTTP/2 that cannot be taken.
func badH2(method string, bad *h1.Error) error {
	if method == http.MethodConnect {
		return errUpgradeOverHTTP2()
	}
	return badHead(bad)
}

// A tunnel carries bytes between a client and a stream whose server has
// answered 101.
type tunnel struct {
	c    *client
	st   *channel.Stream
	last atomic.Int64 // Unix nanoseconds: when a byte passed

	mu    sync.Mutex
	over  bool
	timer *time.Timer
}

// Buffers of the direction inward: the small one while little comes, so that
// a tunnel that is silent costs little.
var tunnelBufs = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

func (t *tunnel) run() error {
	c := t.c
	c.framing.Close, c.chunked = true, false
	first, _ := t.st.First()
	c.out, _ = h1.AppendResponse(grown(c.out, len(first)+1<<10), &c.x.res, h1.Framing{})
	c.out = append(c.out, first...)
	if err := c.flush(); err != nil {
		return errors.Join(errGone, err)
	}
	if cap(c.out) > 0 {
		c.out = nil
	}
	c.setReadBy(time.Time{})
	t.touch()
	t.watch()
	defer t.unwatch()
	c.g.tunnels.add(t)
	defer c.g.tunnels.remove(t)
	inward := make(chan error, 1)
	go func() { inward <- t.inward() }() // waited for below
	out := t.outward()
	if out != nil { // whoever is left is not to wait for the other
		t.st.Abort(channel.CodeCancelled, "the client has gone")
		c.wire.Conn.(*slotConn).abort()
	}
	return errors.Join(<-inward, out)
}

func (t *tunnel) touch() { t.last.Store(time.Now().UnixNano()) }

// outward carries what the server sends, until it sends no more.
func (t *tunnel) outward() error {
	x := &t.c.x
	for {
		p, err := t.st.Next()
		if err == io.EOF {
			return t.c.tls.CloseWrite()
		}
		if err != nil {
			return err
		}
		if x.g.budget.cuts(x.route.exempt) {
			return errBudget
		}
		t.touch()
		if err := t.c.write(p); err != nil {
			return err
		}
		t.touch()
	}
}

// inward carries what the client sends, until it sends no more.
func (t *tunnel) inward() (err error) {
	defer func() {
		if err != nil {
			t.st.Abort(channel.CodeCancelled, "the client broke off")
		}
	}()
	bufs := &tunnelBufs
	buf := bufs.Get().(*[]byte)
	defer func() { bufs.Put(buf) }()
	for {
		n, err := t.c.rd.Read(*buf)
		if n > 0 {
			t.touch()
			if _, err := t.st.Write((*buf)[:n]); err != nil {
				return err
			}
			t.touch()
		}
		switch {
		case err == io.EOF:
			return t.st.WriteEnd(nil)
		case err != nil:
			return err
		}
		t.c.rd.Release() // of what came before the 101
		if want := bufsFor(n, len(*buf)); want != bufs {
			bufs.Put(buf)
			bufs = want
			buf = bufs.Get().(*[]byte)
		}
	}
}

// bufsFor gives the pool of buffers to read with next, when n bytes came into
// one of size.
func bufsFor(n, size int) *sync.Pool {
	if n == size || n > 4<<10 {
		return &pieces
	}
	return &tunnelBufs
}

// watch ends the tunnel when no byte has passed for the time limit, or when
// what proved the caller is good no longer.
func (t *tunnel) watch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(t.left(), func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.over {
			return
		}
		if d := t.left(); d > 0 {
			t.timer.Reset(d)
			return
		}
		t.c.end()
	})
}

// left is how long the tunnel may last if no further byte passes.
func (t *tunnel) left() time.Duration {
	x := &t.c.x
	d := x.g.limits.tunnel - time.Since(time.Unix(0, t.last.Load()))
	if until := x.caller.NotAfter; !until.IsZero() {
		d = min(d, until.Sub(x.g.now()))
	}
	return d
}

func (t *tunnel) unwatch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.timer.Stop()
}
