package gateway

import (
	"sync"

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

// endBlocked breaks off what is under way for callers whom a new publication
// shuts out: a long poll could last for many minutes. Their next request is
// refused with the reason.
func (g *Gateway) endBlocked(t *auth.Trust) {
	n := 0
	blocked := func(x *exchange) bool {
		row := x.who.Load()
		if row == nil || !t.Blocked(row.key, x.evidence.Certificates) {
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
