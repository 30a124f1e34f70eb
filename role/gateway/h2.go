package gateway

import (
	"crypto/tls"
	"sync"
	"time"

	"github.com/opencmg/cmg/channel"
)

// h2Front serves clients that chose HTTP/2 (RFC 9113) and leads their requests
// onto the common path.
type h2Front struct {
	g *Gateway

	mu      sync.Mutex
	conns   map[*h2Conn]struct{}
	ending  bool
	running sync.WaitGroup // of every goroutine of every connection
}

func newH2Front(g *Gateway) *h2Front { return &h2Front{g: g, conns: map[*h2Conn]struct{}{}} }

// serve takes over a connection after its handshake, in a goroutine of its
// own: one that has made a handshake has a large stack.
func (f *h2Front) serve(t *tls.Conn, state *tls.ConnectionState) {
	c := newH2Conn(f, t, t.NetConn().(*channel.Gather), state)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ending {
		t.Close()
		return
	}
	f.conns[c] = struct{}{}
	f.running.Go(c.begin)
}

func (f *h2Front) forget(c *h2Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

func (f *h2Front) each(do func(*h2Conn)) {
	f.mu.Lock()
	all := make([]*h2Conn, 0, len(f.conns))
	for c := range f.conns {
		all = append(all, c)
	}
	f.mu.Unlock()
	for _, c := range all {
		do(c)
	}
}

// stop lets requests under way finish within the limit.
func (f *h2Front) stop(limit time.Duration) {
	f.mu.Lock()
	f.ending = true
	f.mu.Unlock()
	late := time.AfterFunc(limit, func() { f.each((*h2Conn).abort) })
	defer late.Stop()
	f.each((*h2Conn).drain)
	f.running.Wait()
}
