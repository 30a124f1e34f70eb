package e2e

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// TestExplain refuses requests at every hop and asks why: cmg explain names
// the hop, the code, the evidence and what to do, and no secret.
func TestExplain(t *testing.T) {
	teapot := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer teapot.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + ln.Addr().String()
	ln.Close()
	l := startLab(t, "--map", "/teapot="+teapot.URL, "--map", "/dead="+dead)
	site := filepath.Join(l.dir, "site")
	explain := func(id string, more ...string) string {
		t.Helper()
		return must(t, append([]string{"explain", id, "--site", site}, more...)...)
	}
	stranger := l.client(false)
	pair, err := tls.LoadX509KeyPair(filepath.Join(l.dir, "certs", "stranger.crt"), filepath.Join(l.dir, "certs", "stranger.key"))
	if err != nil {
		t.Fatal(err)
	}
	// Its authority is not among those that the gateway names: show it all the same.
	stranger.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	mutual, server := l.env["CMG_URL"]+l.env["CMG_MP_MUTUAL"], l.env["CMG_URL"]+l.env["CMG_MP_SERVER"]
	good := l.env["CMG_TOKEN"]
	head, _, _ := strings.Cut(good, ".")
	registration := strings.TrimSpace(must(t, "token", "new", "--site", site))
	for _, c := range []struct {
		name, method, url, token, body string
		client                         *http.Client
		code                           string
		says                           []string
	}{
		{"unknown root", "GET", mutual + "/SMS_MP/.sms_aut?MPLIST", "", "", stranger, "CMGService_Certificate_Unknown_Issuer", []string{"gateway/gateway-", "CN=stranger", "CN=Somebody else", "issue the certificate from an authority"}},
		{"no certificate", "GET", mutual + "/SMS_MP/.sms_aut?MPLIST", "", "", l.client(false), "CMGService_Client_Certificate_Required", []string{"gateway/gateway-", "show one"}},
		{"unpublished", "GET", l.env["CMG_URL"] + "/AdminService/wmi", "", "", l.client(true), "CMGService_Not_Published", []string{"GET /AdminService/wmi", "cmg route add", "CN=curl"}},
		{"changed token", "GET", server + "/SMS_MP/.sms_aut?MPLIST", good[:len(good)-6] + "AAAAAA", "", l.client(false), "CMGService_Invalid_Token", []string{"token iss: urn:cmg:site:LAB", "signature", "get a new one"}},
		{"unknown key", "GET", server + "/SMS_MP/.sms_aut?MPLIST", "eyJhbGciOiJFUzI1NiIsImtpZCI6Ii4uLy4uL2V0Yy9wYXNzd2QiLCJ0eXAiOiJKV1QifQ" + good[len(head):], "", l.client(false), "CMGService_Invalid_Token_Unknown_Key", []string{"token kid: ../../etc/passwd", "publication"}},
		{"alg none", "GET", server + "/SMS_MP/.sms_aut?MPLIST", "eyJhbGciOiJub25lIiwia2lkIjoieCIsInR5cCI6IkpXVCJ9" + good[len(head):], "", l.client(false), "CMGService_Invalid_Token", []string{"token alg: none"}},
		{"body too long", "POST", server + "/CCM_STS", good, strings.Repeat("x", 65<<10), l.client(false), "CMGService_Content_Too_Large", []string{"body: 66560 bytes", "at most 65536 bytes"}},
		{"method", "DELETE", server + "/CCM_STS", good, "", l.client(false), "CMGService_Method_Not_Allowed", []string{"route takes"}},
		{"kind of token", "GET", server + "/SMS_MP/.sms_aut?MPLIST", registration, "", l.client(false), "CMGMP_Token_Kind", []string{"management-point/management-point-1", "token registration", "a registration token only registers"}},
		{"upstream refused", "GET", l.env["CMG_URL"] + "/teapot/x", good, "", l.client(false), "403 CMGConnector_Forbidden", []string{"connection-point/", strings.TrimPrefix(teapot.URL, "http://"), "the server answered 403"}},
		{"upstream away", "GET", l.env["CMG_URL"] + "/dead/x", good, "", l.client(false), "CMGConnector_Unreachable", []string{"gateway/gateway-", "refused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequest(c.method, c.url, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.token != "" {
				req.Header.Set("Authorization", "Bearer "+c.token)
			}
			resp, err := c.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			code := resp.Header.Get("CMG-Refusal")
			if code == "" {
				code = resp.Status
			}
			if code != c.code {
				t.Fatalf("%s %s, want %s", resp.Status, code, c.code)
			}
			text := explain(resp.Header.Get("CMG-Request-Id"))
			for _, want := range append(c.says, "rule ", "remedy ") {
				if !strings.Contains(text, want) {
					t.Errorf("explain does not say %q:\n%s", want, text)
				}
			}
			for _, secret := range []string{good, registration, good[strings.LastIndexByte(good, '.')+1:]} {
				if strings.Contains(text, secret) {
					t.Errorf("explain holds a token:\n%s", text)
				}
			}
		})
	}
	if text := explain("CMGService_Certificate_Expired"); !strings.Contains(text, "renew it") {
		t.Errorf("explain of a code:\n%s", text)
	}
	if _, errs, code := cmg(t, "explain", "never-was", "--site", site, "--wait", "10ms"); code != 5 || !strings.Contains(errs, "never-was") {
		t.Errorf("an unknown id: exit %d: %s", code, errs)
	}

	// Without a connection point nothing can be reported: the gateway is asked.
	l.kill("connection-point-1")
	l.kill("connection-point-2")
	l.until("no connection point", func() error {
		code, id := ask(t, l.client(false), l.env["CMG_URL"]+"/teapot/x", good)
		if code != "CMGService_NoConnectionPoint" {
			return fmt.Errorf("%s", code)
		}
		text := explain(id, "--ask", fmt.Sprintf("127.0.0.1:%d", l.base+51), "--ask", fmt.Sprintf("127.0.0.1:%d", l.base+52))
		if !strings.Contains(text, "look at the connection points' status") {
			t.Errorf("no connection point:\n%s", text)
		}
		return nil
	})
	l.again("connection-point-1")
	l.again("connection-point-2")
}
