package auth

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/opencmg/cmg"
)

// Evidence is what a request shows of its caller.
type Evidence struct {
	// Certificates is what the client showed in the TLS handshake, its own
	// first: the handshake has proven that it holds the key of that one, and
	// nothing more.
	Certificates []*x509.Certificate
	// Authorization is the header's value.
	Authorization string
}

// A Verifier proves a caller in one way.
type Verifier interface {
	// Verify judges e at a time. It gives a caller with at least Proof and
	// NotAfter set, or a *cmg.Refusal (status 401 or 403) whose code says
	// which rule was broken, also where e does not hold its kind of proof at
	// all. It may be called by many goroutines at once and does no I/O.
	Verify(e Evidence, at time.Time) (cmg.Caller, error)
}

// A Trust judges callers by what the site published. It never changes: a new
// publication makes a new one. It may be used by many goroutines at once.
type Trust struct {
	certificates, tokens, entra Verifier
	content                     *Tokens
	blocks                      *blocks // nil: nobody is shut out
}

// NewTrust makes the judge of a publication. The error names the anchor or
// key that cannot be used.
func NewTrust(p cmg.Publication) (*Trust, error) { return NewTrustWith(p, Known{}) }

// NewTrustWith is NewTrust for a gateway that knows which certificates are
// revoked.
func NewTrustWith(p cmg.Publication, k Known) (*Trust, error) {
	if err := p.Check(); err != nil {
		return nil, err
	}
	certs, err := newCertificates(p.Site, p.Anchors, newRevocations(p.Revocation, k))
	if err != nil {
		return nil, fmt.Errorf("publication %d: %w", p.Version, err)
	}
	tokens, err := NewTokens(p.Site, p.Keys)
	if err != nil {
		return nil, fmt.Errorf("publication %d: %w", p.Version, err)
	}
	tokens.hierarchy = p.Hierarchy
	entra, err := newEntra(p.Tenants)
	if err != nil {
		return nil, fmt.Errorf("publication %d: %w", p.Version, err)
	}
	return &Trust{certificates: certs, tokens: tokenProof{tokens}, entra: entra, content: tokens, blocks: newBlocks(p.Blocks)}, nil
}

// Verify proves the caller by any one of the allowed proofs, tried in their
// order. When none holds, the refusal is that of the first one that was
// shown, or says what to show; of a token that is not the site's, the
// refusal is that of the Entra proof.
func (t *Trust) Verify(e Evidence, allowed []cmg.Proof, at time.Time) (cmg.Caller, error) {
	var refused, missing error
	var by cmg.Proof // whose refusal it is
	for _, p := range allowed {
		var v Verifier
		switch p {
		case cmg.ProofCertificate:
			v = t.certificates
		case cmg.ProofToken:
			v = t.tokens
		case cmg.ProofEntra:
			v = t.entra
		default:
			continue // of a later release
		}
		c, err := v.Verify(e, at)
		switch {
		case err == nil:
			return c, t.blocks.refuse(&c, e.Certificates)
		case notShown(err):
			if missing == nil || p != cmg.ProofCertificate {
				missing = err
			}
		case refused == nil, by != cmg.ProofCertificate && p != cmg.ProofCertificate && (p == cmg.ProofEntra) == ofEntra(e.Authorization):
			refused, by = err, p
		}
	}
	switch {
	case refused != nil:
		return cmg.Caller{}, refused
	case missing != nil:
		return cmg.Caller{}, missing
	}
	return cmg.Caller{}, cmg.Refuse(http.StatusForbidden, "CMGService_Forbidden", "no proof lets a caller in here", nil)
}

// notShown tells a proof that is absent from one that does not hold.
func notShown(err error) bool {
	var r *cmg.Refusal
	return errors.As(err, &r) && (r.Code == codeRequired || r.Code == codeCertificateRequired)
}

// Content judges the Authorization header of a request for the locations of a
// package's files: it has to hold a content token. Whether the token grants
// the package that is asked for is the caller's to check.
func (t *Trust) Content(authorization string, at time.Time) (Claims, error) {
	token, ok := bearer(authorization)
	if !ok {
		return Claims{}, cmg.Refuse(http.StatusUnauthorized, codeRequired, "no content token was shown", nil)
	}
	c, err := t.content.Verify(token, at, TokenContent)
	if err != nil {
		return Claims{}, err
	}
	return c, t.blocks.refuse(&cmg.Caller{Proof: cmg.ProofToken, Device: c.Device, TokenID: c.ID}, nil)
}

// tokenProof is the Verifier of site tokens. All kinds but the content token
// hold here; which route a kind opens the gateway decides, and what each may
// do there the management point.
type tokenProof struct{ tokens *Tokens }

func (p tokenProof) Verify(e Evidence, at time.Time) (cmg.Caller, error) {
	token, ok := bearer(e.Authorization)
	if !ok {
		return cmg.Caller{}, cmg.Refuse(http.StatusUnauthorized, codeRequired, "no token was shown", nil)
	}
	c, err := p.tokens.Verify(token, at, TokenSession, TokenDevice, TokenRegistration, TokenGrace)
	if err != nil {
		return cmg.Caller{}, err
	}
	return cmg.Caller{
		Proof:     cmg.ProofToken,
		Device:    c.Device,
		Name:      c.Note,
		TokenID:   c.ID,
		TokenKind: string(c.Kind),
		NotAfter:  c.Expires,
	}, nil
}
