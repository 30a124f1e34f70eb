package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/opencmg/cmg"
)

// A TokenKind says what a token is for.
type TokenKind string

const (
	TokenRegistration TokenKind = "registration" // lets a device register; handed out by an administrator
	TokenDevice       TokenKind = "device"       // lets a device ask for session tokens, with proof of its key
	TokenSession      TokenKind = "session"      // lets a device talk to the management point
	TokenContent      TokenKind = "content"      // lets a device fetch the packages it names

	// TokenGrace is what a device token is after its end, for as long as its
	// own grace lasts: good for the exchange that renews it, with proof of the
	// device's key, and for nothing else. None is ever issued as such.
	TokenGrace TokenKind = "device-grace"
)

const (
	issuerPrefix    = "urn:cmg:site:" // followed by the site code
	audienceGateway = "urn:cmg:gateway"
	audienceContent = "urn:cmg:content"

	// A registration token says these where its hierarchy is known, as the
	// field's bulk registration tokens do (PROTOCOL 4.6).
	fieldIssuer   = "urn:sccm:oauth2:" // followed by the hierarchy's GUID, lower case
	fieldAudience = "urn:sccm:service"

	maxToken = 8 << 10              // bytes of a token
	maxLife  = 100 * 24 * time.Hour // from nbf to exp
	// MaxGrace bounds how long after its end a device token may be renewed.
	MaxGrace = 90 * 24 * time.Hour
	// skew is how far another machine's clock may be ahead of this one. What
	// has expired gets no such allowance.
	skew = time.Minute

	tokenCache = 16 << 10 // tokens remembered; about 500 bytes each

	codeToken    = "CMGService_Invalid_Token"
	codeRequired = "CMGService_Authentication_Required"
)

// Claims is what a token says.
type Claims struct {
	Kind      TokenKind
	ID        string             // the token's own id, a GUID where Issue made it
	Site      string             // site code
	Device    cmg.DeviceID       // whom it was issued to; empty for TokenRegistration
	Packages  []cmg.PackageGrant // TokenContent only
	Note      string             // the administrator's, shown in logs
	Hierarchy string             // TokenRegistration only: GUID of the hierarchy, lower case; empty: not said
	Grace     time.Duration      // TokenDevice only: how long after Expires it may be renewed. Whole seconds
	NotBefore time.Time          // zero when issuing: now. Whole seconds
	Expires   time.Time          // whole seconds
}

// audience is whom a kind of token is for.
func (k TokenKind) audience() string {
	if k == TokenContent {
		return audienceContent
	}
	return audienceGateway
}

// check says what is wrong with c, whoever issues or reads it.
func (c Claims) check() error {
	bad := func(why string) error { return fmt.Errorf("%s token: %s: %w", c.Kind, why, cmg.ErrInvalid) }
	switch c.Kind {
	case TokenRegistration:
	case TokenDevice, TokenSession, TokenContent:
		if c.Device == "" {
			return bad("it names no device")
		}
	default:
		return fmt.Errorf("token of unknown kind %.40q: %w", c.Kind, cmg.ErrInvalid)
	}
	switch {
	case c.Site == "":
		return bad("it names no site")
	case len(c.ID) > 64 || len(c.Note) > 256:
		return bad("its id or note is too long")
	case !c.Expires.After(c.NotBefore):
		return bad("it ends before it begins")
	case c.Expires.Sub(c.NotBefore) > maxLife:
		return bad("it lives for more than 100 days")
	case c.Grace < 0 || c.Grace > MaxGrace || c.Grace > 0 && c.Kind != TokenDevice:
		return bad("its grace is longer than 90 days, or it is no device token")
	case (c.Kind == TokenContent) != (len(c.Packages) > 0):
		return bad("packages stand in content tokens, and in no other")
	}
	return nil
}

// Tokens checks the tokens of one site. It may be used by many goroutines at
// once.
type Tokens struct {
	site string
	// hierarchy is the GUID that bulk registration tokens name, lower case;
	// empty: not known.
	hierarchy string
	keys      map[string]verifyKey
	cache     *cache[[sha256.Size]byte, Claims]
}

type verifyKey struct {
	alg jose.SignatureAlgorithm
	key any // *ecdsa.PublicKey or ed25519.PublicKey
}

// NewTokens makes a checker of the site's tokens from its public keys (JWK,
// RFC 7517), each of which needs a kid. With no keys it refuses every token.
func NewTokens(site string, keys []json.RawMessage) (*Tokens, error) {
	if site == "" {
		return nil, fmt.Errorf("token keys: no site: %w", cmg.ErrInvalid)
	}
	t := &Tokens{
		site:  site,
		keys:  make(map[string]verifyKey, len(keys)),
		cache: newCache[[sha256.Size]byte, Claims](tokenCache),
	}
	for i, raw := range keys {
		var k jose.JSONWebKey
		if err := json.Unmarshal(raw, &k); err != nil {
			return nil, fmt.Errorf("token key %d: %w: %w", i+1, err, cmg.ErrInvalid)
		}
		alg, err := publicAlgorithm(&k)
		if err != nil {
			return nil, fmt.Errorf("token key %d (%.80q): %w", i+1, k.KeyID, err)
		}
		if _, twice := t.keys[k.KeyID]; twice || k.KeyID == "" {
			return nil, fmt.Errorf("token key %d: key id %.80q is empty or stands twice: %w", i+1, k.KeyID, cmg.ErrInvalid)
		}
		t.keys[k.KeyID] = verifyKey{alg, k.Key}
	}
	return t, nil
}

// publicAlgorithm gives the one algorithm a published key may be used with.
// It comes from the key, never from a token: so a public key can never be
// taken for a shared secret.
func publicAlgorithm(k *jose.JSONWebKey) (jose.SignatureAlgorithm, error) {
	if !k.IsPublic() || !k.Valid() {
		return "", fmt.Errorf("it is not a valid public key: %w", cmg.ErrInvalid)
	}
	alg := jose.SignatureAlgorithm("")
	switch key := k.Key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			alg = jose.ES256
		}
	case ed25519.PublicKey:
		alg = jose.EdDSA
	}
	if alg == "" || (k.Algorithm != "" && k.Algorithm != string(alg)) || (k.Use != "" && k.Use != "sig") {
		return "", fmt.Errorf("only keys for signing with ES256 or EdDSA serve: %w", cmg.ErrInvalid)
	}
	return alg, nil
}

// refuseToken says no to a token; suffix, if any, begins with an underscore.
func refuseToken(suffix, why string, cause error) error {
	return cmg.Refuse(http.StatusUnauthorized, codeToken+suffix, why, cause)
}

// Verify checks token at a time and gives what it says, if it is one of
// kinds. The error is a *cmg.Refusal with status 401 and code
// CMGService_Invalid_Token, followed by the reason where there is a narrower
// one. The result is remembered until it expires.
func (t *Tokens) Verify(token string, at time.Time, kinds ...TokenKind) (Claims, error) {
	if len(token) > maxToken {
		return Claims{}, refuseToken("", "the token is longer than 8 KiB", nil)
	}
	sum := digest(token)
	c, ok := t.cache.get(sum, at)
	if !ok {
		var err error
		if c, err = t.open(token); err != nil {
			return Claims{}, err
		}
	}
	if !slices.Contains(kinds, c.Kind) {
		return Claims{}, refuseToken("_Wrong_Kind", "a "+string(c.Kind)+" token does not serve here", nil)
	}
	if ok {
		c.Packages = slices.Clone(c.Packages)
		return c, nil
	}
	switch {
	case at.Before(c.NotBefore.Add(-skew)):
		return Claims{}, refuseToken("_Not_Yet_Valid", "the token is not valid before "+c.NotBefore.Format(time.RFC3339), nil)
	case !at.Before(c.Expires) && at.Before(c.Expires.Add(c.Grace)) && slices.Contains(kinds, TokenGrace):
		c.Kind, c.Expires = TokenGrace, c.Expires.Add(c.Grace)
		return c, nil
	case !at.Before(c.Expires):
		return Claims{}, refuseToken("_Expired", "the token expired "+c.Expires.Format(time.RFC3339), nil)
	}
	t.cache.put(sum, kept[Claims]{c, c.NotBefore.Add(-skew), c.Expires}, at)
	c.Packages = slices.Clone(c.Packages)
	return c, nil
}

// open checks everything about a token that no clock changes.
func (t *Tokens) open(token string) (Claims, error) {
	h, err := readHeader(token, "JWT")
	if err != nil {
		return Claims{}, refuseToken("", "the token is malformed", err)
	}
	if h.alg != jose.ES256 && h.alg != jose.EdDSA {
		return Claims{}, refuseToken("", "the token's algorithm is not ES256 or EdDSA", nil)
	}
	key, ok := t.keys[h.kid]
	if !ok {
		return Claims{}, refuseToken("_Unknown_Key", "the token was signed by a key this site does not use", nil)
	}
	payload, err := verifyCompact(token, h.alg, key)
	if err != nil {
		return Claims{}, refuseToken("", "the token's signature does not hold", err)
	}
	c, aud, iss, err := readClaims(payload)
	if err != nil {
		return Claims{}, refuseToken("", "the token's claims are malformed", err)
	}
	wanted := c.Kind.audience()
	switch {
	case iss == issuerPrefix+t.site:
	case c.Kind == TokenRegistration && t.hierarchy != "" && iss == fieldIssuer+t.hierarchy:
		wanted = fieldAudience
	default:
		return Claims{}, refuseToken("_Wrong_Site", "the token was issued by another site", nil)
	}
	if aud != wanted {
		return Claims{}, refuseToken("_Wrong_Audience", "the token is meant for another service", nil)
	}
	if c.Site = t.site; c.check() != nil {
		return Claims{}, refuseToken("", "the token's claims do not fit together", c.check())
	}
	return c, nil
}

// bearer takes the token out of an Authorization header's value (RFC 6750
// section 2.1).
func bearer(authorization string) (token string, ok bool) {
	const scheme = "Bearer "
	if len(authorization) <= len(scheme) || !strings.EqualFold(authorization[:len(scheme)], scheme) {
		return "", false
	}
	return strings.TrimLeft(authorization[len(scheme):], " "), true
}
