package gateway

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
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

const (
	testSite = "LAB"
	deviceID = cmg.DeviceID("GUID:0F0E0D0C-0B0A-4908-8706-050403020100")
	mutual   = cmg.PrefixMutualAuth + "72057594037927937"
	server   = cmg.PrefixServerAuth + "72057594037927937"
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

// A site is what `cmg site init` would make: authorities, keys, signer.
type site struct {
	code                      string
	roots, clients, strangers *auth.Authority
	signer, stranger          *auth.Identity // of role site, under roots and under strangers
	keys                      *auth.Keyring
	device, lapsed, unknown   tls.Certificate // client certificates: good, expired, of another authority
}

// theSite is made once: its RSA keys take longer than most tests.
var theSite = sync.OnceValues(func() (*site, error) { return newSite(testSite) })

func newSite(code string) (*site, error) {
	const decade = 10 * 365 * 24 * time.Hour
	s := &site{code: code}
	var err error
	for _, a := range []struct {
		into **auth.Authority
		name string
	}{{&s.roots, "site"}, {&s.clients, "clients"}, {&s.strangers, "strangers"}} {
		if *a.into, err = auth.NewAuthority(a.name, decade); err != nil {
			return nil, err
		}
	}
	for _, i := range []struct {
		into **auth.Identity
		by   *auth.Authority
	}{{&s.signer, s.roots}, {&s.stranger, s.strangers}} {
		c, err := i.by.Issue(auth.CertRequest{Site: code, Role: cmg.RoleSite, Name: code, RSA: true})
		if err != nil {
			return nil, err
		}
		if *i.into, err = auth.NewIdentity(c.CertPEM, c.KeyPEM, pemOf(i.by)); err != nil {
			return nil, err
		}
	}
	for _, d := range []struct {
		into *tls.Certificate
		by   *auth.Authority
		req  auth.CertRequest
	}{
		{&s.device, s.clients, auth.CertRequest{Site: code, Device: deviceID}},
		{&s.lapsed, s.clients, auth.CertRequest{Site: code, Device: deviceID, NotBefore: time.Now().Add(-2 * time.Hour), Life: time.Hour}},
		{&s.unknown, s.strangers, auth.CertRequest{Site: code, Device: deviceID}},
	} {
		c, err := d.by.Issue(d.req)
		if err != nil {
			return nil, err
		}
		if *d.into, err = tls.X509KeyPair(c.CertPEM, c.KeyPEM); err != nil {
			return nil, err
		}
	}
	s.keys, err = auth.NewKeyring()
	return s, err
}

func pemOf(a *auth.Authority) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
}

func getSite(t testing.TB) *site { return must[*site](t)(theSite()) }

// publication signs routes for the published prefixes and a few of the
// tests' own.
func (s *site) publication(t testing.TB, version uint64, more ...cmg.Route) (uint64, []byte) {
	return version, []byte(must[string](t)(auth.SignPublication(s.signer, s.content(version, more...))))
}

func (s *site) content(version uint64, more ...cmg.Route) cmg.Publication {
	any := []string{"GET", "HEAD", "OPTIONS", "PROPFIND", "PUT", "DELETE", "POST", "CCM_POST", "BITS_POST"}
	proofs := []cmg.Proof{cmg.ProofCertificate, cmg.ProofToken}
	return cmg.Publication{
		Version: version, Site: s.code, Issued: time.Now().UTC().Truncate(time.Second),
		Routes: append(append(cmg.ManagementPointRoutes(72057594037927937),
			cmg.Route{Prefix: "/any", Methods: any, Proofs: proofs, MaxBody: 64 << 20, Name: "any"},
			cmg.Route{Prefix: "/idem", Methods: any, Proofs: proofs, MaxBody: 64 << 20, Idempotent: true, Name: "idem"},
			cmg.Route{Prefix: "/small", Methods: any, Proofs: proofs, MaxBody: 1000, Name: "small"},
		), more...),
		Anchors: []string{string(pemOf(s.clients))},
		Keys:    s.keys.PublicKeys(),
	}
}

func (s *site) token(t testing.TB, kind auth.TokenKind, from, until time.Duration) string {
	c := auth.Claims{Kind: kind, Site: s.code, Device: deviceID, NotBefore: time.Now().Add(from), Expires: time.Now().Add(until)}
	return must[string](t)(s.keys.Issue(c))
}

// session is a good session token.
func (s *site) session(t testing.TB) string { return s.token(t, auth.TokenSession, 0, time.Hour) }

// point makes the identity of a connection point.
func (s *site) point(t testing.TB, name string) *auth.Identity {
	c := must[auth.Issued](t)(s.roots.Issue(auth.CertRequest{Site: s.code, Role: cmg.RoleConnectionPoint, Name: name, Client: true}))
	return must[*auth.Identity](t)(auth.NewIdentity(c.CertPEM, c.KeyPEM, pemOf(s.roots)))
}

// config writes a gateway's files and gives the configuration that names
// them, on ports that the system chooses.
func (s *site) config(t testing.TB) Config {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	save := func(name string, r auth.CertRequest) *x509.Certificate {
		c := must[auth.Issued](t)(s.roots.Issue(r))
		if err := c.Save(path(name+".crt"), path(name+".key")); err != nil {
			t.Fatal(err)
		}
		return c.Certificate
	}
	save("front", auth.CertRequest{Name: "gw.cmg.test", DNS: []string{"gw.cmg.test"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true})
	save("own", auth.CertRequest{Site: s.code, Role: cmg.RoleGateway, Name: "gw-1", Server: true})
	if err := os.WriteFile(path("roots.crt"), pemOf(s.roots), 0o600); err != nil {
		t.Fatal(err)
	}
	return Config{
		Listen: "127.0.0.1:0", Channel: "127.0.0.1:0", Certificate: path("front.crt"), Key: path("front.key"),
		Identity: auth.IdentityFiles{Certificate: path("own.crt"), Key: path("own.key"), Roots: path("roots.crt")},
		StateDir: path("state"), Drain: 5 * time.Second,
	}
}

// noise is a body that compresses badly and differs everywhere.
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

func sameBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %.60q; want %d, %.60q", what, len(got), got, len(want), want)
	}
}
