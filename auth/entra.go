package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/opencmg/cmg"
)

const (
	maxEntraToken = 16 << 10 // bytes: those of users in many groups are long
	// maxEntraLife is what the longest tokens of Entra ID live, those of
	// continuous access evaluation (28 hours), and a reserve.
	maxEntraLife = 36 * time.Hour
	maxKeyID     = 256
)

// entraAlgorithms are what a tenant's tokens may be signed with.
var entraAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256}

// entra is the Verifier of tokens of Microsoft Entra ID: access tokens of
// OpenID Connect in the shapes of version 1.0 and 2.0, of known tenants.
type entra struct {
	tenants map[string]*entraTenant
	cache   *cache[[sha256.Size]byte, cmg.Caller]
}

type entraTenant struct {
	cmg.Tenant
	keys map[string]*jose.JSONWebKey
}

func newEntra(tenants []cmg.Tenant) (*entra, error) {
	v := &entra{tenants: make(map[string]*entraTenant, len(tenants)), cache: newCache[[sha256.Size]byte, cmg.Caller](tokenCache)}
	for _, t := range tenants {
		if err := t.Check(); err != nil {
			return nil, err
		}
		held := &entraTenant{Tenant: t, keys: map[string]*jose.JSONWebKey{}}
		for _, raw := range t.Keys {
			// One that cannot be used is passed over: tomorrow's kind of key
			// is not to take today's away.
			if k, err := readTenantKey(raw); err == nil {
				held.keys[k.KeyID] = k
			}
		}
		v.tenants[t.ID] = held
	}
	return v, nil
}

// readTenantKey reads a public key (JWK) that may sign a tenant's tokens.
func readTenantKey(raw json.RawMessage) (*jose.JSONWebKey, error) {
	var k jose.JSONWebKey
	if err := json.Unmarshal(raw, &k); err != nil {
		return nil, fmt.Errorf("read key: %w: %w", err, cmg.ErrInvalid)
	}
	bad := func(why string) (*jose.JSONWebKey, error) {
		return nil, fmt.Errorf("key %.80q: %s: %w", k.KeyID, why, cmg.ErrInvalid)
	}
	if k.KeyID == "" || len(k.KeyID) > maxKeyID || !k.IsPublic() || !k.Valid() || k.Use != "" && k.Use != "sig" {
		return bad("it is not a public key for signatures with a kid")
	}
	if k.Algorithm != "" && !slices.Contains(algorithmsOf(&k), jose.SignatureAlgorithm(k.Algorithm)) {
		return bad("its algorithm is not RS256, PS256 or ES256")
	}
	if len(algorithmsOf(&k)) == 0 {
		return bad("it is neither RSA of 2048 to 8192 bits nor ECDSA P-256")
	}
	return &k, nil
}

// algorithmsOf gives what a key may be used with. It comes from the key, and
// never from a token alone: a public key is never taken for a shared secret.
func algorithmsOf(k *jose.JSONWebKey) []jose.SignatureAlgorithm {
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n >= minRSA && n <= maxRSA {
			return []jose.SignatureAlgorithm{jose.RS256, jose.PS256}
		}
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return []jose.SignatureAlgorithm{jose.ES256}
		}
	}
	return nil
}

// An UnknownKey error says that a tenant's token names a key that was not
// published: the tenant may have a new one, which the site should look for.
type UnknownKey struct{ Tenant string }

func (u *UnknownKey) Error() string { return "tenant " + u.Tenant + " has no such key yet" }

// Verify implements Verifier.
func (v *entra) Verify(e Evidence, at time.Time) (cmg.Caller, error) {
	token, ok := bearer(e.Authorization)
	if !ok {
		return cmg.Caller{}, cmg.Refuse(http.StatusUnauthorized, codeRequired, "no token was shown", nil)
	}
	if len(token) > maxEntraToken {
		return cmg.Caller{}, refuseToken("", "the token is longer than 16 KiB", nil)
	}
	sum := digest(token)
	if c, ok := v.cache.get(sum, at); ok {
		return c, nil
	}
	c, from, err := v.open(token, at)
	if err != nil {
		return cmg.Caller{}, err
	}
	return v.cache.put(sum, kept[cmg.Caller]{c, from, c.NotAfter}, at), nil
}

// open checks everything. It gives the caller and since when the token holds.
func (v *entra) open(token string, at time.Time) (c cmg.Caller, from time.Time, err error) {
	h, payload, err := readForeign(token)
	if err != nil {
		return c, from, refuseToken("", "the token is malformed", err)
	}
	if !slices.Contains(entraAlgorithms, h.alg) {
		return c, from, refuseToken("_Algorithm", "the token's algorithm is not RS256, PS256 or ES256", nil)
	}
	claims, err := readEntraClaims(payload)
	if err != nil {
		return c, from, refuseToken("", "the token's claims are malformed", err)
	}
	t := v.tenants[claims.tenant]
	if t == nil {
		return c, from, refuseToken("_Unknown_Tenant", "the token is of a tenant that this site does not know", fmt.Errorf("tenant %.60q", claims.tenant))
	}
	key := t.keys[h.kid]
	if key == nil {
		return c, from, refuseToken("_Unknown_Key", "the token was signed by a key that its tenant is not known to use", &UnknownKey{t.ID})
	}
	if !slices.Contains(algorithmsOf(key), h.alg) {
		return c, from, refuseToken("_Algorithm", "the token's algorithm does not fit its key", nil)
	}
	if _, err := verifyCompact(token, h.alg, verifyKey{h.alg, key.Key}); err != nil {
		return c, from, refuseToken("_Signature", "the token's signature does not hold", err)
	}
	if from, err = t.admit(claims, at); err != nil {
		return c, from, err
	}
	return claims.caller(), from, nil
}

// admit holds what a token says against what is known of its tenant.
func (t *entraTenant) admit(c entraClaims, at time.Time) (from time.Time, err error) {
	if !slices.Contains(t.Issuers, c.issuer) || c.version != versionOf(c.issuer) {
		return from, refuseToken("_Wrong_Issuer", "the token was issued by another authority than its tenant's, or is of another version than it says", fmt.Errorf("issuer %.200q, version %.10q", c.issuer, c.version))
	}
	if !slices.ContainsFunc(c.audience, func(a string) bool { return slices.Contains(t.Audiences, a) }) {
		return from, refuseToken("_Wrong_Audience", "the token is meant for another service", fmt.Errorf("audience %.200q", c.audience))
	}
	if len(t.Apps) > 0 && !slices.Contains(t.Apps, c.app) {
		return from, refuseToken("_Wrong_Application", "the token was given to an application that this site does not let in", fmt.Errorf("application %.60q", c.app))
	}
	from = c.from.Add(-skew)
	switch {
	case at.Before(from):
		return from, refuseToken("_Not_Yet_Valid", "the token is not valid before "+c.from.Format(time.RFC3339), nil)
	case !at.Before(c.until):
		return from, refuseToken("_Expired", "the token expired "+c.until.Format(time.RFC3339), nil)
	case c.until.Sub(c.from) > maxEntraLife || c.until.Sub(at) > maxEntraLife:
		return from, refuseToken("_Too_Long_Lived", "the token would live for more than 36 hours", nil)
	}
	return from, nil
}

func versionOf(issuer string) string {
	if strings.HasSuffix(issuer, "/v2.0") {
		return "2.0"
	}
	return "1.0"
}

// readForeign takes a token apart that another house has made, without
// trusting it. Parameters of the header that would bring a key along, or that
// have to be understood, are refused; others that are not known are passed over.
func readForeign(token string) (h header, payload []byte, err error) {
	o, encoded, err := takeApart(token)
	if err != nil {
		return h, nil, err
	}
	var typ string
	for name, value := range o {
		var err error
		switch name {
		case "alg":
			err = json.Unmarshal(value, &h.alg)
		case "kid":
			err = json.Unmarshal(value, &h.kid)
		case "typ":
			err = json.Unmarshal(value, &typ)
		case "jwk", "jku", "x5c", "x5u", "crit", "b64", "zip", "enc":
			err = fmt.Errorf("not taken")
		}
		if err != nil {
			return h, nil, fmt.Errorf("header parameter %s: %w: %w", name, err, cmg.ErrInvalid)
		}
	}
	if typ != "" && !strings.EqualFold(typ, "JWT") && !strings.EqualFold(typ, "at+jwt") {
		return h, nil, fmt.Errorf("header: typ is not JWT: %w", cmg.ErrInvalid)
	}
	payload, err = base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return h, nil, fmt.Errorf("payload: %w: %w", err, cmg.ErrInvalid)
	}
	return h, payload, nil
}

// ofEntra says that an Authorization header holds a token that some other
// house than this site has issued.
func ofEntra(authorization string) bool {
	token, ok := bearer(authorization)
	if !ok || len(token) > maxEntraToken {
		return false
	}
	_, payload, err := readForeign(token)
	if err != nil {
		return false
	}
	o, err := readObject(payload)
	if err != nil {
		return false
	}
	var iss string
	return json.Unmarshal(o["iss"], &iss) == nil && !strings.HasPrefix(iss, "urn:") // a site's begin so; a tenant's are addresses
}
