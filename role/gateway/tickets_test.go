package gateway

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// secrets makes the document of ticket secrets, one for each hour of age.
func secrets(t testing.TB, hours ...int) []byte {
	var s cmg.TicketSecrets
	for _, h := range hours {
		from := time.Now().Add(time.Duration(-h) * time.Hour)
		k := cmg.TicketSecret{ID: fmt.Sprint(h), Secret: make([]byte, 32), From: from, Until: from.Add(36 * time.Hour)}
		k.Secret[0] = byte(h + 1)
		s.Secrets = append(s.Secrets, k)
	}
	return must[[]byte](t)(json.Marshal(s))
}

// resumes makes a request on a connection of its own, and says whether its
// session was resumed.
func (r *running) resumes(cache tls.ClientSessionCache, cert *tls.Certificate, v uint16) (resumed bool, status int) {
	r.t.Helper()
	conf := r.settings(cert, "http/1.1")
	conf.ClientSessionCache, conf.MaxVersion = cache, v
	conf.ServerName = "gw.cmg.test"
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	resp, _ := do(r.t, c, r.request("GET", "/any/x", nil))
	return resp.TLS.DidResume, resp.StatusCode
}

// TestTickets has clients resume at another instance, at one that was started
// anew, and not past a change of the trust anchors.
func TestTickets(t *testing.T) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(v), func(t *testing.T) {
			var gs []*running
			var ins []*inside
			for range 2 {
				r, in := start(t, echo)
				gs, ins = append(gs, r), append(ins, in)
			}
			cache := tls.NewLRUClientSessionCache(8)
			go1 := func(i int, want bool) {
				t.Helper()
				if resumed, status := gs[i].resumes(cache, &gs[i].site.device, v); resumed != want || status != 200 {
					t.Errorf("instance %d: resumed %v, %d; want %v", i, resumed, status, want)
				}
			}
			go1(0, false)
			go1(0, true)
			go1(1, false) // each has a secret of its own so far
			share := func(doc []byte) {
				for i, r := range gs {
					known := func() int {
						r.gw.tickets.mu.Lock()
						defer r.gw.tickets.mu.Unlock()
						return len(r.gw.tickets.shared)
					}
					before := known()
					if err := ins[i].s.SendKeys(doc); err != nil {
						t.Fatal(err)
					}
					ins[i].settled()
					eventually(t, "the secrets are there", func() bool { return known() > before })
				}
			}
			share(secrets(t, 13))
			go1(0, false) // tickets of the own secret end here
			go1(1, true)
			go1(0, true)
			share(secrets(t, 13, 1)) // a younger one: what there is stays good
			go1(1, true)
			go1(0, true)

			// Trust that changes lets nobody resume, and proves everybody anew.
			for i, r := range gs {
				pub := r.site.content(2)
				pub.Anchors = []string{string(pemOf(r.site.strangers))}
				ins[i].publish(2, []byte(must[string](t)(auth.SignPublication(r.site.signer, pub))))
			}
			if resumed, status := gs[1].resumes(cache, &gs[1].site.device, v); resumed || status != 403 {
				t.Errorf("past a change of trust: resumed %v, %d", resumed, status)
			}
			if _, status := gs[0].resumes(cache, &gs[0].site.device, v); status != 403 { // by the refused one's ticket
				t.Errorf("at the other instance: %d", status)
			}
		})
	}
}

// TestTicketsKept keeps the proof of each request to the publication in force
// also where a session was resumed before it changed.
func TestTicketsKept(t *testing.T) {
	r, in := start(t, echo)
	cache := tls.NewLRUClientSessionCache(8)
	r.resumes(cache, &r.site.device, tls.VersionTLS13)
	conf := r.settings(&r.site.device, "http/1.1")
	conf.ClientSessionCache, conf.ServerName = cache, "gw.cmg.test"
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}
	defer c.CloseIdleConnections()
	resp, _ := do(t, c, r.request("GET", "/any/x", nil))
	if !resp.TLS.DidResume || resp.StatusCode != 200 {
		t.Fatalf("resumed %v, %s", resp.TLS.DidResume, resp.Status)
	}
	pub := r.site.content(2)
	pub.Anchors = nil
	in.publish(2, []byte(must[string](t)(auth.SignPublication(r.site.signer, pub))))
	resp, _ = do(t, c, r.request("GET", "/any/x", nil))
	if !resp.TLS.DidResume || resp.StatusCode != 403 {
		t.Errorf("on the connection from before: resumed %v, %s", resp.TLS.DidResume, resp.Status)
	}
}

// TestTicketsRefused sends what is no such document. Nothing of it is logged.
func TestTicketsRefused(t *testing.T) {
	r, in := start(t, echo)
	good := string(secrets(t, 1))
	short := cmg.TicketSecrets{Secrets: []cmg.TicketSecret{{ID: "x", Secret: []byte("short"), From: time.Now(), Until: time.Now().Add(time.Hour)}}}
	for name, doc := range map[string]string{
		"nothing": "", "no JSON": "x", "two": good + good, "unknown": strings.Replace(good, `"id"`, `"name"`, 1),
		"short": string(must[[]byte](t)(json.Marshal(short))), "too many": string(secrets(t, 1, 2, 3, 4, 5, 6, 7, 8, 9)),
	} {
		if err := in.s.SendKeys([]byte(doc)); err != nil {
			t.Fatal(name, err)
		}
	}
	if err := in.s.SendKeys(secrets(t, 40)); err != nil { // its time is over
		t.Fatal(err)
	}
	in.settled()
	if row := r.gw.tickets.row().(map[string]any); row["shared"] != false {
		t.Errorf("%v", row)
	}
}

func FuzzTicketSecrets(f *testing.F) {
	f.Add(secrets(f, 1))
	f.Add([]byte(`{"secrets":[]}`))
	r := must[*Gateway](f)(New(getSite(f).config(f)))
	f.Fuzz(func(t *testing.T, doc []byte) {
		r.tickets.take(doc)
		r.tickets.mu.Lock()
		defer r.tickets.mu.Unlock()
		if len(r.tickets.shared) > cmg.MaxTicketSecrets {
			t.Errorf("%d secrets", len(r.tickets.shared))
		}
		for _, s := range r.tickets.shared {
			if len(s.Secret) != 32 {
				t.Errorf("a secret of %d bytes", len(s.Secret))
			}
		}
	})
}
