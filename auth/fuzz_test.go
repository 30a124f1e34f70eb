package auth

import (
	"crypto/ecdsa"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

var fuzzSeeds = []string{
	"", ".", "..", "...", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "e30.e30.", "bnVsbA.bnVsbA.AA", "\n.\n.\n",
	b64(`{"alg":"ES256","kid":"x","typ":"JWT","crit":["exp"]}`) + ".e30.AA",
	b64(`{"alg":"HS256","kid":"../x","typ":"JWT"}`) + "." + b64(`{"exp":1e400}`) + ".AA",
	b64(strings.Repeat("[", 300)) + ".e30.AA", b64(strings.Repeat(`{"a":`, 300)) + ".e30.AA",
}

// FuzzToken: whatever comes is refused or is one of the tokens that were
// issued. Bytes that are no token at all also go into the parsers behind the
// signature, as header and as claims.
func FuzzToken(f *testing.F) {
	k := must[*Keyring](f)(NewKeyring())
	tokens := must[*Tokens](f)(NewTokens(testSite, k.PublicKeys()))
	now := time.Now()
	good := must[string](f)(k.Issue(session(now)))
	for _, s := range append(fuzzSeeds, good, good[:len(good)-1], good+"A", `{"iss":"urn:cmg:site:LAB","aud":"","knd":"","jti":"","nbf":0,"exp":1,"pkg":[]}`, `{"a":{"b":[1,{"b":1,"b":2}]}}`) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := tokens.Verify(s, now, TokenSession, TokenDevice, TokenRegistration, TokenContent); err == nil && (s != good || c.Device != deviceA) {
			t.Errorf("%q passes as %+v", s, c)
		}
		if c, _, _, err := readClaims([]byte(s)); err == nil && c.check() == nil && c.Expires.Sub(c.NotBefore) > maxLife {
			t.Errorf("%q lives for %v", s, c.Expires.Sub(c.NotBefore))
		}
		readHeader(b64(s)+".e30.AA", "JWT")
		if token, ok := bearer(s); ok && !strings.HasSuffix(s, token) {
			t.Errorf("%q holds token %q", s, token)
		}
	})
}

// FuzzCallerHeader: whatever comes is refused or is what the gateway signed.
func FuzzCallerHeader(f *testing.F) {
	now := time.Now()
	gw := identity(f, newAuthority(f, "site CA"), cmg.RoleGateway, "gw1")
	reader := NewCallerReader(registerOf(gw).find)
	good := must[string](f)(NewCallerSigner(gw).Sign(testCaller(now), now))
	kid := Thumbprint(gw.Certificate())
	for _, s := range append(fuzzSeeds, good, good[:len(good)-1], `{"caller":{"proof":"token","gateway":"gw1"},"iat":1,"exp":2}`, `{"iat":9223372036854775807,"exp":-9223372036854775808}`) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := reader.Read(t.Context(), s, now); err == nil && s != good {
			t.Errorf("%q passes as %+v", s, c)
		}
		if len(s) > maxToken/2 {
			return
		}
		// Signed by the gateway, any payload may come: it must not surprise.
		signed := signRaw(t, gw.key().(*ecdsa.PrivateKey), `{"alg":"ES256","kid":"`+kid+`","typ":"cmg-caller+jwt"}`, s)
		if c, err := reader.Read(t.Context(), signed, now); err == nil && c.Gateway != "gw1" {
			t.Errorf("%q passes as %+v", s, c)
		}
	})
}
