package auth

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

const (
	codeCertificate         = "CMGService_Certificate"
	codeCertificateRequired = "CMGService_Client_Certificate_Required"

	maxAnchors = 256
	maxShown   = 10   // certificates a client may show
	maxRSA     = 8192 // bits: past it, one check of a signature costs seconds

	certificateCache = 16 << 10 // certificates remembered; about 500 bytes each
)

// certificates is the Verifier of TLS client certificates. Chains end in a
// published root; on the way they may pass published intermediates, so that a
// client need not send them.
type certificates struct {
	site           string
	roots, between *x509.CertPool
	cache          *cache[[sha256.Size]byte, cmg.Caller]
}

func newCertificates(site string, anchors []string) (*certificates, error) {
	if len(anchors) > maxAnchors {
		return nil, fmt.Errorf("%d trust anchors, at most %d: %w", len(anchors), maxAnchors, cmg.ErrTooLarge)
	}
	v := &certificates{
		site:    site,
		roots:   x509.NewCertPool(),
		between: x509.NewCertPool(),
		cache:   newCache[[sha256.Size]byte, cmg.Caller](certificateCache),
	}
	for i, text := range anchors {
		cs, err := certificatesIn([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("trust anchor %d: %w", i+1, err)
		}
		for _, c := range cs {
			switch {
			case !c.IsCA:
				return nil, fmt.Errorf("trust anchor %d: %s may not issue certificates: %w", i+1, c.Subject, cmg.ErrInvalid)
			case isRoot(c):
				v.roots.AddCert(c)
			default:
				v.between.AddCert(c)
			}
		}
	}
	return v, nil
}

// isRoot tells a root from an intermediate by its names. Its signature is not
// asked: nobody checks a root's, and that of an old one may be SHA-1.
func isRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) &&
		(len(c.AuthorityKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId))
}

func refuseCertificate(suffix, why string, cause error) error {
	return cmg.Refuse(http.StatusForbidden, codeCertificate+suffix, why, cause)
}

// Verify implements Verifier.
func (v *certificates) Verify(e Evidence, at time.Time) (cmg.Caller, error) {
	if len(e.Certificates) == 0 {
		return cmg.Caller{}, cmg.Refuse(http.StatusForbidden, codeCertificateRequired, "no client certificate was shown", nil)
	}
	leaf := e.Certificates[0]
	sum := sha256.Sum256(leaf.Raw)
	if c, ok := v.cache.get(sum, at); ok {
		return c, nil
	}
	chains, err := v.chains(e.Certificates, at)
	if err != nil {
		return cmg.Caller{}, err
	}
	c := cmg.Caller{
		Proof:      cmg.ProofCertificate,
		Device:     deviceOf(leaf, v.site),
		Name:       subjectOf(leaf),
		Thumbprint: hex.EncodeToString(sum[:]),
		NotAfter:   leaf.NotAfter.UTC(),
	}
	from, until := window(chains)
	return v.cache.put(sum, kept[cmg.Caller]{c, from, until}, at), nil
}

// chains builds every chain from what the client showed, or says which rule
// it broke.
func (v *certificates) chains(shown []*x509.Certificate, at time.Time) ([][]*x509.Certificate, error) {
	if len(shown) > maxShown {
		return nil, refuseCertificate("_Invalid", "more than 10 certificates were shown", nil)
	}
	between := v.between
	if len(shown) > 1 {
		between = between.Clone()
	}
	for i, c := range shown {
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
			return nil, refuseCertificate("_Invalid", "a certificate's RSA key is longer than 8192 bits", nil)
		}
		if i > 0 {
			between.AddCert(c)
		}
	}
	chains, err := shown[0].Verify(x509.VerifyOptions{
		Roots: v.roots, Intermediates: between, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, certificateFault(err, shown[0], at)
	}
	return chains, nil
}

// certificateFault gives the refusal for what the library found.
func certificateFault(err error, leaf *x509.Certificate, at time.Time) error {
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return refuseCertificate("_Unknown_Issuer", "the client certificate leads to no authority that this site trusts", err)
	}
	var bad x509.CertificateInvalidError
	if !errors.As(err, &bad) {
		return refuseCertificate("_Invalid", "the client certificate cannot be verified", err)
	}
	whose := "the client certificate"
	if bad.Cert != nil && !bad.Cert.Equal(leaf) {
		whose = "the certificate of an authority above the client's"
	}
	switch {
	case bad.Reason == x509.Expired && bad.Cert != nil && at.Before(bad.Cert.NotBefore):
		return refuseCertificate("_Not_Yet_Valid", whose+" is not valid before "+bad.Cert.NotBefore.UTC().Format(time.RFC3339), err)
	case bad.Reason == x509.Expired && bad.Cert != nil:
		return refuseCertificate("_Expired", whose+" expired "+bad.Cert.NotAfter.UTC().Format(time.RFC3339), err)
	case bad.Reason == x509.IncompatibleUsage:
		return refuseCertificate("_Wrong_Usage", "the client certificate is not for client authentication", err)
	}
	return refuseCertificate("_Invalid", "the client certificate cannot be verified", err)
}

// window gives the time in which the longest-lived of the chains holds.
func window(chains [][]*x509.Certificate) (from, until time.Time) {
	for _, chain := range chains {
		f, u := chain[0].NotBefore, chain[0].NotAfter
		for _, c := range chain[1:] {
			if c.NotBefore.After(f) {
				f = c.NotBefore
			}
			if c.NotAfter.Before(u) {
				u = c.NotAfter
			}
		}
		if u.After(until) {
			from, until = f, u
		}
	}
	return from, until
}

// subjectOf gives the subject for people to read: bounded, and without what a
// log or a terminal would obey.
func subjectOf(c *x509.Certificate) string {
	s := strings.ToValidUTF8(c.Subject.String(), "?")
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	const most = 256
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}
