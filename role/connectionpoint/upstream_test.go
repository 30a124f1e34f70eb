package connectionpoint

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
)

func newTLSServer(t testing.TB, conf *tls.Config, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.TLS = conf
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// TestKeepAlive sends many requests, one after the other, to two servers: few
// connections are enough. More than one to each, as the next request can be
// there before the last one's connection is put back.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	var opened atomic.Int64
	count := func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	plain, secure := httptest.NewUnstartedServer(http.HandlerFunc(echo)), httptest.NewUnstartedServer(http.HandlerFunc(echo))
	plain.Config.ConnState, secure.Config.ConnState = count, count
	secure.TLS = getSite(t).inner.Server()
	plain.Start()
	secure.StartTLS()
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	g, r := start(t, "/plain", plain.URL, "/secure", secure.URL)
	for i := range 60 {
		method, body := "GET", 0
		if i%3 == 0 {
			method, body = "POST", 40<<10
		}
		for _, path := range []string{"/plain", "/secure"} {
			if a := g.do(method, path, noise(body)); a.status != 200 || len(a.body) != body {
				t.Fatalf("%s %s: %+v", method, path, a.err)
			}
		}
	}
	if n := opened.Load(); n > 8 {
		t.Errorf("%d connections were opened", n)
	}
	for _, u := range r.p.live.Load().pool.all { // and what is idle for long is closed, also if nobody asks
		u.mu.Lock()
		if len(u.idle) == 0 {
			t.Errorf("%d idle connections to %s", len(u.idle), u.address)
		}
		u.drop(time.Now().Add(keepIdle + time.Second))
		if len(u.idle) != 0 {
			t.Errorf("one to %s stays for ever", u.address)
		}
		u.mu.Unlock()
	}
}

// TestStale has a server close connections that were kept. What is safe is
// sent again on a new one; what is not is sent only on one that is sound.
func TestStale(t *testing.T) {
	t.Parallel()
	var requests, connections atomic.Int64
	closed := make(chan bool, 8)
	address := byHand(t, func(w *wire) {
		defer func() { closed <- true }()
		connections.Add(1)
		for served := 0; ; served++ {
			_, how, err := w.next()
			if err != nil {
				return
			}
			requests.Add(1)
			if served > 0 { // reads a second one, and says nothing
				return
			}
			w.say(empty)
			if how == "closes" { // behind its answer, unannounced
				return
			}
		}
	})
	g, r := start(t, "/pub", "http://"+address)
	n := func() [2]int64 { return [2]int64{requests.Load(), connections.Load()} }
	send := func(method, body string) reply { return g.do(method, "/pub", []byte(body)) }

	if a := send("PUT", "stays"); a.status != 200 || n() != [2]int64{1, 1} {
		t.Fatalf("%+v, %v", a, n())
	}
	kept := func() { // the answer is there a moment before its connection is
		for {
			for _, u := range r.p.live.Load().pool.all {
				u.mu.Lock()
				n := len(u.idle)
				u.mu.Unlock()
				if n > 0 {
					return
				}
			}
			time.Sleep(time.Millisecond)
		}
	}

	kept()
	if a := send("PROPFIND", "stays"); a.status != 200 || n() != [2]int64{3, 2} { // the server had seen it: no harm
		t.Errorf("a safe one: %+v, %v", a, n())
	}
	<-closed
	kept()
	a := send("POST", "stays") // the server has seen it: it may have acted
	e := failure(t, "an unsafe one", a, channel.CodeFailed)
	if e.Untouched || !e.Started || n() != [2]int64{4, 2} {
		t.Errorf("%+v, %v", e, n())
	}
	<-closed
	if a := send("POST", "closes"); a.status != 200 || n() != [2]int64{5, 3} {
		t.Errorf("on a new one: %+v, %v", a, n())
	}
	<-closed
	if canLook { // a connection that was closed only now is not trusted with a POST
		if a := send("POST", "closes"); a.status != 200 || n() != [2]int64{6, 4} {
			t.Errorf("behind one that was closed: %+v, %v", a, n())
		}
		<-closed
	}
	if a := send("GET", ""); a.status != 200 {
		t.Errorf("a safe one behind one that was closed: %+v", a)
	}
}

// TestTargets meets a server of another authority that wants a certificate
// of that authority, beside one of the site that knows who comes.
func TestTargets(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	who := func(w http.ResponseWriter, r *http.Request) {
		var names []string
		for _, c := range r.TLS.PeerCertificates {
			names = append(names, c.Subject.CommonName)
		}
		w.Header().Set("X-Who", strings.Join(names, ","))
		if name, ok := auth.PeerRole(r.TLS); ok {
			w.Header().Set("X-Role", name.String())
		}
	}
	foreign := settings(t, s.strangers, auth.CertRequest{Name: "iis"})
	foreign.ClientAuth, foreign.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	foreign.ClientCAs.AddCert(s.strangers.Certificate())
	other, own := newTLSServer(t, foreign, who), newTLSServer(t, s.inner.Server(), who)
	cert, key := saved(t, s.strangers, auth.CertRequest{Name: "connector at iis", Client: true})
	g := listen(t)
	conf := s.config(t, g.addr, "/other", other.URL+"/base", "/own", own.URL)
	conf.Targets = []Target{{URL: other.URL, Roots: written(t, pemOf(s.strangers)), Certificate: cert, Key: key}}
	run(t, conf)
	g.up(1)
	if a := g.do("POST", "/other/x", []byte("x")); a.status != 200 || a.fields.Get("X-Who") != "connector at iis" {
		t.Errorf("foreign server: %+v", a)
	}
	if a := g.do("POST", "/own/x", []byte("x")); a.status != 200 || a.fields.Get("X-Role") != "cmg://LAB/connection-point/cp-1" {
		t.Errorf("the site's server: %+v", a)
	}

	g2 := listen(t) // without its certificate the foreign server says no, after the handshake
	conf = s.config(t, g2.addr, "/other", other.URL)
	conf.Targets = []Target{{URL: other.URL, Roots: written(t, pemOf(s.strangers))}}
	run(t, conf)
	g2.up(1)
	if a := g2.do("GET", "/other", nil); a.err == nil {
		t.Errorf("without a certificate: %+v", a)
	}
}

// TestNew refuses what cannot work, and says why.
func TestNew(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	good := s.config(t, "127.0.0.1:1")
	for name, c := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"no gateways":  {func(c *Config) { c.Gateways = nil }, "gateways"},
		"no port":      {func(c *Config) { c.Gateways = Plain("gw") }, "host:port"},
		"no map":       {func(c *Config) { c.Map = "" }, "map"},
		"no state_dir": {func(c *Config) { c.StateDir = "" }, "state_dir"},
		"no identity":  {func(c *Config) { c.Identity.Roots = "" }, "roots"},
		"a gateway's": {func(c *Config) {
			c.Identity.Certificate, c.Identity.Key = saved(t, s.roots, auth.CertRequest{Site: testSite, Role: cmg.RoleGateway, Name: "g", Server: true})
		}, "for the role"},
		"target":        {func(c *Config) { c.Targets = []Target{{URL: "ftp://x"}} }, "http(s)"},
		"plain target":  {func(c *Config) { c.Targets = []Target{{URL: "http://x"}} }, "not https"},
		"target's file": {func(c *Config) { c.Targets = []Target{{URL: "https://x", Roots: "/nowhere"}} }, "/nowhere"},
	} {
		conf := good
		c.change(&conf)
		if _, err := New(conf); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
