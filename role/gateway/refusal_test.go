package gateway

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// never stands for a body whose bytes do not come: whoever waits for them
// hangs.
const never = "never"

// TestRefusals sends what must not get in, over both protocols: each answer
// says why, and the inside sees nothing of it.
func TestRefusals(t *testing.T) {
	t.Parallel()
	r, in := start(t, echo)
	s := r.site
	bearer := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
	good := s.session(t)
	for name, c := range map[string]struct {
		method, path string
		cert         *tls.Certificate
		fields       []string
		body         string
		length       int64
		status       int
		code         string
	}{
		"nothing published":        {path: "/", cert: &s.device, status: 403, code: "CMGService_Not_Published"},
		"another id":               {path: "/CCM_Proxy_MutualAuth/8/SMS_MP/.sms_aut?MPLIST", cert: &s.device, status: 403, code: "CMGService_Not_Published"},
		"no segment":               {path: mutual + "/SMS_MPx", cert: &s.device, status: 403, code: "CMGService_Not_Published"},
		"parent":                   {path: mutual, cert: &s.device, status: 403, code: "CMGService_Not_Published"},
		"doubled slash":            {path: "/any//../x", cert: &s.device, status: 400, code: "CMGService_Bad_Request"},
		"dot segments":             {path: "/any/../secret", cert: &s.device, status: 400, code: "CMGService_Bad_Request"},
		"encoded dot segments":     {path: "/any/%2e%2E/secret", cert: &s.device, status: 400, code: "CMGService_Bad_Request"},
		"dots and a parameter":     {path: "/any/..;x/secret", cert: &s.device, status: 400, code: "CMGService_Bad_Request"},
		"encoded slash":            {path: "/any%2fx", cert: &s.device, status: 400, code: "CMGService_Bad_Request"},
		"encoded backslash":        {path: "/any/..%5csecret", cert: &s.device, status: 400, code: "CMGService_Bad_Request"},
		"encoded nul":              {path: "/any/x%00.txt", cert: &s.device, status: 400, code: "CMGService_Bad_Request"},
		"target too long":          {path: "/any/" + strings.Repeat("a", 17<<10), cert: &s.device, status: 414, code: "CMGService_Target_Too_Long"},
		"head too large":           {path: "/any/x", fields: []string{"X-Large", strings.Repeat("a", 66<<10)}, cert: &s.device, status: 431, code: "CMGService_Head_Too_Large"},
		"two authorizations":       {path: "/any/x", fields: append(bearer(good), bearer("x")...), status: 400, code: "CMGService_Bad_Request"},
		"method":                   {method: "DELETE", path: mutual + "/SMS_MP/x", cert: &s.device, status: 405, code: "CMGService_Method_Not_Allowed"},
		"unheard-of method":        {method: "BREW", path: mutual + "/SMS_MP/x", cert: &s.device, status: 405, code: "CMGService_Method_Not_Allowed"},
		"method in lower case":     {method: "post", path: "/any/x", cert: &s.device, status: 405, code: "CMGService_Method_Not_Allowed"},
		"body says it is too long": {method: "POST", path: "/small/x", body: never, length: 1001, cert: &s.device, status: 413, code: "CMGService_Content_Too_Large"},
		"no body allowed":          {path: mutual + "/SMS_MP/x", body: "x", length: 1, cert: &s.device, status: 413, code: "CMGService_Content_Too_Large"},
		"body is too long":         {method: "POST", path: "/small/x", body: strings.Repeat("x", 1001), length: -1, cert: &s.device, status: 413, code: "CMGService_Content_Too_Large"},
		"no certificate":           {path: mutual + "/SMS_MP/x", status: 403, code: "CMGService_Client_Certificate_Required"},
		"token for a certificate":  {path: mutual + "/SMS_MP/x", fields: bearer(good), status: 403, code: "CMGService_Client_Certificate_Required"},
		"unknown issuer":           {path: mutual + "/SMS_MP/x", cert: &s.unknown, status: 403, code: "CMGService_Certificate_Unknown_Issuer"},
		"expired certificate":      {path: mutual + "/SMS_MP/x", cert: &s.lapsed, status: 403, code: "CMGService_Certificate_Expired"},
		"no token":                 {path: server + "/SMS_MP/x", status: 401, code: "CMGService_Authentication_Required"},
		"certificate for a token":  {path: server + "/SMS_MP/x", cert: &s.device, status: 401, code: "CMGService_Authentication_Required"},
		"no bearer":                {path: server + "/SMS_MP/x", fields: []string{"Authorization", "Basic YTpi"}, status: 401, code: "CMGService_Authentication_Required"},
		"no token at all":          {path: server + "/SMS_MP/x", fields: bearer("x.y.z"), status: 401, code: "CMGService_Invalid_Token"},
		"token that was changed":   {path: server + "/SMS_MP/x", fields: bearer(good[:len(good)-8] + "AAAAAAAA"), status: 401, code: "CMGService_Invalid_Token"},
		"expired token":            {path: server + "/SMS_MP/x", fields: bearer(s.token(t, auth.TokenSession, -2*time.Hour, -time.Hour)), status: 401, code: "CMGService_Invalid_Token_Expired"},
		"token of tomorrow":        {path: server + "/SMS_MP/x", fields: bearer(s.token(t, auth.TokenSession, time.Hour, 2*time.Hour)), status: 401, code: "CMGService_Invalid_Token_Not_Yet_Valid"},
		"no content here":          {path: "/downloadrestservice.svc/getcontentxmlsecure?pid=LAB00001", fields: bearer(good), status: 404, code: "CMGService_No_Content"},
		"manifest by post":         {method: "POST", path: "/DownloadRestService.svc/GetContentXMLSecure", fields: bearer(good), status: 405, code: "CMGService_Method_Not_Allowed"},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " h2=", h2), func(t *testing.T) {
				if c.method == "" {
					c.method = "GET"
				}
				var body io.Reader
				if c.body == never {
					pr, _ := io.Pipe()
					defer pr.Close()
					body = pr
				} else if c.body != "" {
					body = strings.NewReader(c.body)
				}
				q := r.request(c.method, c.path, body)
				q.ContentLength = c.length
				for i := 0; i < len(c.fields); i += 2 {
					q.Header.Add(c.fields[i], c.fields[i+1])
				}
				before := in.streams.Load()
				resp, text := do(t, r.client(c.cert, h2), q)
				if resp.StatusCode != c.status || resp.Header.Get(web.RefusalHeader) != c.code || (resp.ProtoMajor == 2) != h2 {
					t.Fatalf("%s %s %v, want %d %s", resp.Proto, resp.Status, resp.Header, c.status, c.code)
				}
				if want := fmt.Sprintf("%d %s", c.status, c.code); !h2 && resp.Status != want {
					t.Errorf("status line %q, want %q", resp.Status, want)
				}
				id := resp.Header.Get(web.RequestIDHeader)
				if !strings.HasPrefix(string(text), c.code+": ") || id == "" || !strings.Contains(string(text), "request "+id+"\n") {
					t.Errorf("body %q, id %q", text, id)
				}
				if (resp.Header.Get("WWW-Authenticate") == "Bearer") != (c.status == 401) {
					t.Errorf("fields %v", resp.Header)
				}
				if in.streams.Load() != before {
					t.Error("it reached the inside")
				}
				wantExplained(t, r.gw, id, c.code, c.cert, c.fields)
			})
		}
	}
	resp, _ := do(t, r.client(&s.device, false), r.request("BREW", "/any/x", nil))
	if got := resp.Header.Get("Allow"); !strings.HasPrefix(got, "GET, HEAD, ") {
		t.Errorf("Allow: %q", got)
	}
	if n := r.gw.counts.requests.Load(); n < 60 {
		t.Errorf("%d requests counted", n)
	}
	eventually(t, "nothing is in flight", func() bool { return r.gw.counts.inFlight.Load() == 0 })
}

// TestBadHeads sends what no client library would: HTTP/1.1 that is refused
// before it is a request, and ends the connection.
func TestBadHeads(t *testing.T) {
	t.Parallel()
	r, in := start(t, echo)
	const ok = "POST /any/x HTTP/1.1\r\nHost: g\r\n"
	for name, c := range map[string]struct{ text, status string }{
		"two lengths":        {ok + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", "400 CMGService_Bad_Request"},
		"length and chunks":  {ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "400 CMGService_Bad_Request"},
		"bare line feed":     {"GET /any/x HTTP/1.1\nHost: g\n\n", "400 CMGService_Bad_Request"},
		"folded field":       {ok + "A: b\r\n c\r\n\r\n", "400 CMGService_Bad_Request"},
		"control character":  {ok + "A: b\x01\r\n\r\n", "400 CMGService_Bad_Request"},
		"no host":            {"GET /any/x HTTP/1.1\r\n\r\n", "400 CMGService_Bad_Request"},
		"not HTTP":           {"SSH-2.0-OpenSSH_9.2\r\n\r\n", "400 CMGService_Bad_Request"},
		"cut encoding":       {"GET /any/%4 HTTP/1.1\r\nHost: g\r\n\r\n", "400 CMGService_Bad_Request"},
		"connect":            {"CONNECT mp:443 HTTP/1.1\r\nHost: mp:443\r\n\r\n", "501 CMGService_Method_Not_Served"},
		"version":            {"GET /any/x HTTP/3.0\r\nHost: g\r\n\r\n", "505 CMGService_Version_Not_Served"},
		"expectation":        {ok + "Expect: miracle\r\nContent-Length: 1\r\n\r\n", "417 CMGService_Expectation_Failed"},
		"head without end":   {ok + strings.Repeat("A: b\r\n", 20000), "431 CMGService_Head_Too_Large"},
		"bad chunk size":     {ok + "Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n", "400 CMGService_Bad_Request"},
		"chunk and no crlf":  {ok + "Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n", "400 CMGService_Bad_Request"},
		"smuggled by length": {ok + "Content-Length: 0\r\nX: y\r\n Content-Length: 30\r\n\r\n", "400 CMGService_Bad_Request"},
	} {
		t.Run(name, func(t *testing.T) {
			before := in.streams.Load()
			w := r.dial(&r.site.device)
			go io.WriteString(w, c.text) // the answer may come before the end
			resp, _ := w.read("GET")
			if resp.Status != c.status || !resp.Close || resp.Header.Get(web.RefusalHeader) == "" || resp.Header.Get(web.RequestIDHeader) == "" {
				t.Errorf("%s %v, want %s", resp.Status, resp.Header, c.status)
			}
			w.over()
			if in.streams.Load() != before {
				t.Error("it reached the inside")
			}
		})
	}
}

// TestRefusalKeepsConnection shows that a refusal costs no connection where
// the request's end is known, and that what follows is read from there.
func TestRefusalKeepsConnection(t *testing.T) {
	t.Parallel()
	r, _ := start(t, echo)
	w := r.dial(&r.site.device)
	w.send("POST /nowhere HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n\r\nGET ")
	if resp, _ := w.read("POST"); resp.StatusCode != 403 || resp.Close {
		t.Fatalf("%s, close %v", resp.Status, resp.Close)
	}
	w.send("GET /any/x HTTP/1.1\r\nHost: g\r\n\r\n")
	if resp, _ := w.read("GET"); resp.StatusCode != 200 {
		t.Errorf("the next request: %s", resp.Status)
	}
	w.send("DELETE " + mutual + "/SMS_MP/x HTTP/1.1\r\nHost: g\r\n\r\nPOST /downloadrestservice.svc/getcontentxmlsecure HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n")
	w.read("DELETE")
	if resp, _ := w.read("POST"); resp.StatusCode != 405 || resp.Header.Get("Allow") != "" {
		t.Errorf("a refusal speaks of the route of the request before: %s %v", resp.Status, resp.Header)
	}
}

// TestNoConnectionPoint waits for one, no longer than is stated, and takes
// one that comes in time.
func TestNoConnectionPoint(t *testing.T) {
	t.Parallel()
	r := run(t, getSite(t).config(t))
	resp, _ := do(t, r.client(&r.site.device, false), r.request("GET", "/any/x", nil))
	if resp.Status != "503 CMGService_Not_Ready" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("without a publication: %s %v", resp.Status, resp.Header)
	}
	in := r.connect("cp-1", echo)
	in.publish(r.site.publication(t, 1))
	in.kill()
	eventually(t, "the channel is gone", func() bool { return r.channels("cp-1") == 0 })
	var wg sync.WaitGroup
	for _, h2 := range []bool{false, true} {
		wg.Go(func() {
			began := time.Now()
			resp, err := r.client(&r.site.device, h2).Do(r.request("POST", "/any/x", strings.NewReader("x")))
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if d := time.Since(began); resp.StatusCode != 503 || resp.Header.Get(web.RefusalHeader) != "CMGService_NoConnectionPoint" || d < time.Second || d > 6*time.Second {
				t.Errorf("h2=%v: %s after %v", h2, resp.Status, d)
			}
		})
	}
	wg.Wait()
	answers := make(chan *http.Response)
	go func() {
		resp, err := r.client(&r.site.device, false).Do(r.request("POST", "/any/x", strings.NewReader("x")))
		if err == nil {
			resp.Body.Close()
		}
		answers <- resp
	}()
	eventually(t, "a request waits", func() bool { return r.gw.waiting.requests.Load() == 1 })
	r.connect("cp-2", echo)
	if resp := within(t, "the answer", answers); resp == nil || resp.StatusCode != 200 || resp.Header.Get("X-By") != "cp-2" {
		t.Errorf("a connection point came: %v", resp)
	}
}
