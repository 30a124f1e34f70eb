package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// below makes an authority under another one.
func below(t testing.TB, parent *Authority, name string, from time.Time, life time.Duration) *Authority {
	t.Helper()
	key := must[*Authority](t)(NewAuthority("only its key", day)).key
	c := must[*x509.Certificate](t)(sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: from.Add(life),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}, parent.cert, key.Public(), parent.key))
	return &Authority{cert: c, key: key}
}

// newRoot makes a root that may have authorities below it.
func newRoot(t testing.TB, name string) *Authority {
	t.Helper()
	a := newAuthority(t, name)
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(10 * yearOfDays),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	a.cert = must[*x509.Certificate](t)(sign(tmpl, tmpl, a.key.Public(), a.key))
	return a
}

func trustOf(t testing.TB, keys *Keyring, anchors ...*x509.Certificate) *Trust {
	t.Helper()
	p := cmg.Publication{Version: 1, Site: testSite}
	for _, a := range anchors {
		p.Anchors = append(p.Anchors, string(certificatePEM(a)))
	}
	if keys != nil {
		p.Keys = keys.PublicKeys()
	}
	return must[*Trust](t)(NewTrust(p))
}

var byCertificate, byToken = []cmg.Proof{cmg.ProofCertificate}, []cmg.Proof{cmg.ProofToken}

func TestClientCertificates(t *testing.T) {
	now := time.Now()
	root, foreign := newRoot(t, "client root"), newRoot(t, "client root")
	sub := below(t, root, "published intermediate", now.Add(-day), 100*day)
	private := below(t, root, "unpublished intermediate", now.Add(-day), 100*day)
	shortSub := below(t, root, "short intermediate", now.Add(-3*day), 2*day)
	outlived := *shortSub.cert // so that it issues beyond its end
	outlived.NotAfter = now.Add(yearOfDays)
	siteCA := newAuthority(t, "site CA")
	trust := trustOf(t, nil, root.cert, sub.cert, shortSub.cert)

	client := CertRequest{Name: "pc", Client: true}
	with := func(change func(*CertRequest)) CertRequest {
		r := client
		change(&r)
		return r
	}
	var big []*x509.Certificate
	for range maxShown + 1 {
		big = append(big, sub.cert)
	}
	for _, test := range []struct {
		name  string
		a     *Authority
		r     CertRequest
		above []*x509.Certificate // what the client sends besides its own
		at    time.Duration
		code  string
	}{
		{"under the root", root, client, nil, 0, ""},
		{"under a published intermediate", sub, client, nil, 0, ""},
		{"with an intermediate of its own", private, client, []*x509.Certificate{private.cert}, 0, ""},
		{"with its root too", root, client, []*x509.Certificate{root.cert}, 0, ""},
		{"missing intermediate", private, client, nil, 0, "_Unknown_Issuer"},
		{"unknown root of the same name", foreign, client, nil, 0, "_Unknown_Issuer"},
		{"brings its unknown root", foreign, client, []*x509.Certificate{foreign.cert}, 0, "_Unknown_Root"},
		{"a role's channel certificate", siteCA, CertRequest{Site: testSite, Role: cmg.RoleConnectionPoint, Name: "cp", Client: true}, nil, 0, "_Unknown_Issuer"},
		{"expired", root, client, nil, 400 * day, "_Expired"},
		{"its last second", root, client, nil, yearOfDays - backdate - 2*time.Second, ""},
		{"not yet valid", root, with(func(r *CertRequest) { r.NotBefore = now.Add(day) }), nil, 0, "_Not_Yet_Valid"},
		{"expired intermediate", &Authority{cert: &outlived, key: shortSub.key}, client, nil, 0, "_Expired"},
		{"for servers", root, with(func(r *CertRequest) { r.Client, r.Server = false, true }), nil, 0, "_Wrong_Usage"},
		{"for signing", root, with(func(r *CertRequest) { r.Client = false }), nil, 0, "_Wrong_Usage"},
		{"too many", root, client, big, 0, "_Invalid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := issue(t, test.a, test.r)
			e := Evidence{Certificates: append([]*x509.Certificate{i.Certificate}, test.above...)}
			c, err := trust.Verify(e, byCertificate, now.Add(test.at))
			if test.code != "" {
				wantCode(t, err, 403, "CMGService_Certificate"+test.code)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := cmg.Caller{Proof: cmg.ProofCertificate, Name: "CN=" + test.r.Name, Thumbprint: Thumbprint(i.Certificate), NotAfter: i.Certificate.NotAfter.UTC()}
			if c != want {
				t.Errorf("got %+v\nwant %+v", c, want)
			}
		})
	}
	t.Run("none", func(t *testing.T) {
		_, err := trust.Verify(Evidence{Authorization: "Bearer x.y.z"}, byCertificate, now)
		wantCode(t, err, 403, "CMGService_Client_Certificate_Required")
	})
}

func TestCertificateCacheEnds(t *testing.T) {
	now := time.Now()
	root := newRoot(t, "root")
	short := below(t, root, "short", now.Add(-day), 2*day) // ends before the leaf does
	trust := trustOf(t, nil, root.cert, short.cert)
	i := issue(t, root, CertRequest{Name: "x", Client: true})
	e := Evidence{Certificates: []*x509.Certificate{i.Certificate}}
	for _, at := range []time.Duration{0, 0, 300 * day} {
		if _, err := trust.Verify(e, byCertificate, now.Add(at)); err != nil {
			t.Fatalf("after %v: %v", at, err)
		}
	}
	_, err := trust.Verify(e, byCertificate, now.Add(366*day))
	wantCode(t, err, 403, "CMGService_Certificate_Expired")
	_, err = trust.Verify(e, byCertificate, now.Add(-day))
	wantCode(t, err, 403, "CMGService_Certificate_Not_Yet_Valid")

	// The chain, not only the leaf, bounds what is remembered.
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "y"}, NotBefore: now.Add(-day), NotAfter: now.Add(50 * day), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	leaf := must[*x509.Certificate](t)(sign(template, short.cert, i.Certificate.PublicKey, short.key))
	e = Evidence{Certificates: []*x509.Certificate{leaf}}
	if _, err := trust.Verify(e, byCertificate, now); err != nil {
		t.Fatal(err)
	}
	_, err = trust.Verify(e, byCertificate, now.Add(2*day))
	wantCode(t, err, 403, "CMGService_Certificate_Expired")
}

func TestDeviceOfCertificate(t *testing.T) {
	root := newRoot(t, "root")
	trust := trustOf(t, nil, root.cert)
	for _, test := range []struct {
		name   string
		r      CertRequest
		device cmg.DeviceID
		who    string
	}{
		{"of the site", CertRequest{Site: testSite, Device: deviceA, Name: "PC7"}, deviceA, "CN=PC7"},
		{"of another site", CertRequest{Site: "XYZ", Device: deviceA, Name: "PC7"}, "", "CN=PC7"},
		{"common name", CertRequest{Name: string(deviceA), Client: true}, deviceA, "CN=" + string(deviceA)},
		{"common name in lower case", CertRequest{Name: strings.ToLower(string(deviceA)), Client: true}, deviceA, "CN=" + strings.ToLower(string(deviceA))},
		{"bare GUID", CertRequest{Name: deviceA.GUID(), Client: true}, "", "CN=" + deviceA.GUID()},
		{"nearly", CertRequest{Name: string(deviceA) + "'", Client: true}, "", "CN=" + string(deviceA) + "'"},
		{"common name against the URI", CertRequest{Site: "XYZ", Device: deviceA, Name: string(deviceA)}, "", "CN=" + string(deviceA)},
		{"control characters", CertRequest{Name: "PC\r\n7\x1b", Client: true}, "", "CN=PC??7?"},
		{"long", CertRequest{Name: strings.Repeat("ä", 200), Client: true}, "", "CN=" + strings.Repeat("ä", 126)},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := issue(t, root, test.r)
			c, err := trust.Verify(Evidence{Certificates: []*x509.Certificate{i.Certificate}}, byCertificate, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if c.Device != test.device || c.Name != test.who {
				t.Errorf("got device %q of %q, want %q of %q", c.Device, c.Name, test.device, test.who)
			}
		})
	}
	t.Run("URI that is no GUID", func(t *testing.T) {
		c := &x509.Certificate{URIs: []*url.URL{must[*url.URL](t)(url.Parse("cmg://LAB/agent/PC7"))}, Subject: pkix.Name{CommonName: string(deviceA)}}
		if id := deviceOf(c, testSite); id != "" {
			t.Errorf("got %s", id)
		}
	})
}

func TestHugeKeyIsRefusedUnread(t *testing.T) {
	root := newRoot(t, "root")
	i := issue(t, root, CertRequest{Name: "x", Client: true})
	huge := &x509.Certificate{PublicKey: &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1<<20), E: 65537}}
	_, err := trustOf(t, nil, root.cert).Verify(Evidence{Certificates: []*x509.Certificate{i.Certificate, huge}}, byCertificate, time.Now())
	wantCode(t, err, 403, "CMGService_Certificate_Invalid")
}

func TestUnhandledExtension(t *testing.T) {
	root := newRoot(t, "root")
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now().Add(-day), NotAfter: time.Now().Add(day),
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		ExtraExtensions: []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}},
	}
	key := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	leaf := must[*x509.Certificate](t)(sign(template, root.cert, key.Public(), root.key))
	_, err := trustOf(t, nil, root.cert).Verify(Evidence{Certificates: []*x509.Certificate{leaf}}, byCertificate, time.Now())
	wantCode(t, err, 403, "CMGService_Certificate_Invalid")
}

func TestNewTrustRefusals(t *testing.T) {
	root := newAuthority(t, "root")
	leaf := issue(t, root, CertRequest{Name: "x", Client: true})
	for _, test := range []struct {
		name string
		p    cmg.Publication
		say  string
	}{
		{"no version", cmg.Publication{Site: testSite}, "version"},
		{"leaf as anchor", cmg.Publication{Version: 1, Site: testSite, Anchors: []string{string(leaf.CertPEM)}}, "trust anchor 1"},
		{"text as anchor", cmg.Publication{Version: 1, Site: testSite, Anchors: []string{string(certificatePEM(root.cert)), "x"}}, "trust anchor 2"},
		{"too many", cmg.Publication{Version: 1, Site: testSite, Anchors: make([]string, cmg.MaxAnchors+1)}, "at most"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := NewTrust(test.p); err == nil || !strings.Contains(err.Error(), test.say) {
				t.Errorf("got %v, want it to say %q", err, test.say)
			}
		})
	}
}

// A company's PKI as OpenSSL makes it, through a real handshake at the front.
func TestOpenSSLClients(t *testing.T) {
	in := inDir(t)
	dir := filepath.Dir(in("x"))
	write := func(name, text string) {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ca.ext", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid,issuer\n")
	write("client.ext", "extendedKeyUsage=clientAuth\nsubjectAltName=DNS:pc7.example.com\n")
	write("server.ext", "extendedKeyUsage=serverAuth\n")
	write("plain.ext", "basicConstraints=CA:FALSE\n")
	csr := func(name, subject, kind string) {
		openssl(t, dir, append([]string{"req", "-nodes", "-keyout", name + ".key", "-out", name + ".csr", "-subj", subject, "-newkey"}, strings.Fields(kind)...)...)
	}
	under := func(ca, name, ext string, more ...string) {
		openssl(t, dir, append([]string{"x509", "-req", "-in", name + ".csr", "-CA", ca + ".pem", "-CAkey", ca + ".key", "-CAcreateserial", "-days", "30", "-extfile", ext, "-out", name + ".pem"}, more...)...)
	}
	const ec = "ec -pkeyopt ec_paramgen_curve:P-384"
	openssl(t, dir, "req", "-x509", "-sha1", "-newkey", "rsa:2048", "-nodes", "-keyout", "root.key", "-out", "root.pem", "-days", "60", "-subj", "/C=DE/O=Example/CN=Old Root")
	csr("sub", "/C=DE/O=Example/CN=Issuing CA", ec)
	under("root", "sub", "ca.ext")
	csr("pc7", "/O=Example/CN=pc7", "rsa:3072")
	under("sub", "pc7", "client.ext")
	csr("web", "/CN=web", ec)
	under("sub", "web", "server.ext")
	csr("any", "/CN="+string(deviceA), ec)
	under("sub", "any", "plain.ext")
	csr("sha1", "/CN=sha1", "rsa:2048")
	under("root", "sha1", "client.ext", "-sha1")
	openssl(t, dir, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "self.key", "-out", "self.pem", "-days", "30", "-subj", "/CN=ConfigMgr Client", "-addext", "extendedKeyUsage=clientAuth")

	site := newAuthority(t, "site CA")
	if err := issue(t, site, request(cmg.RoleGateway, nil)).Save(in("gw.pem"), in("gw.key")); err != nil {
		t.Fatal(err)
	}
	if err := site.Save(in("site.pem"), in("site.key")); err != nil {
		t.Fatal(err)
	}
	front := must[*tls.Config](t)(GatewayFront(in("gw.pem"), in("gw.key")))
	trust := must[*Trust](t)(NewTrust(cmg.Publication{Version: 1, Site: testSite, Anchors: []string{
		string(must[[]byte](t)(os.ReadFile(in("sub.pem")))), string(must[[]byte](t)(os.ReadFile(in("root.pem")))),
	}}))
	for _, test := range []struct {
		name, who string
		device    cmg.DeviceID
		code      string
	}{
		{"pc7", "CN=pc7,O=Example", "", ""},
		{"any", "CN=" + string(deviceA), deviceA, ""},
		{"web", "", "", "_Wrong_Usage"},
		{"sha1", "", "", "_Weak"},
		{"self", "", "", "_Unknown_Root"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := must[*tls.Config](t)(ClientTo(ClientFiles{Roots: in("site.pem"), Certificate: in(test.name + ".pem"), Key: in(test.name + ".key")}))
			m := handshake(t, front, client)
			if m.serverErr != nil || m.clientErr != nil {
				t.Fatalf("server: %v, client: %v", m.serverErr, m.clientErr)
			}
			c, err := trust.Verify(Evidence{Certificates: m.server.PeerCertificates}, byCertificate, time.Now())
			if test.code != "" {
				wantCode(t, err, 403, "CMGService_Certificate"+test.code)
				return
			}
			if err != nil || c.Name != test.who || c.Device != test.device {
				t.Errorf("got %+v, %v; want %q, device %q", c, err, test.who, test.device)
			}
		})
	}
}
