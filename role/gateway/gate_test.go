package gateway

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

func TestTokenBucket(t *testing.T) {
	var b tokenBucket
	c, now := CallerLimits{Rate: 10, Burst: 5}, time.Unix(1.7e9, 0)
	taken := func() (n int) {
		for b.take(c, now) == 0 {
			n++
		}
		return n
	}
	if n := taken(); n != 5 {
		t.Errorf("%d at once, want 5", n)
	}
	if w := b.take(c, now); w != 100*time.Millisecond {
		t.Errorf("the next in %v, want 100ms", w)
	}
	now = now.Add(250 * time.Millisecond)
	if n := taken(); n != 2 {
		t.Errorf("%d after a quarter of a second, want 2", n)
	}
	now = now.Add(time.Hour)
	if n := taken(); n != 5 {
		t.Errorf("%d after an hour, want 5", n)
	}
	for _, c := range []CallerLimits{{Rate: -1}, {Rate: 2e6}, {Burst: -1}} {
		if _, err := c.withDefaults(); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

// TestCallerLimits has one caller ask too much, while another is not touched.
func TestCallerLimits(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		conf := getSite(t).config(t)
		conf.CallerLimits = CallerLimits{Rate: 0.001, Burst: 3}
		r := run(t, conf)
		in := r.connect("cp-1", echo)
		in.publish(r.site.publication(t, 1))
		greedy, other := r.client(&r.site.device, h2), r.client(nil, h2)
		token := must[string](t)(r.site.keys.Issue(claimsOf(cmg.NewDeviceID())))
		for i := range 6 {
			resp, _ := do(t, greedy, r.request("GET", "/any/x", nil))
			switch wait, err := strconv.Atoi(resp.Header.Get("Retry-After")); {
			case i < 3 && resp.StatusCode != 200:
				t.Errorf("request %d: %s", i, resp.Status)
			case i >= 3 && (resp.StatusCode != 429 || resp.Header.Get("CMG-Refusal") != "CMGService_Too_Many_Requests" || err != nil || wait < 900):
				t.Errorf("request %d: %s %v", i, resp.Status, resp.Header)
			}
			if i%2 == 0 {
				q := r.request("GET", "/any/x", nil)
				q.Header.Set("Authorization", "Bearer "+token)
				if resp, _ := do(t, other, q); resp.StatusCode != 200 {
					t.Errorf("another caller: %s", resp.Status)
				}
			}
		}
		if n := in.streams.Load(); n != 6 {
			t.Errorf("%d requests went inward, want 6", n)
		}
	}
}

// TestCallerConcurrent has one caller hold as many requests inward as it may:
// its next is refused, another caller's is not.
func TestCallerConcurrent(t *testing.T) {
	t.Parallel()
	c := getSite(t).config(t)
	c.CallerLimits.Concurrent = 2
	r := run(t, c)
	release := make(chan struct{})
	in := r.connect("cp-1", func(q *request) {
		if strings.HasSuffix(string(q.head.Path), "/hold") {
			<-release
		}
		q.answer(200, nil)
	})
	in.publish(r.site.publication(t, 1))
	own := r.client(&r.site.device, false)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { r.burst(own, "/any/hold", 1, 1) })
	}
	eventually(t, "two are inward", func() bool { return in.streams.Load() == 2 })
	if resp, _ := do(t, own, r.request("GET", "/any/x", nil)); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a third: %s %v", resp.Status, resp.Header)
	}
	other := r.request("GET", "/any/x", nil)
	other.Header.Set("Authorization", "Bearer "+must[string](t)(r.site.keys.Issue(claimsOf(cmg.NewDeviceID()))))
	if resp, _ := do(t, r.client(nil, false), other); resp.StatusCode != 200 {
		t.Errorf("another caller: %s", resp.Status)
	}
	close(release)
	wg.Wait()
	r.burst(own, "/any/x", 20, 1)
}

// TestRouteLimit holds requests at a route with room for two, over real
// connections: the others wait, and go on when one is answered.
func TestRouteLimit(t *testing.T) {
	release := make(chan struct{})
	r := run(t, getSite(t).config(t))
	in := r.connect("cp-1", func(q *request) {
		<-release
		q.answer(200, nil)
	})
	route := cmg.Route{Prefix: "/narrow", Methods: []string{"GET"}, Proofs: []cmg.Proof{cmg.ProofCertificate}, MaxConcurrent: 2, Class: cmg.ClassBulk, Name: "narrow"}
	in.publish(r.site.publication(t, 1, route))
	c := r.client(&r.site.device, false)
	codes := make(chan string, 20)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			resp, err := c.Do(r.request("GET", "/narrow/x", nil))
			if err != nil {
				codes <- err.Error()
				return
			}
			resp.Body.Close()
			codes <- fmt.Sprint(resp.StatusCode, resp.Header.Get("CMG-Refusal"))
		})
	}
	for range 2 { // room for two, sixteen wait: two are refused at once
		if s := within(t, "one is turned away", codes); s != fmt.Sprint(http.StatusServiceUnavailable, "CMGService_Overloaded") {
			t.Error(s)
		}
	}
	eventually(t, "two are inward", func() bool { return in.streams.Load() == 2 })
	w := newRecorder()
	r.gw.health.Handler().ServeHTTP(w, must[*http.Request](t)(http.NewRequest("GET", "/metrics", nil)))
	if want := `cmg_gateway_gate_refused_requests_total{gate="route",reason="full"} 2`; !strings.Contains(w.b.String(), want) {
		t.Errorf("metrics lack %s", want)
	}
	in.publish(r.site.publication(t, 2, route)) // those inside still count
	close(release)
	for range 18 {
		if s := within(t, "the others are answered", codes); s != "200" {
			t.Error(s)
		}
	}
	wg.Wait()
	g := r.gw.edge.Load().routes["/narrow"].gate
	eventually(t, "nobody is counted as inside", func() bool { return g.Inside() == 0 && r.gw.gate.Inside() == 0 })
}

func claimsOf(id cmg.DeviceID) auth.Claims {
	return auth.Claims{Kind: auth.TokenSession, Site: testSite, Device: id, NotBefore: time.Now(), Expires: time.Now().Add(time.Hour)}
}
