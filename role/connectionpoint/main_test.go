package connectionpoint

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSite = "LAB"

// patience bounds what a test waits for; nothing takes so long.
const patience = 10 * time.Second

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// eventually waits for a condition that nobody signals.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// within waits for a signal.
func within[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
	return v
}

// A site is what `cmg site init` would make.
type site struct {
	roots, strangers *auth.Authority
	signer, stranger *auth.Identity // of role site, under roots and under strangers
	inner            *auth.Identity // of a server inside, with loopback's address
	gateway          *auth.Identity
}

// theSite is made once: its RSA keys take longer than most tests.
var theSite = sync.OnceValues(func() (*site, error) {
	s := &site{}
	var err error
	for _, a := range []struct {
		into **auth.Authority
		name string
	}{{&s.roots, "site"}, {&s.strangers, "strangers"}} {
		if *a.into, err = auth.NewAuthority(a.name, 10*365*24*time.Hour); err != nil {
			return nil, err
		}
	}
	for _, i := range []struct {
		into **auth.Identity
		by   *auth.Authority
		req  auth.CertRequest
	}{
		{&s.signer, s.roots, auth.CertRequest{Role: cmg.RoleSite, Name: testSite, RSA: true}},
		{&s.stranger, s.strangers, auth.CertRequest{Role: cmg.RoleSite, Name: testSite, RSA: true}},
		{&s.inner, s.roots, auth.CertRequest{Role: cmg.RoleManagementPoint, Name: "mp", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true}},
		{&s.gateway, s.roots, auth.CertRequest{Role: cmg.RoleGateway, Name: "gw-1", Server: true}},
	} {
		i.req.Site = testSite
		c, err := i.by.Issue(i.req)
		if err != nil {
			return nil, err
		}
		if *i.into, err = auth.NewIdentity(c.CertPEM, c.KeyPEM, pemOf(i.by)); err != nil {
			return nil, err
		}
	}
	return s, nil
})

func pemOf(a *auth.Authority) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
}

func getSite(t testing.TB) *site { return must[*site](t)(theSite()) }

// document makes a map with pairs of prefix and target, signed by id.
func (s *site) document(t testing.TB, id *auth.Identity, version uint64, pairs ...string) []byte {
	m := cmg.Map{Publication: must[string](t)(auth.SignPublication(id, cmg.Publication{Version: version, Site: testSite, Issued: time.Now()}))}
	for i := 0; i < len(pairs); i += 2 {
		m.Mappings = append(m.Mappings, cmg.Mapping{Prefix: pairs[i], Target: pairs[i+1]})
	}
	return must[[]byte](t)(json.Marshal(m))
}

// saved issues a certificate into files and gives their names.
func saved(t testing.TB, a *auth.Authority, r auth.CertRequest) (cert, key string) {
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "x.crt"), filepath.Join(dir, "x.key")
	if err := must[auth.Issued](t)(a.Issue(r)).Save(cert, key); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func written(t testing.TB, b []byte) string {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// config makes the configuration of a connection point whose map is a file
// with pairs of prefix and target. It looks for new maps often.
func (s *site) config(t testing.TB, gateway string, pairs ...string) Config {
	cert, key := saved(t, s.roots, auth.CertRequest{Site: testSite, Role: cmg.RoleConnectionPoint, Name: "cp-1", Client: true})
	return Config{
		Gateways: Plain(gateway), Identity: auth.IdentityFiles{Certificate: cert, Key: key, Roots: written(t, pemOf(s.roots))},
		Map: written(t, s.document(t, s.signer, 1, pairs...)), StateDir: filepath.Join(t.TempDir(), "state"),
		Connections: 1, MapEvery: 20 * time.Millisecond, Drain: 5 * time.Second,
	}
}

// settings makes TLS settings of a server with a certificate of a.
func settings(t testing.TB, a *auth.Authority, r auth.CertRequest) *tls.Config {
	r.IPs, r.Server = []net.IP{net.IPv4(127, 0, 0, 1)}, true
	c := must[auth.Issued](t)(a.Issue(r))
	return &tls.Config{Certificates: []tls.Certificate{must[tls.Certificate](t)(tls.X509KeyPair(c.CertPEM, c.KeyPEM))}}
}

// noise is a body that differs everywhere.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}
