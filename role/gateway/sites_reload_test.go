package gateway

import (
	"crypto/tls"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// TestReloadSites takes the files of each site anew while channels are up;
// which sites there are stays as it is.
func TestReloadSites(t *testing.T) {
	t.Parallel()
	c, two := shared(t)
	now := c
	c.Again = web.Again[Config]{Read: func() (Config, error) { return now, nil }, Every: time.Hour}
	r := run(t, c)
	old := r.gw.live.Load()
	for i, s := range []*site{r.site, two} {
		in := r.of(s).connect("cp-1", echo)
		in.publish(s.publication(t, 1))
		if n := len(*r.gw.sites[i].points.list.Load()); n != 1 {
			t.Errorf("%s: %d connection points", s.code, n)
		}
	}
	renewed := must[auth.Issued](t)(two.roots.Issue(auth.CertRequest{Site: two.code, Role: cmg.RoleGateway, Name: "gw-1", Server: true}))
	replace := func(by auth.Issued) {
		t.Helper()
		f := c.Sites[0]
		if err := errors.Join(os.Remove(f.Certificate), os.Remove(f.Key), by.Save(f.Certificate, f.Key)); err != nil {
			t.Fatal(err)
		}
	}
	replace(renewed)
	if files := r.gw.files(); !slices.Contains(files, c.Sites[0].Certificate) || !slices.Contains(files, c.Identity.Certificate) {
		t.Errorf("not all files are looked at: %v", files)
	}
	if err := r.gw.reload.Reload("a certificate"); err != nil {
		t.Fatal(err)
	}
	live := r.gw.live.Load()
	if s := r.gw.sites[1]; live.of(s).identity.Certificate().SerialNumber.Cmp(old.of(s).identity.Certificate().SerialNumber) == 0 {
		t.Error("the second site's certificate is still the old one")
	}
	for _, s := range []*site{r.site, two} {
		q := r.request("GET", "/any/x", nil)
		if resp, _ := do(t, r.client(&s.device, false), q); resp.StatusCode != 200 {
			t.Errorf("%s: %s", s.code, resp.Status)
		}
		r.of(s).connect("cp-2", echo) // meets the new certificate
	}

	now.Sites = nil
	if err := r.gw.reload.Reload("one site less"); err != nil {
		t.Fatal(err)
	}
	if n := len(r.gw.live.Load().parties); n != 2 {
		t.Errorf("%d sites are left", n)
	}
	if _, later, err := r.gw.install(now); err != nil || !slices.Equal(later, []string{"sites"}) {
		t.Errorf("%v, %v", later, err)
	}
	replace(must[auth.Issued](t)(two.roots.Issue(auth.CertRequest{Site: two.code, Role: cmg.RoleGateway, Name: "gw-2", Server: true})))
	now.Sites = c.Sites
	if err := r.gw.reload.Reload("another's identity"); !errors.Is(err, cmg.ErrConflict) {
		t.Errorf("another's identity: %v", err)
	}
}

// TestTicketsOfSites: no site's inside gives the keys of a gateway that
// serves another one as well, and the anchors of each count.
func TestTicketsOfSites(t *testing.T) {
	t.Parallel()
	c, two := shared(t)
	r := run(t, c)
	for _, s := range []*site{r.site, two} {
		in := r.of(s).connect("cp-1", echo)
		in.publish(s.publication(t, 1))
		if err := in.s.SendKeys(secrets(t, 1)); err != nil {
			t.Fatal(err)
		}
		in.publish(s.publication(t, 2)) // behind the secrets
	}
	if row := r.gw.tickets.row().(map[string]any); row["shared"] != false {
		t.Errorf("%v", row)
	}
	cache := tls.NewLRUClientSessionCache(8)
	r.resumes(cache, &r.site.device, tls.VersionTLS13)
	if resumed, status := r.resumes(cache, &r.site.device, tls.VersionTLS13); !resumed || status != 200 {
		t.Errorf("resumed %v, %d", resumed, status)
	}
	pub := two.content(3)
	pub.Anchors = nil
	r.of(two).connect("cp-3", echo).publish(3, []byte(must[string](t)(auth.SignPublication(two.signer, pub))))
	if resumed, status := r.resumes(cache, &r.site.device, tls.VersionTLS13); resumed || status != 200 {
		t.Errorf("past a change of the other site's trust: resumed %v, %d", resumed, status)
	}
	one := map[string][]string{"AAA": {"x", "y"}, "BBB": {}}
	moved := maps.Clone(one)
	moved["AAA"], moved["BBB"] = []string{"x"}, []string{"y"}
	if a, b := scopeOf(one), scopeOf(moved); slices.Equal(a.Anchors, b.Anchors) || a.Site != "AAA BBB" {
		t.Errorf("%v and %v", a, b)
	}
}

// TestParkedShare parks requests that wait for a connection point chosen by
// its load: they are its load until they are answered, once.
func TestParkedShare(t *testing.T) {
	t.Parallel()
	c := getSite(t).config(t)
	c.Choice, c.CallerLimits.Concurrent = ChoiceLeastLoaded, 100
	route := cmg.Route{Prefix: "/narrow", Methods: []string{"GET"}, Proofs: []cmg.Proof{cmg.ProofCertificate}, MaxConcurrent: 50, Class: cmg.ClassBulk, Name: "narrow"}
	r := run(t, c)
	release := make(chan struct{})
	in := r.connect("cp-1", func(q *request) {
		<-release
		q.answer(200, nil)
	})
	in.publish(r.site.publication(t, 1, route))
	pt := (*r.gw.points.list.Load())[0]
	e := r.gw.edge.Load().routes["/narrow"]
	gone := r.dial(&r.site.device)
	gone.send("GET /narrow/gone HTTP/1.1\r\nHost: g\r\n\r\n")
	own := r.client(&r.site.device, false)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if resp, _ := do(t, own, r.request("GET", "/narrow/x", nil)); resp.StatusCode != 200 {
				t.Error(resp.Status)
			}
		})
	}
	eventually(t, "all are parked", func() bool { return r.gw.counts.parked.Load() == 5 })
	if in, all := e.gate.Inside(), r.gw.gate.Inside(); in != 5 || all != 5 {
		t.Errorf("%d and %d places are taken", in, all)
	}
	gone.Close()
	eventually(t, "one has gone", func() bool { return e.gate.Inside() == 4 })
	close(release)
	wg.Wait()
	eventually(t, "nobody is left", func() bool {
		return e.gate.Inside() == 0 && r.gw.gate.Inside() == 0 && r.gw.counts.inFlight.Load() == 0
	})
	for i := range pt.load.came {
		if n := int32(uint32(pt.load.came[i].Load())); n != 0 {
			t.Errorf("%d shares of a moment are left", n)
		}
	}
	for i := range r.gw.accounts.callers.shards {
		for _, row := range r.gw.accounts.callers.shards[i].rows {
			if n := row.inside.Load(); n != 0 {
				t.Errorf("a caller has %d under way", n)
			}
		}
	}
}
