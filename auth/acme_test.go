package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// program finds a tool that .ci/needs installs. CI may not go without.
func program(t *testing.T, name string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	p, err := filepath.Abs("../bin/needs/" + name)
	if err == nil {
		_, err = os.Stat(p)
	}
	if err == nil {
		return p
	}
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skipf("SKIPPED: this test needs %s, which .ci/needs installs", name)
	return ""
}

func port(t *testing.T) string {
	t.Helper()
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	_, p, _ := net.SplitHostPort(ln.Addr().String())
	return p
}

// pebble starts a real ACME server that finds every name on this machine, and
// gives its directory and the root that signs what it issues.
func pebble(t *testing.T, in func(string) string, tlsPort, httpPort string) (directory string, root func() *x509.CertPool) {
	server, dns := program(t, "pebble"), program(t, "pebble-challtestsrv")
	api, manage, names, dnsManage := port(t), port(t), port(t), port(t)
	ca := newAuthority(t, "pebble's own")
	if err := issue(t, ca, CertRequest{Name: "pebble", DNS: []string{"localhost"}, Server: true}).Save(in("pebble.pem"), in("pebble.key")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("roots.pem"), certificatePEM(ca.cert), 0o600); err != nil {
		t.Fatal(err)
	}
	number := func(s string) json.Number { return json.Number(s) }
	conf := must[[]byte](t)(json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": "127.0.0.1:" + api, "managementListenAddress": "127.0.0.1:" + manage,
		"certificate": in("pebble.pem"), "privateKey": in("pebble.key"), "httpPort": number(httpPort), "tlsPort": number(tlsPort),
		"profiles": map[string]any{"default": map[string]any{"description": "ninety days", "validityPeriod": 7776000}},
	}}))
	if err := os.WriteFile(in("pebble.json"), conf, 0o600); err != nil {
		t.Fatal(err)
	}
	start := func(env string, args ...string) {
		log := must[*os.File](t)(os.Create(in(filepath.Base(args[0]) + ".log")))
		c := exec.Command(args[0], args[1:]...)
		c.Env, c.Stdout, c.Stderr = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", env), log, log
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			c.Process.Kill()
			c.Wait()
			log.Close()
			if b, _ := os.ReadFile(log.Name()); t.Failed() {
				t.Logf("%s:\n%s", args[0], b[max(0, len(b)-3000):])
			}
		})
	}
	start("", dns, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dnsserver", "127.0.0.1:"+names, "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "", "-management", "127.0.0.1:"+dnsManage)
	start("PEBBLE_WFE_NONCEREJECT=5", server, "-config", in("pebble.json"), "-dnsserver", "127.0.0.1:"+names)
	settings := must[*tls.Config](t)(ClientTo(ClientFiles{Roots: in("roots.pem")}))
	tr := &http.Transport{TLSClientConfig: settings}
	t.Cleanup(tr.CloseIdleConnections)
	client := &http.Client{Transport: tr}
	get := func(url string) ([]byte, error) {
		resp, err := client.Get(url)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		return io.ReadAll(resp.Body)
	}
	directory = "https://localhost:" + api + "/dir"
	eventually(t, "pebble is up", func() error { _, err := get(directory); return err })
	return directory, func() *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(must[[]byte](t)(get("https://localhost:" + manage + "/roots/0")))
		return pool
	}
}

// eventually waits for what has to come true; its limit is no measurement.
func eventually(t *testing.T, what string, f func() error) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// TestACME fetches and renews certificates from a real ACME server, with two
// instances of one gateway behind one name.
func TestACME(t *testing.T) {
	for _, challenge := range []string{challengeTLS, challengeWeb} {
		t.Run(challenge, func(t *testing.T) {
			in := inDir(t)
			ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
			defer ln.Close()
			_, tlsPort, _ := net.SplitHostPort(ln.Addr().String())
			httpPort := port(t)
			directory, root := pebble(t, in, tlsPort, httpPort)
			var ahead atomic.Int64
			conf := FrontConfig{
				Every: 20 * time.Millisecond, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
				Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
				ACME: ACMEConfig{Hosts: []string{"GW.example.com", "alias.example.com"}, Directory: directory, Email: "admin@example.com", Accept: true,
					Challenge: challenge, HTTP: "127.0.0.1:" + httpPort, Dir: in("acme"), Roots: in("roots.pem")},
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			var fronts []*Front
			for range 2 {
				f := must[*Front](t)(NewFront(conf))
				f.acme.look = 50 * time.Millisecond
				fronts = append(fronts, f)
				if _, err := seenBy(t, f, "gw.example.com"); err == nil {
					t.Error("there is a certificate before there is one")
				}
				wg.Go(func() { f.Run(ctx) })
			}
			// Whoever the authority's question meets has to answer it.
			wg.Go(func() {
				for n := 0; ; n++ {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					wg.Go(func() {
						defer c.Close()
						c.SetDeadline(time.Now().Add(5 * time.Second))
						tls.Server(c, fronts[n%2].Settings()).Handshake()
					})
				}
			})
			defer ln.Close()
			var serials [2]string
			for n, f := range fronts {
				eventually(t, "the certificate is there", func() error {
					if st := f.Status(); st.NotAfter.IsZero() || st.Problem != "" {
						return fmt.Errorf("%+v", st)
					}
					return nil
				})
				leaf := must[*x509.Certificate](t)(seenBy(t, f, "Alias.Example.com"))
				serials[n] = leaf.SerialNumber.String()
				between := x509.NewCertPool()
				for _, c := range f.served.Load().now.pair.Certificate[1:] {
					between.AddCert(must[*x509.Certificate](t)(x509.ParseCertificate(c)))
				}
				for _, name := range []string{"gw.example.com", "alias.example.com"} {
					if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: root(), Intermediates: between}); err != nil {
						t.Error(err)
					}
				}
			}
			if serials[0] != serials[1] {
				t.Error("each instance has fetched a certificate of its own")
			}
			ahead.Store(int64(61 * day)) // of ninety
			for _, f := range fronts {
				eventually(t, "the certificate is renewed", func() error {
					if leaf := must[*x509.Certificate](t)(seenBy(t, f, "gw.example.com")); leaf.SerialNumber.String() == serials[0] {
						return fmt.Errorf("it is the first one still")
					}
					return nil
				})
				break // its authority's clock is not ours: the new one would be renewed at once, again and again
			}
			files, _ := filepath.Glob(in("acme/*"))
			for _, file := range files {
				if info := must[os.FileInfo](t)(os.Stat(file)); info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s can be read by others", file)
				}
			}
		})
	}
}

func TestACMEConfig(t *testing.T) {
	good := ACMEConfig{Hosts: []string{"gw.example.com"}, Accept: true, Dir: t.TempDir()}
	if _, err := newACME(good, nil, time.Now); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*ACMEConfig){
		"terms":     func(c *ACMEConfig) { c.Accept = false },
		"wildcard":  func(c *ACMEConfig) { c.Hosts = []string{"*.example.com"} },
		"path":      func(c *ACMEConfig) { c.Hosts = []string{"../x"} },
		"http":      func(c *ACMEConfig) { c.Directory = "http://acme.example" },
		"challenge": func(c *ACMEConfig) { c.Challenge = "dns-01" },
		"no folder": func(c *ACMEConfig) { c.Dir = "" },
		"roots":     func(c *ACMEConfig) { c.Roots = "/nowhere" },
	} {
		c := good
		if change(&c); func() error { _, err := newACME(c, nil, time.Now); return err }() == nil {
			t.Errorf("%s was taken", name)
		}
	}
	for token, want := range map[string]bool{"abc-_09": true, "": false, "../x": false, "a/b": false, "a.b": false, strings.Repeat("a", 129): false} {
		if plainToken(token) != want {
			t.Errorf("%q: %v", token, !want)
		}
	}
}
