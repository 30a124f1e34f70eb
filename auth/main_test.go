package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	day      = 24 * time.Hour
	testSite = "LAB"
	deviceA  = cmg.DeviceID("GUID:0F0E0D0C-0B0A-4908-8706-050403020100")
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	return must[*Authority](t)(NewAuthority(name, 10*yearOfDays))
}

func issue(t testing.TB, a *Authority, r CertRequest) Issued {
	t.Helper()
	return must[Issued](t)(a.Issue(r))
}

// identity makes an identity of the test site that passes every check.
func identity(t testing.TB, a *Authority, role cmg.RoleKind, name string) *Identity {
	t.Helper()
	r := CertRequest{Site: testSite, Role: role, Name: name, DNS: []string{name, "localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, Client: true}
	if role == cmg.RoleSite {
		r = CertRequest{Site: testSite, Role: role, Name: name, RSA: true}
	}
	i := issue(t, a, r)
	return must[*Identity](t)(NewIdentity(i.CertPEM, i.KeyPEM, certificatePEM(a.Certificate())))
}

// unchecked makes an identity of any certificate, also of one that
// NewIdentity would refuse.
func unchecked(t testing.TB, i Issued, roots *Authority) *Identity {
	t.Helper()
	pair := must[tls.Certificate](t)(tls.X509KeyPair(i.CertPEM, i.KeyPEM))
	id := &Identity{pair: pair, chain: []*x509.Certificate{i.Certificate}, roots: x509.NewCertPool(), now: time.Now}
	id.roots.AddCert(roots.Certificate())
	id.name, _ = RoleOf(i.Certificate)
	return id
}

// wantCode checks the code and status of a refusal; an empty code wants none.
func wantCode(t *testing.T, err error, status int, code string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Fatalf("got %v, want no refusal", err)
		}
		return
	}
	var r *cmg.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want refusal %s", err, code)
	}
	if r.Code != code || r.Status != status {
		t.Fatalf("got %d %s (%v), want %d %s", r.Status, r.Code, err, status, code)
	}
}

// wantKind checks the kind of an error; nil wants none.
func wantKind(t *testing.T, err, kind error) {
	t.Helper()
	if kind == nil && err != nil || kind != nil && !errors.Is(err, kind) {
		t.Fatalf("got %v, want %v", err, kind)
	}
}

// met is what the two ends of a handshake found.
type met struct {
	client, server       tls.ConnectionState
	clientErr, serverErr error
}

// handshake lets two settings meet over a real socket. Each end also passes a
// byte, since a TLS 1.3 client learns of a refusal only when it reads.
func handshake(t *testing.T, server, client *tls.Config) (m met) {
	t.Helper()
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	end := func(c *tls.Conn) (tls.ConnectionState, error) {
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if err := c.Handshake(); err != nil {
			return tls.ConnectionState{}, err
		}
		if _, err := c.Write([]byte{1}); err != nil {
			return tls.ConnectionState{}, err
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return c.ConnectionState(), err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			m.serverErr = err
			return
		}
		m.server, m.serverErr = end(tls.Server(c, server))
	})
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if !client.InsecureSkipVerify && client.ServerName == "" {
		client = client.Clone()
		client.ServerName = "localhost"
	}
	m.client, m.clientErr = end(tls.Client(c, client))
	wg.Wait()
	return m
}

// openssl runs the tool in dir; without it the test is skipped.
func openssl(t *testing.T, dir string, args ...string) {
	t.Helper()
	tool, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: no openssl here")
	}
	c := exec.Command(tool, args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, out)
	}
}

func inDir(t testing.TB) func(name string) string {
	dir := t.TempDir()
	return func(name string) string { return filepath.Join(dir, name) }
}
