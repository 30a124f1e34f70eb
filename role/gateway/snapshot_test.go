package gateway

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// shown gives the serial number of the certificate that a new client sees.
func (r *running) shown() string {
	r.t.Helper()
	c := must[*tls.Conn](r.t)(tls.Dial("tcp", r.clients, r.settings(nil)))
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// TestReload takes a configuration anew while clients and a connection point
// are connected: what can change does, for whoever comes next, and nobody is
// dropped.
func TestReload(t *testing.T) {
	s := getSite(t)
	conf := s.config(t)
	now := conf // what the file says
	conf.Again = web.Again[Config]{Read: func() (Config, error) { return now, nil }, Every: time.Hour}
	r := run(t, conf)
	in := r.connect("cp-1", echo)
	in.publish(s.publication(t, 1))
	kept := r.dial(&s.device)
	ask := func(w *wire, want int) {
		t.Helper()
		w.send("GET /any/x HTTP/1.1\r\nHost: g\r\n\r\n")
		if resp, _ := w.read("GET"); resp.StatusCode != want {
			t.Errorf("%s, want %d", resp.Status, want)
		}
	}
	ask(kept, 200)
	before := r.shown()

	renewed := must[auth.Issued](t)(s.roots.Issue(auth.CertRequest{Name: "gw.cmg.test", DNS: []string{"gw.cmg.test"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true}))
	for file, b := range map[string][]byte{conf.Certificate: renewed.CertPEM, conf.Key: renewed.KeyPEM} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	now.Listen, now.Drain, now.CallerLimits = "127.0.0.1:1", time.Second, CallerLimits{Rate: 0.001, Burst: 2}
	if err := r.gw.reload.Reload("test"); err != nil {
		t.Fatal(err)
	}
	if after := r.shown(); after == before {
		t.Error("the certificate is still the old one")
	}
	ask(kept, 200)
	ask(kept, 200)
	ask(kept, 429) // the new limit holds on the connection from before
	live := r.gw.live.Load()
	if live.cfg.Drain != time.Second || live.given.Listen != conf.Listen {
		t.Errorf("drain %v, listen %s", live.cfg.Drain, live.given.Listen)
	}
	page := newRecorder()
	r.gw.health.Handler().ServeHTTP(page, must[*http.Request](t)(http.NewRequest("GET", "/status", nil)))
	if text := strings.Join(strings.Fields(page.b.String()), ""); !strings.Contains(text, `"needs_restart":["listen"]`) {
		t.Errorf("the status page does not say what needs a restart: %s", text)
	}
	if n := r.channels("cp-1"); n != 1 {
		t.Errorf("%d channels", n)
	}

	stranger := must[auth.Issued](t)(s.roots.Issue(auth.CertRequest{Site: testSite, Role: cmg.RoleGateway, Name: "gw-2", Server: true}))
	for name, spoil := range map[string]func(c *Config){
		"a key of another":        func(c *Config) { c.Key = c.Identity.Key },
		"a certificate not there": func(c *Config) { c.Certificate += ".gone" },
		"limits that are none":    func(c *Config) { c.CallerLimits.Rate = -1 },
		"another's identity": func(c *Config) {
			c.Identity.Certificate, c.Identity.Key = conf.Certificate+".2", conf.Key+".2"
			if err := stranger.Save(c.Identity.Certificate, c.Identity.Key); err != nil {
				t.Fatal(err)
			}
		},
	} {
		good := now
		spoil(&now)
		if err := r.gw.reload.Reload(name); err == nil || name == "another's identity" && !errors.Is(err, cmg.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
		now = good
		if r.gw.live.Load() != live || !r.gw.reload.Bad() {
			t.Errorf("%s changed something", name)
		}
	}
	if err := r.gw.reload.Reload("mended"); err != nil || r.gw.reload.Bad() {
		t.Error(err)
	}
}
