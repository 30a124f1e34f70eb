package auth

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

func TestIssue(t *testing.T) {
	a := newAuthority(t, "LAB site CA")
	for _, test := range []struct {
		name   string
		r      CertRequest
		want   RoleName
		cn     string
		usages []x509.ExtKeyUsage
		rsa    bool
		err    error
	}{
		{"gateway", CertRequest{Site: "LAB", Role: cmg.RoleGateway, Name: "gw1.example.com", Server: true, Client: true},
			RoleName{"LAB", cmg.RoleGateway, "gw1.example.com"}, "gw1.example.com", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, false, nil},
		{"site signs only", CertRequest{Site: "LAB", Role: cmg.RoleSite, Name: "LAB", RSA: true},
			RoleName{"LAB", cmg.RoleSite, "LAB"}, "LAB", nil, true, nil},
		{"device", CertRequest{Site: "LAB", Device: deviceA},
			RoleName{"LAB", cmg.RoleAgent, deviceA.GUID()}, string(deviceA), []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, false, nil},
		{"device with a host name", CertRequest{Site: "LAB", Role: cmg.RoleAgent, Device: deviceA, Name: "PC7"},
			RoleName{"LAB", cmg.RoleAgent, deviceA.GUID()}, "PC7", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, false, nil},
		{"client that is no device yet", CertRequest{Name: "PC8", Client: true},
			RoleName{}, "PC8", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, false, nil},
		{"nobody", CertRequest{Client: true}, RoleName{}, "", nil, false, cmg.ErrInvalid},
		{"name with a slash", CertRequest{Site: "LAB", Role: cmg.RoleGateway, Name: "a/../b"}, RoleName{}, "", nil, false, cmg.ErrInvalid},
		{"role without site", CertRequest{Role: cmg.RoleGateway, Name: "gw"}, RoleName{}, "", nil, false, cmg.ErrInvalid},
		{"device as gateway", CertRequest{Site: "LAB", Role: cmg.RoleGateway, Device: deviceA}, RoleName{}, "", nil, false, cmg.ErrInvalid},
		{"no device id", CertRequest{Site: "LAB", Device: "GUID:1"}, RoleName{}, "", nil, false, cmg.ErrInvalid},
		{"after the authority's end", CertRequest{Name: "x", NotBefore: time.Now().Add(11 * yearOfDays)}, RoleName{}, "", nil, false, cmg.ErrConflict},
	} {
		t.Run(test.name, func(t *testing.T) {
			i, err := a.Issue(test.r)
			wantKind(t, err, test.err)
			if err != nil {
				return
			}
			c := i.Certificate
			got, ok := RoleOf(c)
			if got != test.want || ok != (test.want != RoleName{}) {
				t.Errorf("role %v, want %v", got, test.want)
			}
			if c.Subject.CommonName != test.cn {
				t.Errorf("common name %q, want %q", c.Subject.CommonName, test.cn)
			}
			if d := cmp.Diff(test.usages, c.ExtKeyUsage); d != "" {
				t.Errorf("usages (-want +got):\n%s", d)
			}
			if _, ok := c.PublicKey.(*rsa.PublicKey); ok != test.rsa {
				t.Errorf("key is %T", c.PublicKey)
			}
			if life := c.NotAfter.Sub(c.NotBefore); life != yearOfDays {
				t.Errorf("life %v, want a year", life)
			}
			roots := x509.NewCertPool()
			roots.AddCert(a.Certificate())
			if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
				t.Errorf("verify: %v", err)
			}
		})
	}
}

// A certificate that names no usage would serve for every usage.
func TestSigningCertificateIsNotForTLS(t *testing.T) {
	a := newAuthority(t, "ca")
	c := issue(t, a, CertRequest{Site: "LAB", Role: cmg.RoleSite, Name: "LAB"}).Certificate
	roots := x509.NewCertPool()
	roots.AddCert(a.Certificate())
	for _, u := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{u}}); err == nil {
			t.Errorf("usage %d passes", u)
		}
	}
}

func TestIssueNeverOutlivesAuthority(t *testing.T) {
	a := must[*Authority](t)(NewAuthority("short", day))
	c := issue(t, a, CertRequest{Name: "x", Client: true}).Certificate
	if c.NotAfter.After(a.Certificate().NotAfter) {
		t.Errorf("ends %v, the authority %v", c.NotAfter, a.Certificate().NotAfter)
	}
}

func TestNewAuthorityChecks(t *testing.T) {
	_, err := NewAuthority("", day)
	wantKind(t, err, cmg.ErrInvalid)
	_, err = NewAuthority("x", 0)
	wantKind(t, err, cmg.ErrInvalid)
}

func TestSaveAndLoadAuthority(t *testing.T) {
	in := inDir(t)
	a := newAuthority(t, "LAB site CA")
	if err := a.Save(in("ca.pem"), in("ca.key")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(in("ca.key")); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("key file: %v %v, want mode 0600", info.Mode(), err)
	}
	before := must[[]byte](t)(os.ReadFile(in("ca.key")))
	wantKind(t, newAuthority(t, "other").Save(in("ca.pem"), in("ca.key")), cmg.ErrConflict)
	wantKind(t, newAuthority(t, "other").Save(in("ca.pem"), in("new.key")), cmg.ErrConflict)
	if _, err := os.Stat(in("new.key")); err == nil {
		t.Error("half of a refused save is left behind")
	}
	if after := must[[]byte](t)(os.ReadFile(in("ca.key"))); string(after) != string(before) {
		t.Error("the key was overwritten")
	}

	b := must[*Authority](t)(LoadAuthority(in("ca.pem"), in("ca.key")))
	if err := issue(t, b, CertRequest{Name: "x", Client: true}).Certificate.CheckSignatureFrom(a.Certificate()); err != nil {
		t.Error(err)
	}
}

func TestLoadAuthoritySaysWhichFile(t *testing.T) {
	in := inDir(t)
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	leaf := issue(t, a, CertRequest{Name: "leaf", Client: true})
	for _, save := range []error{a.Save(in("a.pem"), in("a.key")), b.Save(in("b.pem"), in("b.key")), leaf.Save(in("leaf.pem"), in("leaf.key")),
		os.WriteFile(in("junk.pem"), []byte("nothing"), 0o600), os.WriteFile(in("huge.pem"), make([]byte, maxFile+1), 0o600)} {
		if save != nil {
			t.Fatal(save)
		}
	}
	for _, test := range []struct{ cert, key, say string }{
		{"none.pem", "a.key", "none.pem"},
		{"a.pem", "none.key", "none.key"},
		{"a.pem", "b.key", "b.key does not serve"},
		{"leaf.pem", "leaf.key", "may not issue"},
		{"junk.pem", "a.key", "no PEM certificate"},
		{"huge.pem", "a.key", "too large"},
	} {
		if _, err := LoadAuthority(in(test.cert), in(test.key)); err == nil || !strings.Contains(err.Error(), test.say) {
			t.Errorf("%s with %s: got %v, want it to say %q", test.cert, test.key, err, test.say)
		}
	}
}

// OpenSSL accepts what we issue, and we issue under an authority it made.
func TestOpenSSL(t *testing.T) {
	in := inDir(t)
	dir := filepath.Dir(in("x"))
	a := newAuthority(t, "LAB site CA")
	i := issue(t, a, CertRequest{Site: "LAB", Role: cmg.RoleManagementPoint, Name: "mp.example.com", DNS: []string{"mp.example.com"}, Server: true})
	if err := a.Save(in("ca.pem"), in("ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := i.Save(in("mp.pem"), in("mp.key")); err != nil {
		t.Fatal(err)
	}
	openssl(t, dir, "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "mp.example.com", "-CAfile", "ca.pem", "mp.pem")

	openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key", "-out", "root.pem", "-days", "30", "-subj", "/CN=Company Root")
	openssl(t, dir, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "sub.key", "-out", "sub.csr", "-subj", "/CN=Company Clients")
	if err := os.WriteFile(in("ca.ext"), []byte("basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	openssl(t, dir, "x509", "-req", "-in", "sub.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "20", "-extfile", "ca.ext", "-out", "sub.pem")
	sub := must[*Authority](t)(LoadAuthority(in("sub.pem"), in("sub.key")))
	leaf := issue(t, sub, CertRequest{Site: "LAB", Device: deviceA})
	if cs := must[[]*x509.Certificate](t)(certificatesIn(leaf.CertPEM)); len(cs) != 2 {
		t.Errorf("%d certificates issued under an intermediate, want it to go along", len(cs))
	}
	if _, ok := leaf.Certificate.PublicKey.(*ecdsa.PublicKey); !ok {
		t.Errorf("key is %T", leaf.Certificate.PublicKey)
	}
	if err := leaf.Save(in("leaf.pem"), in("leaf.key")); err != nil {
		t.Fatal(err)
	}
	openssl(t, dir, "verify", "-purpose", "sslclient", "-CAfile", "root.pem", "-untrusted", "sub.pem", "leaf.pem")
}

func TestRoleOf(t *testing.T) {
	for _, test := range []struct {
		name string
		uris []string
		want RoleName
	}{
		{"plain", []string{"cmg://LAB/gateway/gw1"}, RoleName{"LAB", "gateway", "gw1"}},
		{"beside another", []string{"https://example.com/", "cmg://LAB/gateway/gw1"}, RoleName{"LAB", "gateway", "gw1"}},
		{"none", []string{"https://example.com/gateway/x"}, RoleName{}},
		{"two", []string{"cmg://LAB/gateway/gw1", "cmg://LAB/site/LAB"}, RoleName{}},
		{"too deep", []string{"cmg://LAB/gateway/gw1/more"}, RoleName{}},
		{"no name", []string{"cmg://LAB/gateway/"}, RoleName{}},
		{"no role", []string{"cmg://LAB//gw1"}, RoleName{}},
		{"query", []string{"cmg://LAB/gateway/gw1?x"}, RoleName{}},
		{"user", []string{"cmg://me@LAB/gateway/gw1"}, RoleName{}},
		{"port", []string{"cmg://LAB:1/gateway/gw1"}, RoleName{}},
		{"escaped", []string{"cmg://LAB/gateway/gw%31"}, RoleName{}},
		{"good beside bad", []string{"cmg://LAB/gateway/gw1", "cmg://LAB/x"}, RoleName{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := &x509.Certificate{}
			for _, s := range test.uris {
				c.URIs = append(c.URIs, must[*url.URL](t)(url.Parse(s)))
			}
			got, ok := RoleOf(c)
			if got != test.want || ok != (test.want != RoleName{}) {
				t.Errorf("got %v %v, want %v", got, ok, test.want)
			}
		})
	}
}
