package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/opencmg/cmg"
)

const (
	codeCertificate         = "CMGService_Certificate"
	codeCertificateRequired = "CMGService_Client_Certificate_Required"

	maxShown = 10   // certificates a client may show
	maxRSA   = 8192 // bits: past it, one check of a signature costs seconds

	certificateCache = 16 << 10 // certificates remembered; about 500 bytes each
)

// certificates is the Verifier of TLS client certificates. Chains end in a
// published root; on the way they may pass published intermediates, so that a
// client need not send them.
type certificates struct {
	site           string
	roots, between *x509.CertPool
	revoked        *revocations
	cache          *cache[[sha256.Size]byte, cmg.Caller]
}

func newCertificates(site string, anchors []string, revoked *revocations) (*certificates, error) {
	if len(anchors) > cmg.MaxAnchors {
		return nil, fmt.Errorf("%d trust anchors, at most %d: %w", len(anchors), cmg.MaxAnchors, cmg.ErrTooLarge)
	}
	v := &certificates{
		site:    site,
		roots:   x509.NewCertPool(),
		between: x509.NewCertPool(),
		revoked: revoked,
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
			case IsRoot(c):
				v.roots.AddCert(c)
			default:
				v.between.AddCert(c)
			}
		}
	}
	return v, nil
}

// IsRoot tells a root from an intermediate by its names. Its signature is not
// asked: nobody checks a root's, and that of an old one may be SHA-1.
func IsRoot(c *x509.Certificate) bool {
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
	sure, err := v.revoked.judge(chains, at)
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
	if sure.Before(until) {
		until = sure
	}
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
		return nil, certificateFault(err, shown, at)
	}
	return strongest(chains)
}

// minRSA is the shortest RSA key that proves anything (NIST SP 800-131A).
const minRSA = 2048

// weakness says why what a certificate rests on can be forged; empty: it
// cannot. A root's own signature is not asked.
func weakness(c *x509.Certificate, root bool) string {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		if !root {
			return "is signed with " + c.SignatureAlgorithm.String()
		}
	}
	if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < minRSA {
		return fmt.Sprintf("has an RSA key of %d bits", key.N.BitLen())
	}
	if key, ok := c.PublicKey.(*ecdsa.PublicKey); ok && key.Curve.Params().BitSize < 256 {
		return "has a key on the curve " + key.Curve.Params().Name
	}
	return ""
}

// strongest gives the chains in which nothing is weak.
func strongest(chains [][]*x509.Certificate) ([][]*x509.Certificate, error) {
	var weak error
	strong := slices.DeleteFunc(chains, func(chain []*x509.Certificate) bool {
		for i, c := range chain {
			if why := weakness(c, i == len(chain)-1); why != "" {
				weak = refuseWeak(whose(i) + " " + why)
				return true
			}
		}
		return false
	})
	if len(strong) == 0 {
		return nil, weak
	}
	return strong, nil
}

// certificateFault gives the refusal for what the library found.
func certificateFault(err error, shown []*x509.Certificate, at time.Time) error {
	leaf := shown[0]
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return unknownIssuer(shown, err)
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

// unknownIssuer tells a weak signature, which the library does not look at, a
// root that is not trusted, and a link that is missing, apart.
func unknownIssuer(shown []*x509.Certificate, err error) error {
	for i, c := range shown {
		if why := weakness(c, IsRoot(c) && i > 0); why != "" {
			return refuseWeak(whose(i) + " " + why)
		}
	}
	for i, c := range shown {
		if IsRoot(c) {
			why := "the client certificate leads to a root that this site does not trust: " + nameOf(c.Subject)
			if i == 0 {
				why = "the client certificate vouches for itself, and this site does not trust it"
			}
			return refuseCertificate("_Unknown_Root", why, err)
		}
	}
	return refuseCertificate("_Unknown_Issuer", "no certificate is known of the authority that issued the client certificate, or one above it: "+nameOf(shown[len(shown)-1].Issuer), err)
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

// subjectOf gives the subject for people to read, or the first other name
// where that is empty.
func subjectOf(c *x509.Certificate) string {
	switch {
	case len(c.Subject.Names) > 0:
	case len(c.DNSNames) > 0:
		return plainText("DNS:" + c.DNSNames[0])
	case len(c.EmailAddresses) > 0:
		return plainText("email:" + c.EmailAddresses[0])
	case len(c.URIs) > 0:
		return plainText("URI:" + c.URIs[0].String())
	}
	return nameOf(c.Subject)
}

func nameOf(n pkix.Name) string { return plainText(n.String()) }

// plainText makes what a stranger wrote fit to be shown: bounded, and without
// what a log or a terminal would obey.
func plainText(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) { // Cf turns the direction of a line
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

// ParseCertificates reads every certificate of a PEM text, in its order.
func ParseCertificates(pem []byte) ([]*x509.Certificate, error) {
	if len(bytes.TrimSpace(pem)) == 0 {
		return nil, nil
	}
	return certificatesIn(pem)
}

// CheckChain says why a chain, own certificate first and root last, does not
// hold: each has to be issued by the next one, and one of the anchors has to
// be the last.
func CheckChain(chain, anchors []*x509.Certificate, at time.Time) error {
	for i, c := range chain[:len(chain)-1] {
		if key, ok := chain[i+1].PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
			return fmt.Errorf("%s has an RSA key of more than %d bits: %w", chain[i+1].Subject, maxRSA, cmg.ErrInvalid)
		}
		if err := c.CheckSignatureFrom(chain[i+1]); err != nil {
			return fmt.Errorf("%s is not issued by %s: %w: %w", c.Subject, chain[i+1].Subject, err, cmg.ErrUnauthenticated)
		}
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			return fmt.Errorf("%s is not valid now: %w", c.Subject, cmg.ErrUnauthenticated)
		}
	}
	last := chain[len(chain)-1]
	if !slices.ContainsFunc(anchors, last.Equal) {
		return fmt.Errorf("%s is no authority of this site: %w", last.Subject, cmg.ErrUnauthenticated)
	}
	return nil
}

// Doubts says what is odd about an authority that somebody wants to trust; it
// is trusted all the same.
func Doubts(c *x509.Certificate, at time.Time) (all []string) {
	if at.After(c.NotAfter) {
		all = append(all, "it expired "+c.NotAfter.UTC().Format(time.RFC3339))
	}
	if why := weakness(c, IsRoot(c)); why != "" {
		all = append(all, why+": what it issued is refused")
	}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		all = append(all, "its key usage does not let it issue certificates")
	}
	return all
}
