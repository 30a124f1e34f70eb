package gateway

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// revokedDocument writes a list as channel and site know it (docs/protocol.md,
// 8.5).
func revokedDocument(certs ...*x509.Certificate) []byte {
	var keys [][]byte
	for _, c := range certs {
		sum := sha256.Sum256(append([]byte{2}, c.SerialNumber.Bytes()...)) // 2: above zero
		keys = append(keys, sum[:8])
	}
	slices.SortFunc(keys, bytes.Compare)
	return append([]byte("cmgcrl1\n"), bytes.Join(keys, nil)...)
}

func deviceLeaf(t testing.TB, s *site) *x509.Certificate {
	return must[*x509.Certificate](t)(x509.ParseCertificate(s.device.Certificate[0]))
}

// signedContent signs a publication that change has changed.
func (s *site) signedContent(t testing.TB, version uint64, change func(*cmg.Publication)) (uint64, []byte) {
	p := s.content(version)
	change(&p)
	return version, []byte(must[string](t)(auth.SignPublication(s.signer, p)))
}

// code asks once and gives the refusal, or nothing.
func (r *running) code(c *http.Client, path string) string {
	r.t.Helper()
	resp, err := c.Do(r.request("GET", path, nil))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.Header.Get(web.RefusalHeader)
}

// A revoked certificate is refused with the next request of a connection that
// is open, a connection of another protocol is ended, and a restart knows what
// was known.
func TestRevokedList(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	doc := revokedDocument(deviceLeaf(t, s))
	var broken atomic.Bool
	broken.Store(true)
	handler := func(q *request) {
		switch {
		case strings.HasPrefix(string(q.head.Target), cmg.InsideRevoked) && broken.Load():
			q.answer(200, []byte("another document"))
		case strings.HasPrefix(string(q.head.Target), cmg.InsideRevoked):
			q.answer(200, doc)
		case q.head.Upgrade != nil:
			echoed(q)
		default:
			echo(q)
		}
	}
	conf := s.config(t)
	r := run(t, conf)
	in := r.connect("cp-1", handler)
	in.publish(s.publication(t, 1))
	c, w := r.client(&s.device, false), r.upgraded()
	if code := r.code(c, "/any/x"); code != "" {
		t.Fatalf("refused with %s before", code)
	}
	publication := func(p *cmg.Publication) {
		p.Revocation.Lists = []cmg.RevocationListInfo{{Issuer: auth.IssuerID(s.clients.Certificate()), URL: "http://pki/x.crl", This: time.Now(), Next: time.Now().Add(time.Hour), Revoked: 1, Digest: sha256.Sum256(doc)}}
	}
	in.publish(s.signedContent(t, 2, publication))
	eventually(t, "the wrong document is told of", func() bool {
		return strings.Contains(must[string](t)(asText(r.gw.inquiry.status())), "not the one with digest")
	})
	if code := r.code(c, "/any/x"); code != "" {
		t.Errorf("refused with %s by a document that is another's", code)
	}
	broken.Store(false)
	in.publish(s.signedContent(t, 3, publication))
	eventually(t, "the certificate is refused", func() bool { return r.code(c, "/any/x") == "CMGService_Certificate_Revoked" })
	w.over()

	r.end()
	r = run(t, conf)
	r.connect("cp-1", func(q *request) { q.answer(500, nil) })
	if code := r.code(r.client(&s.device, false), "/any/x"); code != "CMGService_Certificate_Revoked" {
		t.Errorf("after a restart: %q", code)
	}
}

func asText(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// A certificate that no list speaks for is asked about once, however many
// requests wait; what the answer is decides.
func TestCertificatesAreAskedAbout(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	leaf := deviceLeaf(t, s)
	named := func(p *cmg.Publication) {
		p.Revocation.Issuers = []cmg.IssuerRevocation{{Issuer: auth.IssuerID(s.clients.Certificate()), OCSP: []string{"http://ocsp.inside/"}}}
	}
	for _, test := range []struct {
		name  string
		state auth.StatusState // empty: the site fails
		mode  cmg.RevocationMode
		code  string
	}{
		{"good", auth.StatusGood, "", ""},
		{"revoked", auth.StatusRevoked, "", "CMGService_Certificate_Revoked"},
		{"revoked, soft", auth.StatusRevoked, cmg.RevocationSoft, "CMGService_Certificate_Revoked"},
		{"unknown", auth.StatusUnknown, "", "CMGService_Certificate_Revocation_Unknown"},
		{"unknown, soft", auth.StatusUnknown, cmg.RevocationSoft, ""},
		{"the site fails", "", "", "CMGService_Certificate_Revocation_Unknown"},
		{"the site fails, soft", "", cmg.RevocationSoft, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			r := run(t, s.config(t))
			in := r.connect("cp-1", func(q *request) {
				if string(q.head.Target) != cmg.InsideCertificate {
					echo(q)
					return
				}
				asked.Add(1)
				var body struct{ Chain [][]byte }
				b, _ := q.body()
				if json.Unmarshal(b, &body) != nil || len(body.Chain) != 2 || !bytes.Equal(body.Chain[0], leaf.Raw) || test.state == "" {
					q.answer(503, nil)
					return
				}
				text, err := auth.SignStatuses(s.signer, time.Now(), []auth.Status{{Certificate: sha256.Sum256(leaf.Raw), State: test.state, Until: time.Now().Add(time.Hour)}})
				if err != nil {
					t.Error(err)
				}
				q.answer(200, []byte(text))
			})
			in.publish(s.signedContent(t, 1, func(p *cmg.Publication) { named(p); p.Revocation.Mode = test.mode }))
			c := r.client(&s.device, false)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					resp, err := c.Do(r.request("GET", "/any/x", nil))
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
					if code := resp.Header.Get(web.RefusalHeader); code != test.code {
						t.Errorf("%q, want %q", code, test.code)
					}
				})
			}
			wg.Wait()
			if code := r.code(c, "/any/x"); code != test.code || asked.Load() != 1 {
				t.Errorf("%q, want %q; asked %d times", code, test.code, asked.Load())
			}
		})
	}
}

// A client asks nothing of what is for gateways alone.
func TestInsideIsClosedToClients(t *testing.T) {
	t.Parallel()
	r, in := start(t, echo)
	c := r.client(&r.site.device, false)
	before := in.streams.Load()
	for _, path := range []string{cmg.InsideRevoked, cmg.InsideCertificate, cmg.InsideTenant, strings.ToUpper(cmg.InsidePath)} {
		if code := r.code(c, path); code != "CMGService_Not_Published" {
			t.Errorf("%s: %q", path, code)
		}
	}
	if n := in.streams.Load() - before; n != 0 {
		t.Errorf("%d requests went inward", n)
	}
	if err := (cmg.Route{Prefix: "/CMG/v1/inside/x", Methods: []string{"GET"}, Proofs: []cmg.Proof{cmg.ProofToken}}).Check(); err == nil {
		t.Error("a route may lead there")
	}
}
