package auth

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// hotPath is what a gateway does for every request, each as a hit and a miss
// of what it remembers.
type hotPath struct {
	name      string
	hit, miss func(i int) error
}

func hotPaths(t testing.TB) []hotPath {
	now := time.Now()
	k := must[*Keyring](t)(NewKeyring())
	ca, site := newAuthority(t, "client CA"), newAuthority(t, "site CA")
	gw := identity(t, site, cmg.RoleGateway, "gw1")
	trust := trustOf(t, k, ca.Certificate())
	byCert := Evidence{Certificates: []*x509.Certificate{issue(t, ca, CertRequest{Site: testSite, Device: deviceA}).Certificate}}
	byTok := Evidence{Authorization: "Bearer " + must[string](t)(k.Issue(session(now)))}
	signer, reader := NewCallerSigner(gw), NewCallerReader(registerOf(gw).find)
	caller := must[cmg.Caller](t)(trust.Verify(byTok, byToken, now))
	header := must[string](t)(signer.Sign(caller, now))

	tokens := must[*Tokens](t)(NewTokens(testSite, k.PublicKeys()))
	certs := must[*certificates](t)(newCertificates(testSite, []string{string(certificatePEM(ca.Certificate()))}, newRevocations(cmg.Revocation{}, Known{})))
	forget := func() {
		tokens.cache = newCache[[32]byte, Claims](1)
		certs.cache = newCache[[32]byte, cmg.Caller](1)
	}
	other := func(i int) cmg.Caller { c := caller; c.NotAfter = c.NotAfter.Add(time.Duration(i)); return c }
	return []hotPath{
		{"token",
			func(int) error { return second(trust.Verify(byTok, byToken, now)) },
			func(int) error { forget(); return second(tokenProof{tokens}.Verify(byTok, now)) }},
		{"certificate",
			func(int) error { return second(trust.Verify(byCert, byCertificate, now)) },
			func(int) error { forget(); return second(certs.Verify(byCert, now)) }},
		{"caller signed",
			func(int) error { return second(signer.Sign(caller, now)) },
			func(i int) error { return second(signer.Sign(other(i+1), now)) }},
		{"caller read",
			func(int) error { return second(reader.Read(t.Context(), header, now)) },
			func(int) error { return second(NewCallerReader(reader.find).Read(t.Context(), header, now)) }},
	}
}

func BenchmarkHotPath(b *testing.B) {
	for _, p := range hotPaths(b) {
		b.Run(p.name+"/hit", func(b *testing.B) { benchmark(b, p.hit) })
		b.Run(p.name+"/miss", func(b *testing.B) { benchmark(b, p.miss) })
	}
}

func benchmark(b *testing.B, f func(int) error) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := f(i); err != nil {
			b.Fatal(err)
		}
	}
}

// A caller that is known costs no memory.
func TestHitsDoNotAllocate(t *testing.T) {
	for _, p := range hotPaths(t) {
		if n := testing.AllocsPerRun(100, func() {
			if err := p.hit(0); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations on a hit", p.name, n)
		}
	}
}
