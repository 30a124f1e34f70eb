package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/web"
)

// TestProvenCaller asks for a list as clients do, with each proof over each
// protocol, and looks at what the inside is told of the caller.
func TestProvenCaller(t *testing.T) {
	t.Parallel()
	seen := make(chan *request, 1)
	r, _ := start(t, func(q *request) {
		seen <- q
		q.answer(200, []byte("<MPList/>"), "Content-Type", "text/xml", web.RequestIDHeader, "an-echo")
	})
	gateway := must[*auth.Identity](t)(auth.LoadIdentity(r.gw.cfg.Identity)).Certificate()
	reader := auth.NewCallerReader(func(_ context.Context, thumbprint string) (*x509.Certificate, error) {
		if thumbprint != auth.Thumbprint(gateway) {
			return nil, cmg.ErrNotFound
		}
		return gateway, nil
	})
	for _, proof := range []cmg.Proof{cmg.ProofCertificate, cmg.ProofToken} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprint(proof, " h2=", h2), func(t *testing.T) {
				cert, prefix, authorization := &r.site.device, mutual, ""
				if proof == cmg.ProofToken {
					cert, prefix, authorization = nil, server, "Bearer "+r.site.session(t)
				}
				q := r.request("GET", prefix+"/SMS_MP/.sms_aut?MPLIST", nil)
				for name, v := range map[string]string{"CMG-Caller": "forged", "cmg_caller": "forged", "Cmg_Request_Id": "forged", "X-Forwarded-For": "1.2.3.4",
					"X-Forwarded-Host": "evil", "X-Real-Ip": "1.2.3.4", "Forwarded": "for=1.2.3.4", "Authorization": authorization} {
					if v != "" {
						q.Header[name] = []string{v}
					}
				}
				resp, body := do(t, r.client(cert, h2), q)
				if resp.StatusCode != 200 || string(body) != "<MPList/>" || resp.Header.Get("Content-Type") != "text/xml" || (resp.ProtoMajor == 2) != h2 {
					t.Fatalf("%s %s: %q, %v", resp.Proto, resp.Status, body, resp.Header)
				}
				in := within(t, "the request arrives", seen)
				if got, want := string(in.head.Target), prefix+"/SMS_MP/.sms_aut?MPLIST"; got != want {
					t.Errorf("target %q, want %q", got, want)
				}
				c, err := reader.Read(t.Context(), in.field(auth.CallerHeader), time.Now())
				if err != nil {
					t.Fatal(err)
				}
				want := cmg.Caller{Proof: proof, Device: deviceID, Gateway: "gw-1", Name: c.Name, NotAfter: c.NotAfter, TokenID: c.TokenID}
				if proof == cmg.ProofToken {
					want.TokenKind = "session"
				} else {
					want.Thumbprint = auth.Thumbprint(must[*x509.Certificate](t)(x509.ParseCertificate(r.site.device.Certificate[0])))
				}
				if diff := cmp.Diff(want, c); diff != "" {
					t.Errorf("caller: (-want +got)\n%s", diff)
				}
				named := map[string][]string{}
				for _, f := range in.head.Fields {
					name := strings.ToLower(string(f.Name))
					named[name] = append(named[name], string(f.Value))
				}
				id := resp.Header.Values(web.RequestIDHeader)
				if len(id) != 1 || cmp.Diff(named["cmg-request-id"], id) != "" {
					t.Errorf("request id %q answered, %q inside", id, named["cmg-request-id"])
				}
				for name, want := range map[string]string{"x-forwarded-for": "127.0.0.1", "x-forwarded-host": r.clients, "x-forwarded-proto": "https", "authorization": authorization} {
					if got := strings.Join(named[name], "|"); got != want {
						t.Errorf("%s: %q, want %q", name, got, want)
					}
				}
				for name, values := range named {
					if strings.HasPrefix(name, "cmg") && len(values) > 1 || strings.Contains(strings.Join(values, " "), "forged") || name == "forwarded" || name == "x-real-ip" {
						t.Errorf("the inside was told %s: %q", name, values)
					}
				}
			})
		}
	}
}

// TestTokenStays shows that a site token goes on only where the route says
// so, and what is no site token goes on as it came.
func TestTokenStays(t *testing.T) {
	t.Parallel()
	r, _ := start(t, func(q *request) { q.answer(200, nil, "X-Got", q.field("Authorization")) })
	token := "Bearer " + r.site.session(t)
	for _, c := range []struct {
		cert       *tls.Certificate
		path       string
		send, want string
	}{
		{nil, server + "/SMS_MP/x", token, token},
		{nil, "/any/x", token, ""},
		{&r.site.device, "/any/x", "Basic YTpi", "Basic YTpi"},
	} {
		q := r.request("GET", c.path, nil)
		q.Header.Set("Authorization", c.send)
		if resp, _ := do(t, r.client(c.cert, false), q); resp.StatusCode != 200 || resp.Header.Get("X-Got") != c.want {
			t.Errorf("%s: %s, %.20q, want %.20q", c.path, resp.Status, resp.Header.Get("X-Got"), c.want)
		}
	}
}

// TestBytePerByte sends what the field's clients send, with their letter
// case, and compares what arrives.
func TestBytePerByte(t *testing.T) {
	t.Parallel()
	const fields = "Range: bytes=0-99,200-\r\nCCMClientID: GUID:0f0e0d0c-0B0A-4908-8706-050403020100\r\nCCMClientIDSignature: 0A1b2C==\r\n" +
		"CCMClientTimestamp: 2026-11-22T05:00:00Z\r\nCCMClientTimestampsSignature: ff00  ff,; \x80\r\nuser-agent: SMS CCM 5.0\r\nX-Odd|Name: a\tb\r\n"
	r, _ := start(t, func(q *request) {
		var text strings.Builder
		for _, f := range q.head.Fields[:len(q.head.Fields)-5] { // behind them: what the gateway says
			fmt.Fprintf(&text, "%s: %s\r\n", f.Name, f.Value)
		}
		q.answer(206, []byte(text.String()), "Content-Range", "bytes 0-1/2", "etag", `"x"`)
	})
	w := r.dial(&r.site.device)
	w.send("GET " + mutual + "/sms_mp/%7ba%7D/.sms_pol?{A}.SHA256:ab%7bc HTTP/1.1\r\nHost: gw.cmg.test\r\n" + fields + "\r\n")
	resp, body := w.read("GET")
	if resp.Status != "206 Partial Content" || resp.Header.Get("Content-Range") != "bytes 0-1/2" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	sameBytes(t, "fields", body, []byte(fields))
}

// TestMethods passes the field's own methods, with and without a body.
func TestMethods(t *testing.T) {
	t.Parallel()
	r, _ := start(t, echo)
	for _, h2 := range []bool{false, true} {
		c := r.client(&r.site.device, h2)
		for _, m := range []struct{ method, path, body string }{
			{"CCM_POST", mutual + "/ccm_system/request", "--aAbBcC\r\n"}, {"CCM_POST", mutual + "/CCM_SYSTEM/request?x", ""},
			{"BITS_POST", "/any/CCM_Incoming/{1}", "fragment"}, {"BITS_POST", "/any/CCM_Incoming/{1}", ""},
			{"PROPFIND", "/any/SMS_DP_SMSPKG$/LAB00001", ""}, {"PROPFIND", "/any/x", "<propfind/>"}, {"DELETE", "/any/x", ""}, {"POST", "/any/x", ""}, {"OPTIONS", "/any/x", ""},
		} {
			resp, body := do(t, c, r.request(m.method, m.path, strings.NewReader(m.body)))
			if resp.StatusCode != 200 || string(body) != m.body || resp.Header.Get("X-Method") != m.method || resp.Header.Get("X-Target") != m.path {
				t.Errorf("h2=%v %s %s: %s, %q, %v", h2, m.method, m.path, resp.Status, body, resp.Header)
			}
		}
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	r, _ := start(t, func(q *request) {
		if strings.HasSuffix(string(q.head.Path), "/long") {
			q.begin(200, 12345, nil, true, "ETag", `"e"`)
			return
		}
		q.begin(200, 0, nil, true)
	})
	for _, h2 := range []bool{false, true} {
		c := r.client(&r.site.device, h2)
		for range 3 { // the connection has to stay in step
			resp, body := do(t, c, r.request("HEAD", "/any/long", nil))
			if resp.ContentLength != 12345 || len(body) != 0 || resp.Header.Get("ETag") != `"e"` {
				t.Errorf("h2=%v: %d, %q, %v", h2, resp.ContentLength, body, resp.Header)
			}
			do(t, c, r.request("HEAD", "/any/short", nil))
		}
		if resp, body := do(t, c, r.request("HEAD", "/nowhere", nil)); resp.StatusCode != 403 || len(body) != 0 {
			t.Errorf("h2=%v: a refusal to HEAD: %s, %q", h2, resp.Status, body)
		}
	}
}

// TestNoBody answers with statuses that have no body, also where the inside
// sends one: the connection stays in step.
func TestNoBody(t *testing.T) {
	t.Parallel()
	r, _ := start(t, func(q *request) {
		switch string(q.head.Path) {
		case "/any/204":
			q.begin(204, h1.Chunked, []byte("HTTP/1.1 200 OK\r\n\r\n"), true)
		case "/any/304":
			q.begin(304, 5, []byte("HTTP/1.1 200 OK\r\n\r\n"), false, "ETag", `"e"`)
		}
	})
	for _, h2 := range []bool{false, true} {
		c := r.client(&r.site.device, h2)
		for _, status := range []int{204, 304, 204, 304} {
			if resp, body := do(t, c, r.request("GET", fmt.Sprint("/any/", status), nil)); resp.StatusCode != status || len(body) != 0 {
				t.Errorf("h2=%v: %s, %q, want %d", h2, resp.Status, body, status)
			}
		}
	}
}

// TestBodies sends 5 MiB up and down, of known length and chunked.
func TestBodies(t *testing.T) {
	t.Parallel()
	big := noise(5<<20 + 7)
	r, _ := start(t, func(q *request) {
		b, err := q.body()
		if err != nil {
			return
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		length := int64(len(b))
		if q.head.Length == h1.Chunked {
			length = h1.Chunked
		}
		if q.begin(200, length, nil, false, "X-Sum", sum) == nil {
			q.st.WriteEnd(b)
		}
	})
	for _, h2 := range []bool{false, true} {
		c := r.client(&r.site.device, h2)
		for _, n := range []int{0, 1, 16 << 10, 16<<10 + 1, keepBody, keepBody + 1, len(big)} {
			for _, chunked := range []bool{false, true} {
				var body io.Reader = bytes.NewReader(big[:n])
				if chunked {
					body = struct{ io.Reader }{body}
				}
				resp, got := do(t, c, r.request("POST", "/any/echo", body))
				what := fmt.Sprintf("h2=%v chunked=%v %d bytes", h2, chunked, n)
				if resp.StatusCode != 200 || resp.Header.Get("X-Sum") != fmt.Sprintf("%x", sha256.Sum256(big[:n])) {
					t.Errorf("%s: %s", what, resp.Status)
				}
				if !chunked && resp.ContentLength != int64(n) || !h2 && chunked && n > 0 && resp.TransferEncoding == nil {
					t.Errorf("%s: length %d, %v", what, resp.ContentLength, resp.TransferEncoding)
				}
				sameBytes(t, what, got, big[:n])
			}
		}
	}
}

func TestContinue(t *testing.T) {
	t.Parallel()
	r, in := start(t, echo)
	w := r.dial(&r.site.device)
	const head = " HTTP/1.1\r\nHost: gw.cmg.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
	for range 2 {
		w.send("POST /any/x" + head)
		if line, err := w.br.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" || err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		w.br.ReadString('\n')
		w.send("hello")
		if resp, b := w.read("POST"); resp.StatusCode != 200 || string(b) != "hello" || resp.Close {
			t.Errorf("%s, %q", resp.Status, b)
		}
	}
	w.send("POST /any/x" + head + "hello") // a client that does not wait after all
	if resp, b := w.read("POST"); resp.StatusCode != 200 || string(b) != "hello" {
		t.Errorf("%s, %q", resp.Status, b)
	}
	n := in.streams.Load()
	w.send("POST /nowhere" + head) // no 100: the body is not wanted
	if resp, _ := w.read("POST"); resp.StatusCode != 403 || !resp.Close {
		t.Errorf("%s, close %v", resp.Status, resp.Close)
	}
	w.over()
	if in.streams.Load() != n {
		t.Error("a refused request reached the inside")
	}
}

func TestPipelined(t *testing.T) {
	t.Parallel()
	r, _ := start(t, func(q *request) {
		if string(q.head.Path) == "/any/0" { // the first is the slowest
			<-time.After(60 * time.Millisecond)
		}
		echo(q)
	})
	w := r.dial(&r.site.device)
	var text strings.Builder
	for i := range 20 {
		switch i % 4 {
		case 0, 1:
			fmt.Fprintf(&text, "GET /any/%d HTTP/1.1\r\nHost: g\r\n\r\n", i)
		case 2:
			fmt.Fprintf(&text, "POST /any/%d HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\n\r\nabc", i)
		case 3:
			fmt.Fprintf(&text, "POST /any/%d HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX: y\r\n\r\n", i)
		}
	}
	w.send(text.String())
	for i := range 20 {
		want := map[bool]string{true: "abc"}[i%4 >= 2]
		if resp, b := w.read("GET"); resp.Header.Get("X-Target") != fmt.Sprint("/any/", i) || string(b) != want {
			t.Fatalf("answer %d is to %s: %q", i, resp.Header.Get("X-Target"), b)
		}
	}
}

func TestHTTP10(t *testing.T) {
	t.Parallel()
	r, _ := start(t, func(q *request) {
		if string(q.head.Path) == "/any/stream" {
			if q.begin(200, h1.Chunked, []byte("first "), false) == nil {
				q.st.WriteEnd([]byte("second"))
			}
			return
		}
		echo(q)
	})
	all := func(text string) string {
		w := r.dial(&r.site.device)
		w.send(text)
		return string(must[[]byte](t)(io.ReadAll(w.br)))
	}
	if got := all("POST /any/x HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi"); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "\r\nConnection: close\r\n\r\nhi") {
		t.Errorf("plain: %q", got)
	}
	if got := all("GET /any/stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"); strings.Contains(got, "chunked") || !strings.HasSuffix(got, "\r\nConnection: close\r\n\r\nfirst second") {
		t.Errorf("of unknown length: %q", got)
	}
	w := r.dial(&r.site.device)
	for range 2 {
		w.send("GET /any/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
		if resp, _ := w.read("GET"); resp.StatusCode != 200 || resp.Header.Get("Connection") != "keep-alive" {
			t.Errorf("keep-alive: %s %v", resp.Status, resp.Header)
		}
	}
}

// TestHandshakes has many clients that say nothing: they hold up nobody.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	r, _ := start(t, echo)
	for range 64 {
		c := must[net.Conn](t)(net.Dial("tcp", r.clients))
		defer c.Close()
	}
	began := time.Now()
	if resp, _ := do(t, r.client(&r.site.device, false), r.request("GET", "/any/x", nil)); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
	if d := time.Since(began); d > handshakeTime/2 {
		t.Errorf("a client waited %v behind silent ones", d)
	}
}
