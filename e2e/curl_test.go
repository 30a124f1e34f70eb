package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// curl runs curl in a shell that has read env.sh, as a person would, and
// gives the answer's head and body.
func (l *lab) curl(t *testing.T, args string) (head, body string) {
	t.Helper()
	c := exec.Command("bash", "-c", ". "+l.dir+"/env.sh && exec curl -sS -i --max-time 30 --http1.1 --resolve \"$CMG_RESOLVE\" --cacert \"$CMG_CA\" "+args)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("curl %s: %v\n%s", args, err, out)
	}
	head, body, _ = strings.Cut(string(out), "\r\n\r\n")
	return head, body
}

// TestCurl is what a person tries first: the list by certificate and by
// token, then what must be refused. Each refusal names its reason in the
// status line, and nothing of it reaches the inside.
func TestCurl(t *testing.T) {
	for _, program := range []string{"curl", "openssl", "bash"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("SKIPPED: this story needs %s: %v", program, err)
		}
	}
	l := startLab(t)
	const certificate, token = ` --cert "$CMG_CLIENT_CERT" --key "$CMG_CLIENT_KEY" `, ` -H "Authorization: Bearer $CMG_TOKEN" `
	const mutual, server = ` "$CMG_URL$CMG_MP_MUTUAL/SMS_MP/.sms_aut?MPLIST" `, ` "$CMG_URL$CMG_MP_SERVER/SMS_MP/.sms_aut?MPLIST" `

	for name, args := range map[string]string{"certificate": certificate + mutual, "token": token + server, "http/2": "--http2" + token + server} {
		head, body := l.curl(t, args)
		if !strings.Contains(head, " 200") || !strings.Contains(body, "<MPList>") {
			t.Errorf("%s: %s\n%s", name, head, body)
		}
	}

	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key"), filepath.Join(dir, "cert")
	if out, err := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=stranger", "-keyout", key, "-out", cert).CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "garbled"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := l.reached(t)
	for name, c := range map[string]struct{ args, status string }{
		"no certificate":       {mutual, "403 CMGService_Client_Certificate_Required"},
		"a stranger's":         {" --cert " + cert + " --key " + key + mutual, "403 CMGService_Certificate_Unknown_Root"},
		"no token":             {server, "401 CMGService_Authentication_Required"},
		"token garbled":        {` -H "Authorization: Bearer ${CMG_TOKEN}x" ` + server, "401 CMGService_Invalid_Token"},
		"token of nothing":     {` -H "Authorization: Bearer a.b.c" ` + server, "401 CMGService_Invalid_Token"},
		"unpublished":          {certificate + ` "$CMG_URL/admin" `, "403 CMGService_Not_Published"},
		"other role id":        {certificate + ` "$CMG_URL/CCM_Proxy_MutualAuth/1/SMS_MP/.sms_aut?MPLIST" `, "403 CMGService_Not_Published"},
		"unpublished endpoint": {certificate + ` "$CMG_URL$CMG_MP_MUTUAL/cmg/v1/map" `, "403 CMGService_Not_Published"},
		"dot segments":         {certificate + ` --path-as-is "$CMG_URL$CMG_MP_MUTUAL/SMS_MP/../cmg/v1/map" `, "400 CMGService_Bad_Request"},
		"method":               {certificate + ` -X DELETE ` + mutual, "405 CMGService_Method_Not_Allowed"},
		"too long":             {certificate + ` -X CCM_POST -H "Content-Length: 99999999" "$CMG_URL$CMG_MP_MUTUAL/ccm_system/request" `, "413 CMGService_Content_Too_Large"},
		"no content token":     {` "$CMG_URL/downloadrestservice.svc/getcontentxmlsecure?pid=$CMG_PACKAGE" `, "401 CMGService_Authentication_Required"},
		"wrong kind of token":  {token + ` "$CMG_URL/downloadrestservice.svc/getcontentxmlsecure?pid=$CMG_PACKAGE" `, "401 CMGService_Invalid_Token"},
	} {
		t.Run(name, func(t *testing.T) {
			head, body := l.curl(t, c.args)
			status, _, _ := strings.Cut(head, "\r\n")
			if !strings.HasPrefix(strings.TrimPrefix(status, "HTTP/1.1 "), c.status) {
				t.Errorf("got %q, want %q\n%s", status, c.status, body)
			}
			if !strings.Contains(strings.ToLower(head), "cmg-request-id: ") {
				t.Errorf("no request id:\n%s", head)
			}
		})
	}
	if after := l.reached(t); after != before {
		t.Errorf("%d refused requests reached the inside", after-before)
	}

	l.kill("connection-point-1")
	l.kill("connection-point-2")
	head, _ := l.curl(t, certificate+mutual)
	if !strings.HasPrefix(head, "HTTP/1.1 503 CMGService_NoConnectionPoint") {
		t.Errorf("without a connection point: %s", head)
	}
}

// reached is how many requests the connection points were handed.
func (l *lab) reached(t *testing.T) (n int) {
	t.Helper()
	for _, name := range []string{"connection-point-1", "connection-point-2"} {
		var s struct {
			Requests int `json:"requests"`
		}
		if err := l.status(name, &s); err != nil {
			t.Fatal(err)
		}
		n += s.Requests
	}
	return n
}
