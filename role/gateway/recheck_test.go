package gateway

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// A connection of another protocol ends when its caller would be refused: by
// a publication that says so, and by what ends without any.
func TestRecheck(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	responder := func(p *cmg.Publication) {
		p.Revocation.Issuers = []cmg.IssuerRevocation{{Issuer: auth.IssuerID(s.clients.Certificate()), OCSP: []string{"http://ocsp.inside/"}}}
	}
	for name, test := range map[string]struct {
		before, after func(*cmg.Publication) // after nil: no publication comes
		every         time.Duration
	}{
		"its authority is trusted no more": {func(*cmg.Publication) {}, func(p *cmg.Publication) { p.Anchors = nil }, time.Hour},
		"its path is published no more":    {func(*cmg.Publication) {}, func(p *cmg.Publication) { p.Routes = p.Routes[:1] }, time.Hour},
		"other proofs are wanted there": {func(*cmg.Publication) {}, func(p *cmg.Publication) {
			for i := range p.Routes {
				p.Routes[i].Proofs = []cmg.Proof{cmg.ProofToken}
			}
		}, time.Hour},
		"what its responder said has ended": {responder, nil, 10 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := run(t, s.config(t), func(g *Gateway) { g.limits.recheck = test.every })
			in := r.connect("cp-1", func(q *request) {
				if string(q.head.Target) != cmg.InsideCertificate {
					echoed(q)
					return
				}
				q.body()
				good := auth.Status{Certificate: sha256.Sum256(deviceLeaf(t, s).Raw), State: auth.StatusGood, Until: time.Now().Add(time.Second)}
				q.answer(200, []byte(must[string](t)(auth.SignStatuses(s.signer, time.Now(), []auth.Status{good}))))
			})
			in.publish(s.signedContent(t, 1, test.before))
			w := r.upgraded()
			if test.after != nil {
				in.publish(s.signedContent(t, 2, test.after))
			}
			w.over()
		})
	}
}
