package auth

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// What a proof costs: from memory, anew, and with 100,000 revoked serial
// numbers to look through.
func BenchmarkProof(b *testing.B) {
	root := signingRoot(b, "root")
	leaf := leafOf(b, root, 5, nil)
	serials := make([]uint64, 100_000)
	for i := range serials {
		serials[i] = serialKey(big.NewInt(int64(i) + 1000))
	}
	list := must[*RevokedList](b)(newRevokedList(serials))
	b.Logf("a list of %d serial numbers is a document of %d bytes", list.Len(), len(list.Document()))
	info := cmg.RevocationListInfo{Issuer: IssuerID(root.cert), URL: leaf.CRLDistributionPoints[0], This: time.Now(), Next: time.Now().Add(time.Hour), Digest: sha256.Sum256(list.Document())}
	d := newDirectory(b, tenantA)
	authority := cmg.EntraClouds["public"]
	p := cmg.Publication{Version: 1, Site: testSite, Anchors: []string{string(certificatePEM(root.cert))}, Tenants: []cmg.Tenant{d.tenant(authority)},
		Revocation: cmg.Revocation{Lists: []cmg.RevocationListInfo{info}}}
	trust := must[*Trust](b)(NewTrustWith(p, Known{Lists: []KnownList{{info, list}}}))
	certificate, token := Evidence{Certificates: []*x509.Certificate{leaf}}, Evidence{Authorization: "Bearer " + d.token(authority, nil)}
	now := time.Now()
	for _, c := range []struct {
		name  string
		e     Evidence
		proof cmg.Proof
		miss  bool
	}{
		{"certificate/hit", certificate, cmg.ProofCertificate, false}, {"certificate/miss", certificate, cmg.ProofCertificate, true},
		{"entra/hit", token, cmg.ProofEntra, false}, {"entra/miss", token, cmg.ProofEntra, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			proofs := []cmg.Proof{c.proof}
			for b.Loop() {
				if c.miss {
					trust.certificates.(*certificates).cache = newCache[[sha256.Size]byte, cmg.Caller](64)
					trust.entra.(*entra).cache = newCache[[sha256.Size]byte, cmg.Caller](64)
				}
				if _, err := trust.Verify(c.e, proofs, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("list/lookup", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if list.Has(leaf.SerialNumber) {
				b.Fatal("it is not revoked")
			}
		}
	})
}

// What a connection costs both ends: a full handshake with a client
// certificate, and one that goes on from a ticket.
func BenchmarkHandshake(b *testing.B) {
	in := inDir(b)
	site := newAuthority(b, "site CA")
	server := issue(b, site, CertRequest{Name: "gw", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true})
	if err := server.Save(in("gw.pem"), in("gw.key")); err != nil {
		b.Fatal(err)
	}
	client := issue(b, site, CertRequest{Name: "pc", Client: true})
	pair := must[tls.Certificate](b)(tls.X509KeyPair(client.CertPEM, client.KeyPEM))
	front := must[*tls.Config](b)(GatewayFront(in("gw.pem"), in("gw.key")))
	ln := must[net.Listener](b)(tls.Listen("tcp", "127.0.0.1:0", front))
	defer ln.Close()
	roots := x509.NewCertPool()
	roots.AddCert(site.cert)
	for _, c := range []struct {
		name    string
		resumed bool
	}{{"full", false}, {"resumed", true}} {
		b.Run(c.name, func(b *testing.B) {
			conf := &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{pair}}
			if c.resumed {
				conf.ClientSessionCache = tls.NewLRUClientSessionCache(1)
				meet(b, ln, conf)
			}
			for b.Loop() {
				if got := meet(b, ln, conf); got != c.resumed {
					b.Fatalf("resumed: %v", got)
				}
			}
		})
	}
}

// meet makes one connection, over which the client gets its ticket.
func meet(b *testing.B, ln net.Listener, client *tls.Config) (resumed bool) {
	b.Helper()
	done := make(chan error, 1)
	go func() {
		s, err := ln.Accept()
		if err == nil {
			_, err = s.Write([]byte("x"))
			s.Close()
		}
		done <- err
	}()
	c, err := tls.Dial("tcp", ln.Addr().String(), client)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return c.ConnectionState().DidResume
}

// What a list of 100,000 revoked certificates costs whoever fetches it, and
// whoever takes its document.
func BenchmarkRevokedList(b *testing.B) {
	root := signingRoot(b, "root")
	serials := make([]int64, 100_000)
	for i := range serials {
		serials[i] = int64(i) + 1<<40
	}
	der := crlOf(b, root, nil, serials...)
	list := must[CRL](b)(ReadCRL(der, root.cert, time.Now())).Revoked
	doc := list.Document()
	b.Run("ReadCRL", func(b *testing.B) {
		b.ReportAllocs()
		b.ReportMetric(float64(len(der)), "bytes")
		for b.Loop() {
			if _, err := ReadCRL(der, root.cert, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ReadRevokedList", func(b *testing.B) {
		b.ReportAllocs()
		b.ReportMetric(float64(len(doc)), "bytes")
		for b.Loop() {
			if _, err := ReadRevokedList(doc); err != nil {
				b.Fatal(err)
			}
		}
	})
}
