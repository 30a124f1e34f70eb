package e2e

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ask makes a GET with a token, if there is one, and gives the code of the
// refusal, or "200 OK" and the like.
func ask(t *testing.T, c *http.Client, url, token string) (code, id string) {
	t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err.Error(), ""
	}
	defer resp.Body.Close()
	if code = resp.Header.Get("CMG-Refusal"); code == "" {
		code = resp.Status
	}
	return code, resp.Header.Get("CMG-Request-Id")
}

// version is the publication that a gateway has.
func (l *lab) version(name string) (v uint64, blocks int, err error) {
	var s struct {
		Publication struct {
			Version uint64 `json:"version"`
			Blocks  int    `json:"blocks"`
		} `json:"publication"`
	}
	err = l.status(name, &s)
	return s.Publication.Version, s.Publication.Blocks, err
}

// known waits until both gateways have so many blocks, and says how long that
// took from a time on.
func (l *lab) known(blocks int, from time.Time) time.Duration {
	l.t.Helper()
	l.until(fmt.Sprintf("both gateways know %d blocks", blocks), func() error {
		for _, gw := range []string{"gateway-1", "gateway-2"} {
			v, n, err := l.version(gw)
			if err != nil || n != blocks {
				return fmt.Errorf("%s has %d in version %d: %w", gw, n, v, err)
			}
		}
		return nil
	})
	return time.Since(from)
}

// TestBlocking shuts out a device, a certificate and a token, live connections
// too; then it takes the site away and the gateways go on: they serve whom
// they know and refuse whom they were told to.
func TestBlocking(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "shop") }))
	defer origin.Close()
	l := startLab(t, "--map", "/shop="+origin.URL)
	site := filepath.Join(l.dir, "site")
	cli := func(args ...string) string { t.Helper(); return must(t, append(args, "--site", site)...) }
	var devices []struct{ ID, Name string }
	if err := json.Unmarshal([]byte(cli("device", "list", "--json")), &devices); err != nil || len(devices) != 3 {
		t.Fatalf("%d devices, %v", len(devices), err)
	}
	token := map[string]string{}
	device := map[string]string{}
	for _, d := range devices {
		device[d.Name] = d.ID
		token[d.Name] = strings.TrimSpace(cli("token", "session", d.ID))
	}
	shop, lists := l.env["CMG_URL"]+"/shop/x", l.env["CMG_URL"]+l.env["CMG_MP_SERVER"]+"/SMS_MP/.sms_aut?MPLIST"
	byToken, byCertificate := l.client(false), l.client(true)
	want := func(what string, c *http.Client, url, token, code string) (id string) {
		t.Helper()
		got, id := ask(t, c, url, token)
		if got != code {
			t.Errorf("%s: %s, want %s", what, got, code)
		}
		return id
	}
	// fresh opens a connection for each request, so that both instances answer.
	fresh := func(what, url, token, code string) {
		t.Helper()
		for range 16 {
			c := l.client(false)
			want(what, c, url, token, code)
			c.CloseIdleConnections()
		}
	}
	want("before", byToken, shop, token["agent-2"], "200 OK") // its connection stays open
	want("before", byCertificate, l.env["CMG_URL"]+"/shop/x", "", "200 OK")

	began := time.Now()
	cli("device", "block", device["agent-2"], "--reason", "lost")
	took := l.known(1, began)
	t.Logf("a blocked device reached two gateways in %v, the command's own time included", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("it took %v, and at most 5 s are allowed", took)
	}
	id := want("live connection of a blocked device", byToken, shop, token["agent-2"], "CMGService_Blocked_Device")
	fresh("blocked device", lists, token["agent-2"], "CMGService_Blocked_Device")
	fresh("another device", shop, token["agent-3"], "200 OK")
	if text := cli("explain", id); !strings.Contains(text, "CMGService_Blocked_Device") || !strings.Contains(text, device["agent-2"]) || !strings.Contains(text, "unblock") {
		t.Errorf("explain:\n%s", text)
	}

	b, err := os.ReadFile(l.env["CMG_CLIENT_CERT"])
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	cli("certificate", "block", cert.SerialNumber.Text(16))
	t.Logf("a blocked certificate reached two gateways in %v", l.known(2, began).Round(time.Millisecond))
	want("live connection by a blocked certificate", byCertificate, shop, "", "CMGService_Blocked_Certificate")
	cli("certificate", "unblock", cert.SerialNumber.Text(16))
	l.known(1, time.Now())
	want("the same after it was lifted", byCertificate, shop, "", "200 OK")

	var tokens []struct{ ID, Device string }
	if err := json.Unmarshal([]byte(cli("token", "list", "--kind", "session", "--json")), &tokens); err != nil {
		t.Fatal(err)
	}
	for _, tok := range tokens { // the newest first
		if tok.Device == device["agent-3"] {
			cli("token", "block", tok.ID)
			break
		}
	}
	l.known(2, time.Now())
	fresh("blocked token", shop, token["agent-3"], "CMGService_Blocked_Token")

	// The site goes away: first the management point, then all of it.
	l.kill("management-point-1")
	fresh("a known caller while the site is away", shop, token["agent-1"], "200 OK")
	fresh("a blocked device while the site is away", shop, token["agent-2"], "CMGService_Blocked_Device")
	for _, name := range []string{"connection-point-1", "connection-point-2", "gateway-1", "gateway-2"} {
		l.kill(name)
	}
	for _, name := range []string{"gateway-1", "gateway-2"} {
		l.again(name)
		l.until(name+" lives", func() error { return l.local(name, "/livez", nil) })
	}
	fresh("a blocked device at instances that never met their site", shop, token["agent-2"], "CMGService_Blocked_Device")
	for _, name := range []string{"management-point-1", "connection-point-1", "connection-point-2"} {
		l.again(name)
		l.until(name+" is ready again", func() error { return l.ready(name) })
	}
	cli("device", "unblock", device["agent-2"])
	l.known(1, time.Now())
	fresh("the device after all", shop, token["agent-2"], "200 OK")

	if out := cli("audit", "verify"); !strings.Contains(out, "whole") {
		t.Errorf("audit verify: %s", out)
	}
	if out := cli("audit", "list"); strings.Count(out, "device.block") != 1 || strings.Count(out, "device.unblock") != 1 || strings.Count(out, "device.register") < 3 {
		t.Errorf("audit list:\n%s", out)
	}
}
