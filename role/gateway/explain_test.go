package gateway

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// wantExplained checks that a refusal is remembered with what the client
// showed, that its code is explained, and that no secret is in it.
func wantExplained(t *testing.T, g *Gateway, id, code string, cert *tls.Certificate, fields []string) {
	t.Helper()
	rs := g.refusals.Find(id, 10)
	if len(rs) != 1 || rs[0].Code != code || rs[0].Hop != "gateway/gw-1" || rs[0].Time.IsZero() {
		t.Fatalf("request %s is remembered as %+v", id, rs)
	}
	if rule, ok := cmg.RuleOf(code); !ok || rule.Remedy == "" {
		t.Errorf("%s is not explained", code)
	}
	b, err := json.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if cert != nil && !strings.Contains(text, fmt.Sprintf("serial %x", cert.Leaf.SerialNumber)) {
		t.Errorf("it does not name the certificate: %s", text)
	}
	for i := 0; i+1 < len(fields); i += 2 {
		token, isToken := strings.CutPrefix(fields[i+1], "Bearer ")
		if strings.Contains(text, token) && len(token) > 8 {
			t.Errorf("it holds what was shown: %s", text)
		}
		if isToken && len(fields) == 2 && strings.Count(token, ".") == 2 && len(token) > 20 && !strings.Contains(text, "token iss") {
			t.Errorf("it does not say who issued the token: %s", text)
		}
	}
}

// TestReport hands what was refused on to a connection point, which can be
// asked inside; what it did not take is sent again.
func TestReport(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var got []cmg.RefusalRecord
	failed := 0
	r, _ := start(t, func(q *request) {
		if string(q.head.Path) != web.RefusalsPath {
			echo(q)
			return
		}
		b, err := q.body()
		mu.Lock()
		defer mu.Unlock()
		if failed++; failed == 1 {
			q.answer(503, nil)
			return
		}
		var rs []cmg.RefusalRecord
		if err == nil {
			err = json.Unmarshal(b, &rs)
		}
		if err != nil || string(q.head.Method) != "POST" {
			t.Errorf("report %s %.200q: %v", q.head.Method, b, err)
		}
		got = append(got, rs...)
		q.answer(204, nil)
	}, func(g *Gateway) { g.limits.report = 5 * time.Millisecond })
	ids := map[string]bool{}
	for range 40 { // more than one report
		resp, _ := do(t, r.client(&r.site.unknown, false), r.request("GET", mutual+"/SMS_MP/x", nil))
		ids[resp.Header.Get(web.RequestIDHeader)] = true
	}
	eventually(t, "all refusals are reported", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) >= 40
	})
	mu.Lock()
	defer mu.Unlock()
	for _, rec := range got {
		if !ids[rec.ID] || rec.Code != "CMGService_Certificate_Unknown_Issuer" || rec.Hop != "gateway/gw-1" {
			t.Errorf("reported %+v", rec)
		}
		delete(ids, rec.ID)
	}
	if len(ids) > 0 {
		t.Errorf("%d were not reported", len(ids))
	}
	if n := r.gw.served.refusals.Lost(); n != 0 {
		t.Errorf("%d were lost", n)
	}
}

// A client cannot speak to a connection point as a gateway does: nothing can
// be published where it listens.
func TestReportPathIsNotPublished(t *testing.T) {
	t.Parallel()
	r, in := start(t, echo)
	before := in.streams.Load()
	resp, _ := do(t, r.client(&r.site.device, false), r.request("POST", web.RefusalsPath, strings.NewReader("[]")))
	if resp.StatusCode != 403 || in.streams.Load() != before {
		t.Errorf("a client's report: %s", resp.Status)
	}
	for _, prefix := range []string{"/cmg", "/CMG/v1", web.RefusalsPath} {
		route := cmg.Route{Prefix: prefix, Methods: []string{"POST"}, Proofs: []cmg.Proof{cmg.ProofToken}, Name: "x"}
		if route.Check() == nil {
			t.Errorf("%s can be published", prefix)
		}
	}
}

// TestBlockedLive shuts a caller out: what waits for an answer is broken off,
// and the next request on a connection that lives is refused with the reason.
// It holds for a token of a device as for the device, and where the table of
// callers has no row for this one.
func TestBlockedLive(t *testing.T) {
	t.Parallel()
	const id = "session-1"
	token := must[string](t)(getSite(t).keys.Issue(auth.Claims{Kind: auth.TokenSession, ID: id, Site: testSite, Device: deviceID, Expires: time.Now().Add(time.Hour)}))
	full := func(g *Gateway) {
		g.accounts.callers = newCallers(g.log, 1)
		for i := range g.accounts.callers.shards {
			g.accounts.callers.shards[i].rows["somebody"] = &callerRow{key: "somebody"}
			g.accounts.callers.shards[i].rows["somebody"].see(g.now())
		}
	}
	for _, test := range []struct {
		name   string
		token  string // empty: by certificate
		blocks cmg.Blocks
		code   string
		change []func(*Gateway)
	}{
		{"device", "", cmg.Blocks{Devices: []cmg.DeviceID{deviceID}}, "CMGService_Blocked_Device", nil},
		{"device without a row", "", cmg.Blocks{Devices: []cmg.DeviceID{deviceID}}, "CMGService_Blocked_Device", []func(*Gateway){full}},
		{"token", token, cmg.Blocks{Tokens: []string{id}}, "CMGService_Blocked_Token", nil},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprint(test.name, " h2=", h2), func(t *testing.T) {
				blockedLive(t, h2, test.token, test.blocks, test.code, test.change...)
			})
		}
	}
}

func blockedLive(t *testing.T, h2 bool, token string, blocks cmg.Blocks, code string, change ...func(*Gateway)) {
	waits := make(chan struct{}, 1)
	r, in := start(t, func(q *request) {
		if string(q.head.Path) != "/any/wait" {
			echo(q)
			return
		}
		waits <- struct{}{}
		for q.st.Err() == nil { // for ever, if nobody ends it
			within(t, "the request is taken back", q.st.Ready())
		}
	}, change...)
	cert := &r.site.device
	if token != "" {
		cert = nil
	}
	ask := func(path string) *http.Request {
		q := r.request("GET", path, nil)
		if token != "" {
			q.Header.Set("Authorization", "Bearer "+token)
		}
		return q
	}
	client := r.client(cert, h2)
	do(t, client, ask("/any/x"))
	broken := make(chan error, 1)
	go func() {
		resp, err := r.client(cert, h2).Do(ask("/any/wait"))
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		broken <- err
	}()
	within(t, "a request waits", waits)
	p := r.site.content(2)
	p.Blocks = blocks
	if problem := in.publish(2, []byte(must[string](t)(auth.SignPublication(r.site.signer, p)))); problem != "" {
		t.Fatal(problem)
	}
	if err := within(t, "the request that waits ends", broken); err == nil {
		t.Error("a blocked caller was answered")
	}
	resp, _ := do(t, client, ask("/any/x"))
	if resp.Header.Get(web.RefusalHeader) != code || resp.StatusCode != http.StatusForbidden {
		t.Errorf("on a live connection: %s", resp.Status)
	}
	in.publish(r.site.publication(t, 3))
	if resp, _ := do(t, client, ask("/any/x")); resp.StatusCode != 200 {
		t.Errorf("after the block was lifted: %s", resp.Status)
	}
}

// TestGraceToken lets a device token in after its end for its renewal, and
// nowhere else.
func TestGraceToken(t *testing.T) {
	t.Parallel()
	r, _ := start(t, echo)
	now := time.Now()
	token := must[string](t)(r.site.keys.Issue(auth.Claims{Kind: auth.TokenDevice, Site: testSite, Device: deviceID, NotBefore: now.Add(-90 * 24 * time.Hour), Expires: now.Add(-time.Minute), Grace: time.Hour}))
	for path, code := range map[string]string{server + "/CCM_STS": "", "/any/x": "CMGService_Invalid_Token_Expired"} {
		q := r.request("POST", path, nil)
		q.Header.Set("Authorization", "Bearer "+token)
		resp, _ := do(t, r.client(nil, false), q)
		if got := resp.Header.Get(web.RefusalHeader); got != code {
			t.Errorf("%s: %s %s, want %s", path, resp.Status, got, code)
		}
	}
}
