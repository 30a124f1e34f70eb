package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/content"
)

// secondSite is a site with authorities, keys and a signer of its own.
var secondSite = sync.OnceValues(func() (*site, error) { return newSite("TWO") })

// shared gives the configuration of a gateway of both sites.
func shared(t testing.TB) (Config, *site) {
	two := must[*site](t)(secondSite())
	c, dir := getSite(t).config(t), t.TempDir()
	own := must[auth.Issued](t)(two.roots.Issue(auth.CertRequest{Site: two.code, Role: cmg.RoleGateway, Name: "gw-1", Server: true}))
	f := auth.IdentityFiles{Certificate: filepath.Join(dir, "two.crt"), Key: filepath.Join(dir, "two.key"), Roots: filepath.Join(dir, "roots.crt")}
	if err := errors.Join(own.Save(f.Certificate, f.Key), os.WriteFile(f.Roots, pemOf(two.roots), 0o600)); err != nil {
		t.Fatal(err)
	}
	c.Sites = []Site{{IdentityFiles: f}}
	return c, two
}

// of lets s's connection points be connected.
func (r *running) of(s *site) *running {
	other := *r
	other.site = s
	return &other
}

// TestSites sends requests of the clients of two sites, which publish the
// same paths, over both protocols: each goes to its own site's connection
// point, and tells it who called under that site's name for the gateway.
func TestSites(t *testing.T) {
	t.Parallel()
	c, two := shared(t)
	r := run(t, c)
	told := map[string]*auth.CallerReader{}
	for i, s := range []*site{r.site, two} {
		own := r.gw.live.Load().parties[i].identity.Certificate()
		told[s.code] = auth.NewCallerReader(func(_ context.Context, thumbprint string) (*x509.Certificate, error) {
			if thumbprint != auth.Thumbprint(own) {
				return nil, cmg.ErrNotFound
			}
			return own, nil
		})
	}
	answer := func(s *site) func(q *request) {
		return func(q *request) {
			caller, err := told[s.code].Read(t.Context(), q.field("CMG-Caller"), time.Now())
			if err != nil || caller.Device != deviceID {
				t.Errorf("%s is told %+v, %v", s.code, caller, err)
			}
			echo(q)
		}
	}
	one := r.connect("cp-1", answer(r.site))
	one.publish(r.site.publication(t, 7))
	second := r.of(two).connect("cp-2", answer(two))
	if problem := second.publish(two.publication(t, 3, cmg.Route{Prefix: "/two", Methods: []string{"GET"}, Proofs: []cmg.Proof{cmg.ProofToken, cmg.ProofCertificate}, Name: "two"})); problem != "" {
		t.Fatal(problem)
	}
	for _, h2 := range []bool{false, true} {
		for _, q := range []struct {
			name, path, token string
			cert              *tls.Certificate
			want              string // connection point, or refusal
		}{
			{"certificate of one", "/any/x", "", &r.site.device, "cp-1"},
			{"certificate of two", "/any/x", "", &two.device, "cp-2"},
			{"token of one", "/any/x", r.site.session(t), nil, "cp-1"},
			{"token of two", "/any/x", two.session(t), nil, "cp-2"},
			{"two's own path", "/two/x", two.session(t), nil, "cp-2"},
			{"two's path, one's token", "/two/x", r.site.session(t), nil, "CMGService_Invalid_Token_Unknown_Key"},
			{"two's path, one's certificate", "/two/x", "", &r.site.device, "CMGService_Certificate_Unknown_Issuer"},
			{"nobody's path", "/none/x", two.session(t), nil, "CMGService_Not_Published"},
			{"nobody", "/any/x", "", nil, "CMGService_Authentication_Required CMGService_Client_Certificate_Required"},
			{"lapsed token of two", "/any/x", two.token(t, auth.TokenSession, -2*time.Hour, -time.Hour), nil, "CMGService_Invalid_Token_Expired"},
			{"lapsed certificate of two", "/any/x", "", &two.lapsed, "CMGService_Certificate_Expired"},
		} {
			client, req := r.client(q.cert, h2), r.request("GET", q.path, nil)
			if q.token != "" {
				req.Header.Set("Authorization", "Bearer "+q.token)
			}
			resp, _ := do(t, client, req)
			got := resp.Header.Get("X-By") + resp.Header.Get("CMG-Refusal")
			if got == "" || !strings.Contains(q.want, got) {
				t.Errorf("h2=%v, %s: %s %q, want %s", h2, q.name, resp.Status, got, q.want)
			}
		}
	}
	// On one connection the caller changes with its token.
	w := r.dial(nil)
	for range 3 {
		for by, s := range map[string]*site{"cp-1": r.site, "cp-2": two} {
			w.send("GET /any/x HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer " + s.session(t) + "\r\n\r\n")
			if resp, _ := w.read("GET"); resp.Header.Get("X-By") != by {
				t.Errorf("%s %s, want %s", resp.Status, resp.Header.Get("X-By"), by)
			}
		}
	}
	// A site whose connection points are gone does not borrow another's.
	second.kill()
	eventually(t, "two's channel is gone", func() bool { return len(*r.gw.sites[1].points.list.Load()) == 0 })
	resp, _ := do(t, r.client(&two.device, false), r.request("GET", "/any/x", nil))
	if resp.Header.Get("CMG-Refusal") != "CMGService_NoConnectionPoint" {
		t.Errorf("without its connection point: %s", resp.Status)
	}
	if resp, _ := do(t, r.client(&r.site.device, false), r.request("GET", "/any/x", nil)); resp.StatusCode != 200 {
		t.Errorf("the other site meanwhile: %s", resp.Status)
	}
}

// TestSitesApart: what one site signs is nothing to the other, a connection
// point of a third is refused, and a restart knows both.
func TestSitesApart(t *testing.T) {
	t.Parallel()
	c, two := shared(t)
	r := run(t, c)
	one, second := r.connect("cp-1", echo), r.of(two).connect("cp-1", echo)
	if problem := second.publish(r.site.publication(t, 1)); problem == "" {
		t.Error("site TWO brought what LAB has signed")
	}
	if problem := one.publish(two.publication(t, 1)); problem == "" {
		t.Error("site LAB brought what TWO has signed")
	}
	one.publish(r.site.publication(t, 5))
	second.publish(two.publication(t, 9))
	if a, b := r.gw.sites[0].version(), r.gw.sites[1].version(); a != 5 || b != 9 {
		t.Errorf("versions %d and %d", a, b)
	}
	if list := *r.gw.points.list.Load(); len(list) != 1 || list[0].slot == (*r.gw.sites[1].points.list.Load())[0].slot {
		t.Error("two points of one name are taken for one")
	}
	third := must[*site](t)(newSite("TRE"))
	raw := must[net.Conn](t)(net.Dial("tcp", r.points))
	defer raw.Close()
	if s, err := channel.Inside(tls.Client(channel.NewGather(raw, 0), third.point(t, "cp-3").ChannelClient()), channel.Config{Name: "cp-3"}); err == nil {
		s.Run(t.Context())
		t.Error("a connection point of another site came in")
	}
	// By the clients' port the second site's certificate is shown as well.
	if _, err := r.over(must[net.Conn](t)(net.Dial("tcp", r.clients)), two.point(t, "cp-4")); err != nil {
		t.Errorf("on the clients' port: %v", err)
	}
	r.end()
	again := run(t, c)
	if a, b := again.gw.sites[0].version(), again.gw.sites[1].version(); a != 5 || b != 9 {
		t.Errorf("after a restart versions %d and %d", a, b)
	}
	c.Sites = append(c.Sites, Site{IdentityFiles: c.Identity})
	if _, err := New(c); !errors.Is(err, cmg.ErrInvalid) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a site that stands twice: %v", err)
	}
}

// TestSitesAreTold reads the status page of a shared gateway.
func TestSitesAreTold(t *testing.T) {
	t.Parallel()
	c, two := shared(t)
	r := run(t, c)
	r.connect("cp-1", echo).publish(r.site.publication(t, 1))
	r.of(two).connect("cp-1", echo).publish(two.publication(t, 2))
	do(t, r.client(&two.device, false), r.request("GET", "/any/x", nil))
	for path, wants := range map[string][]string{
		"/status":  {`"sites"`, `"TWO"`, `"waiting"`, `"gate"`},
		"/metrics": {`cmg_gateway_publication_version{site="TWO"} 2`, `cmg_gateway_channels{connection_point="cp-1",site="TWO"} 1`, `connection_point="TWO/cp-1"`},
	} {
		for _, want := range wants { // a request is entered in the accounts a moment after its answer
			eventually(t, path+" has "+want, func() bool {
				w := newRecorder()
				r.gw.health.Handler().ServeHTTP(w, must[*http.Request](t)(http.NewRequest("GET", path, nil)))
				return strings.Contains(w.b.String(), want)
			})
		}
	}
}

// TestSitesContent: each site's content token opens its own site's store.
func TestSitesContent(t *testing.T) {
	t.Parallel()
	c, two := shared(t)
	store := func(text string) (*blob.Disk, cmg.Digest) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "setup.exe"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d := must[*blob.Disk](t)(blob.NewDisk(blob.DiskConfig{Dir: t.TempDir(), URL: "https://" + text + ".cmg.test", Key: noise(32)}))
		_, digest, err := content.Add(t.Context(), d, dir, content.AddOptions{Package: "PKG00001", Version: 1, Name: "tools"})
		if err != nil {
			t.Fatal(err)
		}
		return d, digest
	}
	first, digestOne := store("one")
	second, digestTwo := store("two")
	c.Links, c.Sites[0].Links = first, second
	r := run(t, c)
	r.connect("cp-1", echo).publish(r.site.publication(t, 1))
	r.of(two).connect("cp-1", echo).publish(two.publication(t, 1))
	for _, q := range []struct {
		by   *site
		of   cmg.Digest
		want string
	}{
		{r.site, digestOne, "https://one.cmg.test"}, {two, digestTwo, "https://two.cmg.test"},
		{r.site, digestTwo, content.CodeMismatch}, {two, digestOne, content.CodeMismatch},
	} {
		token := must[string](t)(q.by.keys.Issue(auth.Claims{Kind: auth.TokenContent, Site: q.by.code, Device: deviceID, Expires: time.Now().Add(time.Hour),
			Packages: []cmg.PackageGrant{{Package: "PKG00001", Version: 1, Manifest: q.of}}}))
		req := r.request("GET", cmg.ManifestPath+"?pid=PKG00001", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		if resp, body := do(t, r.client(nil, false), req); !strings.Contains(string(body)+resp.Header.Get("CMG-Refusal"), q.want) {
			t.Errorf("%s: %s %s, want %s", q.by.code, resp.Status, body, q.want)
		}
	}
}
