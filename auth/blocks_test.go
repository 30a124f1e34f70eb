package auth

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// blocked makes the judge of a publication with these blocks, a client
// certificate that it would let in, and a session token.
func blocked(t testing.TB, b cmg.Blocks) (trust *Trust, cert *x509.Certificate, token string, id string) {
	t.Helper()
	ca := newAuthority(t, "clients")
	k := must[*Keyring](t)(NewKeyring())
	cert = issue(t, ca, CertRequest{Site: testSite, Device: deviceA}).Certificate
	c := session(time.Now())
	c.ID = cmg.NewGUID()
	token = must[string](t)(k.Issue(c))
	for i, v := range b.Certificates {
		switch v {
		case "serial":
			b.Certificates[i] = must[string](t)(cmg.ParseCertificateName(cert.SerialNumber.Text(16)))
		case "thumbprint":
			b.Certificates[i] = Thumbprint(cert)
		}
	}
	for i, v := range b.Tokens {
		if v == "token" {
			b.Tokens[i] = c.ID
		}
	}
	return must[*Trust](t)(NewTrust(cmg.Publication{
		Version: 1, Site: testSite, Anchors: []string{string(certificatePEM(ca.Certificate()))}, Keys: k.PublicKeys(), Blocks: b,
	})), cert, token, c.ID
}

func TestBlocks(t *testing.T) {
	for _, test := range []struct {
		name                   string
		blocks                 cmg.Blocks
		byCertificate, byToken string
	}{
		{"nobody", cmg.Blocks{}, "", ""},
		{"others", cmg.Blocks{Devices: []cmg.DeviceID{cmg.NewDeviceID()}, Tokens: []string{"x"}, Certificates: []string{"1f", strings.Repeat("ab", 32)}}, "", ""},
		{"device", cmg.Blocks{Devices: []cmg.DeviceID{deviceA}}, "CMGService_Blocked_Device", "CMGService_Blocked_Device"},
		{"serial number", cmg.Blocks{Certificates: []string{"serial"}}, "CMGService_Blocked_Certificate", ""},
		{"thumbprint", cmg.Blocks{Certificates: []string{"thumbprint"}}, "CMGService_Blocked_Certificate", ""},
		{"token", cmg.Blocks{Tokens: []string{"token"}}, "", "CMGService_Blocked_Token"},
	} {
		t.Run(test.name, func(t *testing.T) {
			trust, cert, token, id := blocked(t, test.blocks)
			for range 2 { // also what is remembered
				_, err := trust.Verify(Evidence{Certificates: []*x509.Certificate{cert}}, []cmg.Proof{cmg.ProofCertificate, cmg.ProofToken}, time.Now())
				wantCode(t, err, 403, test.byCertificate)
				_, err = trust.Verify(Evidence{Authorization: "Bearer " + token}, []cmg.Proof{cmg.ProofToken}, time.Now())
				wantCode(t, err, 403, test.byToken)
			}
			byToken := &cmg.Caller{Proof: cmg.ProofToken, Device: deviceA, TokenID: id}
			if got := trust.Blocked(byToken, nil); got != (test.byToken != "") {
				t.Errorf("a request by the token is to be broken off: %v", got)
			}
			byCertificate := &cmg.Caller{Proof: cmg.ProofCertificate, Device: deviceA, Thumbprint: Thumbprint(cert)}
			if got := trust.Blocked(byCertificate, []*x509.Certificate{cert}); got != (test.byCertificate != "") {
				t.Errorf("a request by the certificate is to be broken off: %v", got)
			}
		})
	}
}

func TestBlockedContentToken(t *testing.T) {
	k := must[*Keyring](t)(NewKeyring())
	now := time.Now()
	c := Claims{Kind: TokenContent, ID: "content-1", Site: testSite, Device: deviceA, NotBefore: now, Expires: now.Add(day), Packages: []cmg.PackageGrant{{Package: "LAB00001", Version: 1}}}
	token := "Bearer " + must[string](t)(k.Issue(c))
	for name, test := range map[string]struct {
		blocks cmg.Blocks
		code   string
	}{
		"nobody": {cmg.Blocks{}, ""},
		"device": {cmg.Blocks{Devices: []cmg.DeviceID{deviceA}}, "CMGService_Blocked_Device"},
		"token":  {cmg.Blocks{Tokens: []string{"content-1"}}, "CMGService_Blocked_Token"},
	} {
		trust := must[*Trust](t)(NewTrust(cmg.Publication{Version: 1, Site: testSite, Keys: k.PublicKeys(), Blocks: test.blocks}))
		_, err := trust.Content(token, now)
		t.Run(name, func(t *testing.T) { wantCode(t, err, 403, test.code) })
	}
}

func TestBlockedTenant(t *testing.T) {
	d := newDirectory(t, tenantA)
	e := Evidence{Authorization: "Bearer " + d.token("https://login.test", nil)}
	for tenant, code := range map[string]string{tenantA: "CMGService_Blocked_Tenant", tenantB: ""} {
		trust := must[*Trust](t)(NewTrust(cmg.Publication{Version: 1, Site: testSite, Tenants: []cmg.Tenant{d.tenant("https://login.test")}, Blocks: cmg.Blocks{Tenants: []string{tenant}}}))
		for range 2 { // also what is remembered
			_, err := trust.Verify(e, []cmg.Proof{cmg.ProofToken, cmg.ProofEntra}, time.Now())
			wantCode(t, err, 403, code)
		}
		if got := trust.Blocked(&cmg.Caller{Proof: cmg.ProofEntra, Tenant: strings.ToUpper(tenantA)}, nil); got != (code != "") {
			t.Errorf("a request of the tenant is to be broken off: %v", got)
		}
	}
}

// As many blocks as there may be fit into a publication, whatever they are.
func TestAllBlocksFit(t *testing.T) {
	signer := identity(t, newAuthority(t, "site CA"), cmg.RoleSite, testSite)
	p := cmg.Publication{Version: 1, Site: testSite}
	for range cmg.MaxBlocks {
		p.Blocks.Certificates = append(p.Blocks.Certificates, strings.Repeat("ab", 32)) // the longest there are
	}
	text := must[string](t)(SignPublication(signer, p))
	if got := must[cmg.Publication](t)(ReadPublication(signer, text, time.Now())); got.Blocks.Len() != cmg.MaxBlocks {
		t.Errorf("%d came back", got.Blocks.Len())
	}
	t.Logf("%d blocks make %d KiB", cmg.MaxBlocks, len(text)>>10)
}

// Blocks are looked up at every request: that costs no memory, however many
// there are.
func TestBlocksCostNothing(t *testing.T) {
	var b cmg.Blocks
	for i := range 10000 {
		b.Devices = append(b.Devices, cmg.NewDeviceID())
		b.Certificates = append(b.Certificates, fmt.Sprintf("%x", i+1))
	}
	trust, cert, token, _ := blocked(t, b)
	for name, e := range map[string]Evidence{"certificate": {Certificates: []*x509.Certificate{cert}}, "token": {Authorization: "Bearer " + token}} {
		proofs := []cmg.Proof{cmg.Proof(name)}
		now := time.Now()
		if _, err := trust.Verify(e, proofs, now); err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { trust.Verify(e, proofs, now) }); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
