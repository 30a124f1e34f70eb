package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/opencmg/cmg"
)

// CallerHeader is the header in which a gateway tells the inside who called.
// A gateway takes it off whatever a client sends.
const CallerHeader = "CMG-Caller"

const (
	callerType  = "cmg-caller+jwt"
	callerLife  = 5 * time.Minute
	callerFresh = time.Minute // a signature is used again while this much is left
	callerCache = 8 << 10     // callers remembered; about 1.5 KiB each

	codeCaller = "CMGSite_Invalid_Caller"
)

// callerClaims is the payload of the header.
type callerClaims struct {
	Caller  cmg.Caller `json:"caller"`
	Issued  int64      `json:"iat"`
	Expires int64      `json:"exp"`
}

// A CallerSigner writes the header. It may be used by many goroutines at once.
type CallerSigner struct {
	id    *Identity
	kid   string
	cache *cache[cmg.Caller, string]
}

// NewCallerSigner makes the signer of a gateway, whose channel certificate
// has to have an ECDSA P-256 key.
func NewCallerSigner(id *Identity) *CallerSigner {
	return &CallerSigner{id: id, kid: Thumbprint(id.Certificate()), cache: newCache[cmg.Caller, string](callerCache)}
}

// Sign gives the header's value for c: a compact JWS (ES256) whose kid is the
// thumbprint of the gateway's channel certificate, good for five minutes from
// at. It sets c.Gateway to the name in that certificate. Equal callers get
// the same text while a minute of it is left.
func (s *CallerSigner) Sign(c cmg.Caller, at time.Time) (string, error) {
	c.Gateway = s.id.Name().Name
	if header, ok := s.cache.get(c, at); ok {
		return header, nil
	}
	key, ok := s.id.key().(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return "", fmt.Errorf("sign caller: the key of %s is not ECDSA P-256: %w", s.id.Name(), cmg.ErrInvalid)
	}
	issued := at.Truncate(time.Second)
	header, err := signCompact(jose.ES256, key, s.kid, callerType, callerClaims{c, issued.Unix(), issued.Add(callerLife).Unix()})
	if err != nil {
		return "", fmt.Errorf("sign caller: %w", err)
	}
	return s.cache.put(c, kept[string]{header, issued, issued.Add(callerLife - callerFresh)}, at), nil
}

// A CallerReader reads the header. It may be used by many goroutines at once.
type CallerReader struct {
	find  func(ctx context.Context, thumbprint string) (*x509.Certificate, error)
	cache *cache[[sha256.Size]byte, cmg.Caller]
}

// NewCallerReader makes a reader. find gives the certificate of a thumbprint,
// but only one that the site issued; where there is none its error is
// cmg.ErrNotFound.
func NewCallerReader(find func(ctx context.Context, thumbprint string) (*x509.Certificate, error)) *CallerReader {
	return &CallerReader{find: find, cache: newCache[[sha256.Size]byte, cmg.Caller](callerCache)}
}

func refuseCaller(suffix, why string, cause error) error {
	return cmg.Refuse(http.StatusUnauthorized, codeCaller+suffix, why, cause)
}

// Read gives the caller that a gateway of the site signed. A header that does
// not hold is a *cmg.Refusal with status 401 and code CMGSite_Invalid_Caller,
// followed by _Expired, _Not_Yet_Valid or _Unknown_Gateway where that is the
// reason; any other error is find's. The clocks of gateway and site may be a
// minute apart. What was read is remembered while it holds.
func (r *CallerReader) Read(ctx context.Context, header string, at time.Time) (cmg.Caller, error) {
	if len(header) > maxToken {
		return cmg.Caller{}, refuseCaller("", "the caller header is longer than 8 KiB", nil)
	}
	sum := digest(header)
	if c, ok := r.cache.get(sum, at); ok {
		return c, nil
	}
	h, err := readHeader(header, callerType)
	if err != nil {
		return cmg.Caller{}, refuseCaller("", "the caller header is malformed", err)
	}
	cert, err := r.gateway(ctx, h.kid, at)
	if err != nil {
		return cmg.Caller{}, err
	}
	claims, err := readCaller(header, h.alg, cert)
	if err != nil {
		return cmg.Caller{}, err
	}
	from, until := time.Unix(claims.Issued, 0).Add(-skew), time.Unix(claims.Expires, 0).Add(skew)
	switch {
	case at.Before(from):
		return cmg.Caller{}, refuseCaller("_Not_Yet_Valid", "the caller header is of a later time: the gateway's clock is ahead, or the site's behind", nil)
	case !at.Before(until):
		return cmg.Caller{}, refuseCaller("_Expired", "the caller header has expired", nil)
	}
	if cert.NotAfter.Before(until) {
		until = cert.NotAfter
	}
	return r.cache.put(sum, kept[cmg.Caller]{claims.Caller, from, until}, at), nil
}

// gateway gives the certificate that kid names, if it is a gateway's that is
// valid.
func (r *CallerReader) gateway(ctx context.Context, kid string, at time.Time) (*x509.Certificate, error) {
	unknown := func(why string, cause error) error { return refuseCaller("_Unknown_Gateway", why, cause) }
	if len(kid) != 2*sha256.Size {
		return nil, unknown("the caller header names no certificate", nil)
	}
	cert, err := r.find(ctx, kid)
	if errors.Is(err, cmg.ErrNotFound) {
		return nil, unknown("the caller header was signed by no gateway of this site", err)
	}
	if err != nil {
		return nil, fmt.Errorf("find gateway's certificate %s: %w", kid, err)
	}
	if cert == nil || Thumbprint(cert) != kid {
		return nil, unknown("the caller header was signed by no gateway of this site", nil)
	}
	if name, ok := RoleOf(cert); !ok || name.Role != cmg.RoleGateway {
		return nil, unknown("the caller header was signed by a role that is no gateway", nil)
	}
	if at.Before(cert.NotBefore) || at.After(cert.NotAfter) {
		return nil, unknown("the gateway's certificate is not valid now", nil)
	}
	return cert, nil
}

// readCaller checks the signature and that the gateway speaks for itself.
func readCaller(header string, alg jose.SignatureAlgorithm, cert *x509.Certificate) (c callerClaims, err error) {
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return c, refuseCaller("", "the gateway's key is not ECDSA P-256", nil)
	}
	payload, err := verifyCompact(header, alg, verifyKey{jose.ES256, key})
	if err != nil {
		return c, refuseCaller("", "the caller header's signature does not hold", err)
	}
	_, err = readObject(payload)
	if err = errors.Join(err, json.Unmarshal(payload, &c)); err != nil {
		return c, refuseCaller("", "the caller header is malformed", err)
	}
	const maxUnix = 1 << 40
	life := time.Duration(c.Expires-c.Issued) * time.Second
	name, _ := RoleOf(cert)
	if c.Issued < 0 || c.Issued > maxUnix || c.Expires > maxUnix || life <= 0 || life > callerLife || c.Caller.Proof == cmg.ProofNone || c.Caller.Gateway != name.Name {
		return c, refuseCaller("", "the caller header does not fit its gateway", nil)
	}
	return c, nil
}
