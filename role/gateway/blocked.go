package gateway

import (
	"sync"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// fronts are those of HTTP/2 that serve.
type fronts struct {
	mu  sync.Mutex
	all []*h2Front
}

func (fs *fronts) add(f *h2Front) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.all = append(fs.all, f)
}

// proven is who was proven, and to which site. The caller is kept whole: a
// token or a tenant can be blocked as well as a device, and in a full table of
// callers many share one row.
type proven struct {
	caller cmg.Caller
	site   *served
}

// endBlocked breaks off what is under way for callers whom a new publication
// of their site shuts out: a long poll could last for many minutes. Their next
// request is refused with the reason.
func (g *Gateway) endBlocked(s *served, t *auth.Trust) {
	n := 0
	blocked := func(x *exchange) bool {
		w := x.who.Load()
		if w == nil || w.site != s || !t.Blocked(&w.caller, x.evidence.Certificates) {
			return false
		}
		n++
		return true
	}
	g.clients.each(func(c *client) {
		if !c.idle.Load() && blocked(&c.x) {
			c.end()
		}
	})
	g.fronts.mu.Lock()
	all := g.fronts.all
	g.fronts.mu.Unlock()
	for _, f := range all {
		f.each(func(c *h2Conn) {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, st := range c.streams {
				if blocked(&st.x) {
					st.x.abandon()
				}
			}
		})
	}
	if n > 0 {
		g.log.Info("requests of blocked callers were broken off", "requests", n)
	}
}
