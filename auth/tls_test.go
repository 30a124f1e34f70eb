package auth

import (
	"crypto/tls"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// request is a certificate for both ends of TLS, in which tests change what
// they are about.
func request(role cmg.RoleKind, change func(*CertRequest)) CertRequest {
	r := CertRequest{Site: testSite, Role: role, Name: "one", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true, Client: true}
	if change != nil {
		change(&r)
	}
	return r
}

func TestChannelHandshake(t *testing.T) {
	ca, otherCA := newAuthority(t, "site CA"), newAuthority(t, "site CA")
	expired := func(r *CertRequest) { r.NotBefore, r.Life = time.Now().Add(-2*day), day }
	future := func(r *CertRequest) { r.NotBefore = time.Now().Add(day) }
	otherSite := func(r *CertRequest) { r.Site = "XYZ" }
	notServer := func(r *CertRequest) { r.Server = false }
	notClient := func(r *CertRequest) { r.Client = false }
	const gw, cp = cmg.RoleGateway, cmg.RoleConnectionPoint
	for _, test := range []struct {
		name           string
		serverCA       *Authority
		server         CertRequest
		clientCA       *Authority
		client         CertRequest
		clientErr, err string // what each end has to say; empty for neither
	}{
		{"right roles", ca, request(gw, nil), ca, request(cp, nil), "", ""},
		{"gateway dials", ca, request(gw, nil), ca, request(gw, nil), "", "not a connection-point"},
		{"management point dials", ca, request(gw, nil), ca, request(cmg.RoleManagementPoint, nil), "", "not a connection-point"},
		{"device dials", ca, request(gw, nil), ca, CertRequest{Site: testSite, Device: deviceA}, "", "not a connection-point"},
		{"no role dials", ca, request(gw, nil), ca, CertRequest{Name: "x", Client: true}, "", "not a connection-point"},
		{"other site under one CA dials", ca, request(gw, nil), ca, request(cp, otherSite), "", "not a connection-point"},
		{"other site's CA dials", ca, request(gw, nil), otherCA, request(cp, nil), "", "unknown authority"},
		{"expired dials", ca, request(gw, nil), ca, request(cp, expired), "", "expired"},
		{"not yet valid dials", ca, request(gw, nil), ca, request(cp, future), "", "expired or is not yet valid"},
		{"server certificate dials", ca, request(gw, nil), ca, request(cp, notClient), "", "incompatible key usage"},
		{"connection point listens", ca, request(cp, nil), ca, request(cp, nil), "not a gateway", ""},
		{"other site under one CA listens", ca, request(gw, otherSite), ca, request(cp, nil), "not a gateway", ""},
		{"other site's CA listens", otherCA, request(gw, nil), ca, request(cp, nil), "unknown authority", ""},
		{"expired listens", ca, request(gw, expired), ca, request(cp, nil), "expired", ""},
		{"not yet valid listens", ca, request(gw, future), ca, request(cp, nil), "is not valid before", ""},
		{"client certificate listens", ca, request(gw, notServer), ca, request(cp, nil), "incompatible key usage", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := unchecked(t, issue(t, test.serverCA, test.server), ca)
			client := unchecked(t, issue(t, test.clientCA, test.client), ca)
			// Only the end that is meant to be deceived has a name to compare with.
			server.name.Site, client.name.Site = testSite, testSite
			m := handshake(t, server.ChannelServer(), client.ChannelClient())
			if test.clientErr == "" && test.err == "" {
				checkChannel(t, m)
				return
			}
			if m.clientErr == nil || m.serverErr == nil {
				t.Fatalf("the handshake passed: %v, %v", m.clientErr, m.serverErr)
			}
			if !strings.Contains(m.clientErr.Error(), test.clientErr) || !strings.Contains(m.serverErr.Error(), test.err) {
				t.Fatalf("client says %q, want %q\nserver says %q, want %q", m.clientErr, test.clientErr, m.serverErr, test.err)
			}
		})
	}
}

func checkChannel(t *testing.T, m met) {
	t.Helper()
	if m.clientErr != nil || m.serverErr != nil {
		t.Fatalf("client: %v, server: %v", m.clientErr, m.serverErr)
	}
	if n, ok := PeerRole(&m.server); !ok || n != (RoleName{testSite, cmg.RoleConnectionPoint, "one"}) {
		t.Errorf("the gateway met %v %v", n, ok)
	}
	if n, ok := PeerRole(&m.client); !ok || n != (RoleName{testSite, cmg.RoleGateway, "one"}) {
		t.Errorf("the connection point met %v %v", n, ok)
	}
	if m.client.Version != tls.VersionTLS13 || m.client.NegotiatedProtocol != "cmg/1" {
		t.Errorf("version %x, protocol %q", m.client.Version, m.client.NegotiatedProtocol)
	}
}

func TestChannelRefusesOtherSpeakers(t *testing.T) {
	ca := newAuthority(t, "site CA")
	gw, cp := identity(t, ca, cmg.RoleGateway, "gw"), identity(t, ca, cmg.RoleConnectionPoint, "cp")
	for _, test := range []struct {
		name   string
		change func(*tls.Config)
	}{
		{"TLS 1.2", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }},
		{"no ALPN", func(c *tls.Config) { c.NextProtos = nil }},
		{"another protocol", func(c *tls.Config) { c.NextProtos = []string{"h2"} }},
		{"no certificate", func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := cp.ChannelClient()
			test.change(c)
			if m := handshake(t, gw.ChannelServer(), c); m.serverErr == nil || m.clientErr == nil {
				t.Errorf("passed: %v, %v", m.serverErr, m.clientErr)
			}
		})
	}
	t.Run("gateway without ALPN", func(t *testing.T) {
		s := gw.ChannelServer()
		s.NextProtos, s.VerifyConnection = nil, nil
		if m := handshake(t, s, cp.ChannelClient()); m.clientErr == nil {
			t.Error("passed")
		}
	})
}

func TestInsideServer(t *testing.T) {
	ca, clientCA, otherCA := newAuthority(t, "site CA"), newAuthority(t, "client CA"), newAuthority(t, "site CA")
	mp, cp := identity(t, ca, cmg.RoleManagementPoint, "mp"), identity(t, ca, cmg.RoleConnectionPoint, "cp")
	withCert := func(i Issued) *tls.Config {
		c := mp.Client()
		pair := must[tls.Certificate](t)(tls.X509KeyPair(i.CertPEM, i.KeyPEM))
		c.Certificates = nil
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		return c
	}
	noCert := cp.Client()
	noCert.Certificates = nil
	old := cp.Client()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	noAEAD := cp.Client()
	noAEAD.MaxVersion, noAEAD.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	wrongHost := cp.Client()
	wrongHost.ServerName = "elsewhere.example.com"
	tls12 := cp.Client()
	tls12.MaxVersion = tls.VersionTLS12
	for _, test := range []struct {
		name   string
		client *tls.Config
		passes bool
		role   cmg.RoleKind
	}{
		{"connection point", cp.Client(), true, cmg.RoleConnectionPoint},
		{"connection point, TLS 1.2", tls12, true, cmg.RoleConnectionPoint},
		{"no certificate", noCert, true, ""},
		{"client CA's certificate", withCert(issue(t, clientCA, CertRequest{Site: testSite, Role: cmg.RoleConnectionPoint, Name: "cp", Client: true})), false, ""},
		{"other site's", withCert(issue(t, otherCA, request(cmg.RoleConnectionPoint, nil))), false, ""},
		{"expired", withCert(issue(t, ca, request(cmg.RoleConnectionPoint, func(r *CertRequest) { r.NotBefore, r.Life = time.Now().Add(-2*day), day }))), false, ""},
		{"wrong host", wrongHost, false, ""},
		{"TLS 1.1", old, false, ""},
		{"no AEAD", noAEAD, false, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := handshake(t, mp.Server(), test.client)
			if passed := m.serverErr == nil && m.clientErr == nil; passed != test.passes {
				t.Fatalf("server: %v, client: %v", m.serverErr, m.clientErr)
			}
			n, ok := PeerRole(&m.server)
			if n.Role != test.role || ok != (test.role != "") {
				t.Errorf("peer is %v %v, want %q", n, ok, test.role)
			}
		})
	}
	if _, ok := PeerRole(nil); ok {
		t.Error("nobody has a role")
	}
}

// The front lets every certificate through the handshake, and none has a role
// by it.
func TestGatewayFrontHandshake(t *testing.T) {
	in := inDir(t)
	ca, otherCA := newAuthority(t, "site CA"), newAuthority(t, "other CA")
	if err := issue(t, ca, request(cmg.RoleGateway, nil)).Save(in("gw.pem"), in("gw.key")); err != nil {
		t.Fatal(err)
	}
	if err := ca.Save(in("ca.pem"), in("ca.key")); err != nil {
		t.Fatal(err)
	}
	expired := issue(t, otherCA, CertRequest{Site: testSite, Role: cmg.RoleConnectionPoint, Name: "x", Client: true, NotBefore: time.Now().Add(-2 * day), Life: day})
	if err := expired.Save(in("c.pem"), in("c.key")); err != nil {
		t.Fatal(err)
	}
	front := must[*tls.Config](t)(GatewayFront(in("gw.pem"), in("gw.key")))
	client := must[*tls.Config](t)(ClientTo(ClientFiles{Roots: in("ca.pem"), Certificate: in("c.pem"), Key: in("c.key")}))
	m := handshake(t, front, client)
	if m.serverErr != nil || m.clientErr != nil {
		t.Fatalf("server: %v, client: %v", m.serverErr, m.clientErr)
	}
	if len(m.server.PeerCertificates) != 1 || !m.server.PeerCertificates[0].Equal(expired.Certificate) {
		t.Errorf("the certificate did not arrive")
	}
	if n, ok := PeerRole(&m.server); ok {
		t.Errorf("an unverified peer has role %v", n)
	}
	bare := must[*tls.Config](t)(ClientTo(ClientFiles{Roots: in("ca.pem")}))
	if m := handshake(t, front, bare); m.serverErr != nil || m.clientErr != nil {
		t.Errorf("without a certificate: %v, %v", m.serverErr, m.clientErr)
	}
	system := must[*tls.Config](t)(ClientTo(ClientFiles{}))
	if m := handshake(t, front, system); m.clientErr == nil {
		t.Error("the system's roots vouch for a throw-away authority")
	}
}

func TestGatewayFrontRefusals(t *testing.T) {
	in := inDir(t)
	root := newAuthority(t, "root")
	other := newAuthority(t, "other")
	good := issue(t, root, request(cmg.RoleGateway, nil))
	rootPEM, otherPEM := certificatePEM(root.Certificate()), certificatePEM(other.Certificate())
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	variant := func(change func(*CertRequest)) Issued { return issue(t, root, request(cmg.RoleGateway, change)) }
	expired := variant(func(r *CertRequest) { r.NotBefore, r.Life = time.Now().Add(-2*day), day })
	future := variant(func(r *CertRequest) { r.NotBefore = time.Now().Add(day) })
	nameless := variant(func(r *CertRequest) { r.DNS, r.IPs = nil, nil })
	client := variant(func(r *CertRequest) { r.Server = false })
	for _, test := range []struct {
		name      string
		cert, key []byte
		say       string
	}{
		{"good", good.CertPEM, good.KeyPEM, ""},
		{"good with root", join(good.CertPEM, rootPEM), good.KeyPEM, ""},
		{"other key", good.CertPEM, expired.KeyPEM, "does not serve for"},
		{"root first", join(rootPEM, good.CertPEM), good.KeyPEM, "has to stand first"},
		{"foreign link", join(good.CertPEM, otherPEM), good.KeyPEM, "broken chain"},
		{"expired", expired.CertPEM, expired.KeyPEM, "expired"},
		{"not yet valid", future.CertPEM, future.KeyPEM, "is not valid before"},
		{"no host", nameless.CertPEM, nameless.KeyPEM, "names no host"},
		{"for clients", client.CertPEM, client.KeyPEM, "not for servers"},
		{"no certificate", []byte("x"), good.KeyPEM, "no PEM certificate"},
		{"no key", good.CertPEM, []byte("x"), "key"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := os.WriteFile(in("c.pem"), test.cert, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(in("c.key"), test.key, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := GatewayFront(in("c.pem"), in("c.key"))
			if test.say == "" && err != nil || test.say != "" && (err == nil || !strings.Contains(err.Error(), test.say)) {
				t.Errorf("got %v, want it to say %q", err, test.say)
			}
		})
	}
	_, err := ClientTo(ClientFiles{Certificate: in("c.pem")})
	wantKind(t, err, cmg.ErrInvalid)
}

func TestNewIdentityRefusals(t *testing.T) {
	ca, other := newAuthority(t, "site CA"), newAuthority(t, "other CA")
	caPEM := certificatePEM(ca.Certificate())
	good := issue(t, ca, request(cmg.RoleGateway, nil))
	expired := issue(t, ca, request(cmg.RoleGateway, func(r *CertRequest) { r.NotBefore, r.Life = time.Now().Add(-2*day), day }))
	future := issue(t, ca, request(cmg.RoleGateway, func(r *CertRequest) { r.NotBefore = time.Now().Add(day) }))
	roleless := issue(t, ca, CertRequest{Name: "x", Server: true})
	for _, test := range []struct {
		name             string
		cert, key, roots []byte
		say              string
	}{
		{"good", good.CertPEM, good.KeyPEM, caPEM, ""},
		{"other key", good.CertPEM, expired.KeyPEM, caPEM, "does not serve for"},
		{"other roots", good.CertPEM, good.KeyPEM, certificatePEM(other.Certificate()), "unknown authority"},
		{"leaf as root", good.CertPEM, good.KeyPEM, good.CertPEM, "is not an authority"},
		{"no roots", good.CertPEM, good.KeyPEM, nil, "roots"},
		{"expired", expired.CertPEM, expired.KeyPEM, caPEM, "expired"},
		{"not yet valid", future.CertPEM, future.KeyPEM, caPEM, "is not valid before"},
		{"no role", roleless.CertPEM, roleless.KeyPEM, caPEM, "no role name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := NewIdentity(test.cert, test.key, test.roots)
			if test.say == "" && err != nil || test.say != "" && (err == nil || !strings.Contains(err.Error(), test.say)) {
				t.Errorf("got %v, want it to say %q", err, test.say)
			}
		})
	}
}

func TestLoadIdentity(t *testing.T) {
	in := inDir(t)
	ca := newAuthority(t, "site CA")
	if err := issue(t, ca, request(cmg.RoleGateway, nil)).Save(in("gw.pem"), in("gw.key")); err != nil {
		t.Fatal(err)
	}
	if err := ca.Save(in("ca.pem"), in("ca.key")); err != nil {
		t.Fatal(err)
	}
	id := must[*Identity](t)(LoadIdentity(IdentityFiles{Certificate: in("gw.pem"), Key: in("gw.key"), Roots: in("ca.pem")}))
	if id.Name() != (RoleName{testSite, cmg.RoleGateway, "one"}) || id.Certificate() == nil || id.Roots() == nil {
		t.Errorf("identity is %v", id.Name())
	}
	for _, test := range []struct {
		f   IdentityFiles
		say string
	}{
		{IdentityFiles{Certificate: "", Key: in("gw.key"), Roots: in("ca.pem")}, "no certificate file"},
		{IdentityFiles{Certificate: in("gw.pem"), Key: in("none.key"), Roots: in("ca.pem")}, "none.key"},
		{IdentityFiles{Certificate: in("gw.pem"), Key: in("ca.key"), Roots: in("ca.pem")}, "ca.key does not serve for certificate"},
		{IdentityFiles{Certificate: in("gw.pem"), Key: in("gw.key"), Roots: in("gw.key")}, "roots " + in("gw.key")},
	} {
		if _, err := LoadIdentity(test.f); err == nil || !strings.Contains(err.Error(), test.say) {
			t.Errorf("got %v, want it to say %q", err, test.say)
		}
	}
}
