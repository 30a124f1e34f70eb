package auth

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/opencmg/cmg"
)

const (
	maxOCSP     = 64 << 10         // bytes of an answer
	ocspAtMost  = time.Hour        // an answer is believed for no longer than this
	ocspAtLeast = 10 * time.Minute // how long one without an end is believed
)

// ocspRequest asks after c, which issuer issued.
func ocspRequest(c, issuer *x509.Certificate) ([]byte, error) {
	return ocsp.CreateRequest(c, issuer, &ocsp.RequestOptions{Hash: crypto.SHA1})
}

// readOCSP reads a responder's answer about c. It has to be signed by issuer,
// or by a certificate that issuer gave for this purpose.
func readOCSP(b []byte, c, issuer *x509.Certificate, at time.Time) (Status, error) {
	bad := func(format string, a ...any) (Status, error) {
		return Status{}, fmt.Errorf("OCSP answer: "+format+": %w", append(a, cmg.ErrInvalid)...)
	}
	// Without an issuer the library only checks that the certificate which
	// came along made the signature; with one it would take any certificate
	// of that issuer for the responder's, a client's too.
	r, err := ocsp.ParseResponseForCert(b, c, nil)
	if err != nil {
		return bad("%w", err)
	}
	switch d := r.Certificate; {
	case d == nil:
		err = r.CheckSignatureFrom(issuer)
	case bytes.Equal(d.Raw, issuer.Raw):
	case !slices.Contains(d.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		err = fmt.Errorf("%s may not sign it", d.Subject)
	case at.Before(d.NotBefore) || at.After(d.NotAfter):
		err = fmt.Errorf("the certificate of its signer %s is not valid now", d.Subject)
	default:
		err = d.CheckSignatureFrom(issuer)
	}
	if err != nil {
		return bad("%w", err)
	}
	end := r.NextUpdate
	if end.IsZero() {
		end = at.Add(ocspAtLeast)
	}
	switch {
	case r.ThisUpdate.After(at.Add(clockSkew)):
		return bad("it is of %s, which has not come", r.ThisUpdate.UTC().Format(time.RFC3339))
	case !end.After(at):
		return bad("it ended %s", end.UTC().Format(time.RFC3339))
	case r.NextUpdate.IsZero() && at.Sub(r.ThisUpdate) > 24*time.Hour:
		return bad("it is of %s and says no end", r.ThisUpdate.UTC().Format(time.RFC3339))
	}
	if last := at.Add(ocspAtMost); end.After(last) {
		end = last
	}
	s := Status{State: StatusUnknown, Until: end.UTC(), Why: "the responder does not know the certificate"}
	switch r.Status {
	case ocsp.Good:
		s.State, s.Why = StatusGood, ""
	case ocsp.Revoked:
		s.State, s.Why = StatusRevoked, "revoked "+r.RevokedAt.UTC().Format(time.RFC3339)
	}
	return s, nil
}
