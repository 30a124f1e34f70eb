package gateway

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// TestOlderPublication: a publication that comes late changes nothing, not
// even which lists of revoked certificates are wanted and kept.
func TestOlderPublication(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	doc := revokedDocument(deviceLeaf(t, s))
	r := run(t, s.config(t))
	in := r.connect("cp-1", func(q *request) {
		if strings.HasPrefix(string(q.head.Target), cmg.InsideRevoked) {
			q.answer(200, doc)
			return
		}
		echo(q)
	})
	in.publish(s.signedContent(t, 2, func(p *cmg.Publication) {
		p.Revocation.Lists = []cmg.RevocationListInfo{{Issuer: auth.IssuerID(s.clients.Certificate()), URL: "http://pki/x.crl", This: time.Now(), Next: time.Now().Add(time.Hour), Revoked: 1, Digest: sha256.Sum256(doc)}}
	}))
	q := r.gw.served.inquiry
	eventually(t, "the list is there", func() bool { return len(q.missing()) == 0 })
	version, old := s.publication(t, 1)
	if err := r.gw.takePublication(r.gw.served, version, old); !errors.Is(err, cmg.ErrConflict) {
		t.Fatalf("the older one: %v", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.want) != 1 {
		t.Errorf("%d lists are wanted behind an older publication, want 1", len(q.want))
	}
}
