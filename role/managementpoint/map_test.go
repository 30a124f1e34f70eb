package managementpoint

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

func (l *lab) getMap(etag string, c *http.Client) (m cmg.Map, got string, status int, err error) {
	l.t.Helper()
	resp, body, err := l.do(call{method: "GET", path: "/cmg/v1/map", client: c, header: http.Header{"If-None-Match": {etag}}})
	if err != nil {
		return m, "", resp.StatusCode, err
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, &m); err != nil {
			l.t.Fatal(err)
		}
	}
	return m, resp.Header.Get("ETag"), resp.StatusCode, nil
}

func TestMap(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	if err := l.site.AddAnchor(ctx, must(os.ReadFile(l.file("root.pem")))(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.site.AddManagementPoint(ctx, "mp1", l.url); err != nil {
		t.Fatal(err)
	}
	m, etag, status, err := l.getMap("", l.cp)
	if err != nil || status != 200 {
		t.Fatalf("map: %d, %v", status, err)
	}
	p := must(auth.ReadPublication(l.gateway, m.Publication, l.now()))(t)
	if p.Site != "LAB" || len(p.Routes) != 16 || len(p.Anchors) != 1 || len(p.Keys) != 1 || len(m.Mappings) != 16 {
		t.Fatalf("publication %+v, mappings %+v", p, m.Mappings)
	}
	trust := must(auth.NewTrust(p))(t)
	a := l.registered() // a token of this site passes a gateway that has this publication
	if _, err := trust.Verify(auth.Evidence{Authorization: "Bearer " + a.deviceToken}, []cmg.Proof{cmg.ProofToken}, l.now()); err != nil {
		t.Fatal(err)
	}

	for _, have := range []string{etag, `"0-x", ` + etag, "W/" + etag} {
		if _, again, status, err := l.getMap(have, l.cp); err != nil || status != 304 || again != etag {
			t.Fatalf("If-None-Match %s: %d, %s, %v", have, status, again, err)
		}
	}
	if err := l.site.RemoveRoute(ctx, p.Routes[0].Prefix, site.Overwrite{ManagementPoint: true}); err != nil {
		t.Fatal(err)
	}
	m, newer, status, err := l.getMap(etag, l.cp)
	if err != nil || status != 200 || newer == etag {
		t.Fatalf("after a change: %d, %s, %v", status, newer, err)
	}
	if q := must(auth.ReadPublication(l.gateway, m.Publication, l.now()))(t); q.Version != p.Version+1 || len(q.Routes) != 15 {
		t.Fatalf("publication %d with %d routes after %d", q.Version, len(q.Routes), p.Version)
	}

	// Nothing changes by a restart: connection points keep what they have.
	l.end()
	l.start()
	if _, _, status, err := l.getMap(newer, l.cp); err != nil || status != 304 {
		t.Fatalf("after a restart: %d, %v", status, err)
	}
	_, _, _, err = l.getMap("", l.client(l.gateway.Client()))
	refused(t, err, 403, "CMGMP_Connection_Point_Required")
	// A request from outside that a connection point passes on gets no map.
	_, _, err = l.do(call{method: "GET", path: "/cmg/v1/map", caller: byCertificate("")})
	refused(t, err, 403, "CMGMP_Connection_Point_Required")
}

func TestMapWhileItChanges(t *testing.T) {
	l := newLab(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 25 {
				m, _, _, err := l.getMap("", l.cp)
				if err != nil {
					t.Error(err)
					return
				}
				p, err := auth.ReadPublication(l.gateway, m.Publication, l.now())
				if err != nil || len(p.Routes) != len(m.Mappings) {
					t.Errorf("%d routes, %d mappings, %v", len(p.Routes), len(m.Mappings), err)
				}
			}
		})
	}
	for i := range 20 {
		r := cmg.Route{Prefix: "/app" + strings.Repeat("x", i), Methods: []string{"GET"}, Proofs: []cmg.Proof{cmg.ProofToken}, Name: "app"}
		if err := l.site.AddRoute(t.Context(), r, "http://app.inside"); err != nil {
			t.Error(err)
		}
	}
	all.Wait()
}
