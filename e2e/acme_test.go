package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tool finds a server that .ci/needs builds.
func tool(t *testing.T, name string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	p, err := filepath.Abs("../bin/needs/" + name)
	if err == nil {
		_, err = os.Stat(p)
	}
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	} else if err != nil {
		t.Skipf("SKIPPED: this story needs %s, which .ci/needs builds", name)
	}
	return p
}

// background runs a program until the test ends, and shows the end of what it
// said if the test fails.
func background(t *testing.T, log string, program string, args ...string) {
	t.Helper()
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, args...)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		out.Close()
		if b, _ := os.ReadFile(log); t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(log), b[max(0, len(b)-3000):])
		}
	})
}

// TestACME has a gateway fetch the certificate that its clients meet from a
// real ACME server, over the clients' port.
func TestACME(t *testing.T) {
	needs(t, "openssl")
	pebble, names := tool(t, "pebble"), tool(t, "pebble-challtestsrv")
	b, err := built()
	if err != nil {
		t.Fatal(err)
	}
	p := newPKI(t)
	p.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "api.key", "-out", "api.pem", "-days", "5", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
	api, manage, dns, dnsManage, clients, status := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	p.write("pebble.json", fmt.Sprintf(`{"pebble": {"listenAddress": "127.0.0.1:%s", "managementListenAddress": "127.0.0.1:%s", "certificate": %q, "privateKey": %q,
		"httpPort": 1, "tlsPort": %s, "profiles": {"default": {"description": "ninety days", "validityPeriod": 7776000}}}}`, api, manage, p.file("api.pem"), p.file("api.key"), clients))
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	background(t, p.file("names.log"), names, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", "127.0.0.1:"+dns, "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", "127.0.0.1:"+dnsManage)
	background(t, p.file("pebble.log"), pebble, "-config", p.file("pebble.json"), "-dnsserver", "127.0.0.1:"+dns)

	site := filepath.Join(p.dir, "site")
	must(t, "site", "init", "--dir", site, "--code", "ACM", "--gateway", "gw.example.com")
	must(t, "site", "issue", "gateway", "--site", site, "--name", "gateway-1", "--host", "gw.example.com", "--out", p.file("gw"))
	p.write("gateway.yaml", strings.NewReplacer("CLIENTS", clients, "STATUS", status, "API", api, "DIR", p.dir).Replace(`
gateway:
  listen: 127.0.0.1:CLIENTS
  channel: none
  identity: {certificate: DIR/gw/gateway-1.crt, key: DIR/gw/gateway-1.key, roots: DIR/gw/roots.crt}
  state_dir: DIR/state
  status: 127.0.0.1:STATUS
  acme: {hosts: [gw.example.com], directory: "https://localhost:API/dir", accept: true, roots: DIR/api.pem}
`))
	background(t, p.file("gateway.log"), b, "gateway", "--config", p.file("gateway.yaml"))

	until := func(what string, f func() error) {
		t.Helper()
		for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
			err := f()
			if err == nil {
				return
			}
			if time.Since(began) > 90*time.Second {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	until("the certificate is fetched", func() error {
		resp, err := http.Get("http://127.0.0.1:" + status + "/status")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var s struct {
			Certificate struct {
				NotAfter time.Time `json:"not_after"`
				Alert    int
				Problem  string
			}
		}
		if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
			return err
		}
		if s.Certificate.NotAfter.IsZero() || s.Certificate.Alert != -1 {
			return errors.New(s.Certificate.Problem)
		}
		return nil
	})
	roots := x509.NewCertPool()
	api2 := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := api2.Get("https://localhost:" + manage + "/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	root, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	roots.AppendCertsFromPEM(root)
	conn, err := tls.Dial("tcp", "127.0.0.1:"+clients, &tls.Config{RootCAs: roots, ServerName: "GW.Example.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if names := conn.ConnectionState().PeerCertificates[0].DNSNames; len(names) != 1 || names[0] != "gw.example.com" {
		t.Errorf("the certificate is for %v", names)
	}
}
