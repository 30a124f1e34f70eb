package connectionpoint

import (
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/web"
)

// TestReload changes the gateways of a connection point that runs: a new one
// gets its channel, one that stays keeps the one it has, with what is under
// way, and one that goes loses its own.
func TestReload(t *testing.T) {
	t.Parallel()
	release := make(chan bool)
	s := getSite(t)
	a, b := listen(t), listen(t)
	conf := s.config(t, a.addr, "/pub", server(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		echo(w, r)
	}).URL)
	now := conf
	conf.Again = web.Again[Config]{Read: func() (Config, error) { return now, nil }, Every: time.Hour}
	r := run(t, conf)
	a.up(1)
	channels := func(g *outside) []*channel.Session {
		g.mu.Lock()
		defer g.mu.Unlock()
		return append([]*channel.Session(nil), g.sessions...)
	}
	first := channels(a)[0]
	under := make(chan reply, 1)
	go func() { under <- a.do("POST", "/pub", []byte("x")) }()
	eventually(t, "it is under way", func() bool { return r.p.active.Load() == 1 })

	now.Gateways, now.AnswerTime, now.MapEvery = Plain(a.addr, b.addr), time.Minute, time.Hour
	if err := r.p.reload.Reload("one more"); err != nil {
		t.Fatal(err)
	}
	b.up(1)
	if got := channels(a); len(got) != 1 || got[0] != first {
		t.Error("the channel that was there is another one")
	}
	live := r.p.live.Load()
	if live.cfg.AnswerTime != time.Minute || live.given.MapEvery != conf.MapEvery {
		t.Errorf("%+v", live.cfg)
	}
	now.Gateways = Plain(b.addr)
	if err := r.p.reload.Reload("one less"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gateway that goes is told", func() bool { return !first.Usable() })
	close(release)
	if x := <-under; x.status != 200 {
		t.Errorf("what was under way: %+v", x)
	}
	eventually(t, "its channel ends", func() bool { return a.connected() == 0 })
	if x := b.do("GET", "/pub", nil); x.status != 200 {
		t.Errorf("by the other: %+v", x)
	}

	cert, key := saved(t, s.roots, auth.CertRequest{Site: testSite, Role: cmg.RoleConnectionPoint, Name: "cp-2", Client: true})
	for name, spoil := range map[string]func(c *Config){
		"no gateway":         func(c *Config) { c.Gateways = nil },
		"no address":         func(c *Config) { c.Gateways = []Gateway{{TCP: "nowhere"}} },
		"roots not there":    func(c *Config) { c.Targets = []Target{{URL: "https://x", Roots: filepath.Join(t.TempDir(), "none")}} },
		"another's identity": func(c *Config) { c.Identity.Certificate, c.Identity.Key = cert, key },
	} {
		good, before := now, r.p.live.Load()
		spoil(&now)
		if err := r.p.reload.Reload(name); err == nil || r.p.live.Load() != before || b.connected() != 1 {
			t.Errorf("%s: %v", name, err)
		}
		now = good
	}
}

// TestAway has a gateway ask for another connection: it gets one, and what is
// under way ends where it is.
func TestAway(t *testing.T) {
	t.Parallel()
	release := make(chan bool)
	g, r := start(t, "/pub", server(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Method == "POST" {
			<-release
		}
		echo(w, q)
	}).URL)
	g.mu.Lock()
	first := g.sessions[0]
	g.mu.Unlock()
	under := make(chan reply, 1)
	go func() { under <- g.do("POST", "/pub", []byte("x")) }()
	eventually(t, "it is under way", func() bool { return r.p.active.Load() == 1 })
	first.SendAway("another process takes over")
	g.up(2)
	if !first.Usable() {
		t.Error("the first may not be used any more")
	}
	close(release)
	if x := <-under; x.status != 200 {
		t.Errorf("what was under way: %+v", x)
	}
	eventually(t, "the newer one counts", func() bool { h := r.p.fleet.links()[0].cur.Load(); return h != nil && up(r) == 1 })
}
