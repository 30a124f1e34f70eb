package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// signRaw makes an ES256 token of any header and payload, also of those that
// no library would write.
func signRaw(t testing.TB, key *ecdsa.PrivateKey, header, payload string) string {
	t.Helper()
	input := b64(header) + "." + b64(payload)
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func session(at time.Time) Claims {
	return Claims{Kind: TokenSession, Site: testSite, Device: deviceA, NotBefore: at, Expires: at.Add(8 * time.Hour)}
}

func TestTokenRoundTrip(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k := must[*Keyring](t)(NewKeyring())
	tokens := must[*Tokens](t)(NewTokens(testSite, k.PublicKeys()))
	grant := []cmg.PackageGrant{{Package: "LAB00001", Version: 3, Manifest: sha256.Sum256([]byte("m"))}}
	for _, c := range []Claims{
		session(now),
		{Kind: TokenRegistration, ID: "my-id", Site: testSite, Note: "for the lab", NotBefore: now, Expires: now.Add(72 * time.Hour)},
		{Kind: TokenDevice, Site: testSite, Device: deviceA, NotBefore: now, Expires: now.Add(90 * day)},
		{Kind: TokenContent, Site: testSite, Device: deviceA, Packages: grant, NotBefore: now, Expires: now.Add(day)},
	} {
		t.Run(string(c.Kind), func(t *testing.T) {
			token := must[string](t)(k.Issue(c))
			for _, pass := range []string{"checked", "remembered"} {
				got, err := tokens.Verify(token, now.Add(time.Minute), c.Kind)
				if err != nil {
					t.Fatalf("%s: %v", pass, err)
				}
				if got.ID == "" || c.ID != "" && got.ID != c.ID {
					t.Errorf("id %q, want %q", got.ID, c.ID)
				}
				want := c
				want.ID = got.ID
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s (-want +got):\n%s", pass, d)
				}
				if len(got.Packages) > 0 {
					got.Packages[0].Version = 99 // must not reach what is remembered
				}
			}
			_, err := tokens.Verify(token, c.Expires, c.Kind)
			wantCode(t, err, 401, "CMGService_Invalid_Token_Expired")
			_, err = tokens.Verify(token, now.Add(-skew-time.Second), c.Kind)
			wantCode(t, err, 401, "CMGService_Invalid_Token_Not_Yet_Valid")
			if _, err = tokens.Verify(token, c.Expires.Add(-time.Second), c.Kind); err != nil {
				t.Errorf("a second before its end: %v", err)
			}
			if _, err = tokens.Verify(token, now.Add(-skew), c.Kind); err != nil {
				t.Errorf("issuer's clock a minute ahead: %v", err)
			}
		})
	}
}

// The whole table of what may be wrong with a token. Each case is shown
// twice, so that remembering cannot let it in.
func TestTokenRefusals(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	k, other := must[*Keyring](t)(NewKeyring()), must[*Keyring](t)(NewKeyring())
	trust := trustOf(t, k)
	key := k.keys[0].Key.(*ecdsa.PrivateKey)
	kid := k.keys[0].KeyID
	header := `{"alg":"ES256","kid":"` + kid + `","typ":"JWT"}`
	claims := func(change ...string) string {
		c := map[string]string{"iss": `"urn:cmg:site:LAB"`, "aud": `"urn:cmg:gateway"`, "knd": `"session"`, "jti": `"1"`, "sub": `"` + string(deviceA) + `"`,
			"iat": fmt.Sprint(now.Unix()), "nbf": fmt.Sprint(now.Unix()), "exp": fmt.Sprint(now.Add(time.Hour).Unix())}
		for i := 0; i < len(change); i += 2 {
			c[change[i]] = change[i+1]
		}
		var parts []string
		for name, value := range c {
			if value != "" {
				parts = append(parts, `"`+name+`":`+value)
			}
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	raw := func(change ...string) string { return signRaw(t, key, header, claims(change...)) }
	head := func(h string) string { return signRaw(t, key, h, claims()) }
	good := raw()
	parts := strings.Split(good, ".")
	hs256 := func(secret []byte) string {
		input := b64(`{"alg":"HS256","kid":"`+kid+`","typ":"JWT"}`) + "." + b64(claims())
		m := hmac.New(sha256.New, secret)
		m.Write([]byte(input))
		return input + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	}
	spki := must[[]byte](t)(x509.MarshalPKIXPublicKey(key.Public()))
	rsaKey := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	rs256 := func() string {
		input := b64(`{"alg":"RS256","kid":"`+kid+`","typ":"JWT"}`) + "." + b64(claims())
		sum := sha256.Sum256([]byte(input))
		return input + "." + base64.RawURLEncoding.EncodeToString(must[[]byte](t)(rsa.SignPKCS1v15(nil, rsaKey, crypto.SHA256, sum[:])))
	}
	jwk := string(must[[]byte](t)(json.Marshal(other.keys[0].Public())))
	unix := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	const bad = "CMGService_Invalid_Token"
	for _, test := range []struct{ name, token, code string }{
		{"good", good, ""},
		{"unknown claim", raw("x", "{}"), ""},
		{"empty", "", bad}, {"one part", "abc", bad}, {"two parts", parts[0] + "." + parts[1], bad}, {"four parts", good + ".x", bad},
		{"alg none", b64(`{"alg":"none","kid":"`+kid+`","typ":"JWT"}`) + "." + parts[1] + ".", bad},
		{"alg None, signed", head(`{"alg":"None","kid":"` + kid + `","typ":"JWT"}`), bad},
		{"no alg", head(`{"kid":"` + kid + `","typ":"JWT"}`), bad},
		{"HS256 with the public key as JWK", hs256(k.PublicKeys()[0]), bad},
		{"HS256 with the public key as DER", hs256(spki), bad},
		{"RS256", rs256(), bad},
		{"EdDSA named, ES256 signed", head(`{"alg":"EdDSA","kid":"` + kid + `","typ":"JWT"}`), bad},
		{"signature of none", parts[0] + "." + parts[1] + ".", bad},
		{"signature of zeros", parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)), bad},
		{"payload changed", parts[0] + "." + b64(claims("sub", `"`+string(cmg.NewDeviceID())+`"`)) + "." + parts[2], bad},
		{"other key under our kid", signRaw(t, other.keys[0].Key.(*ecdsa.PrivateKey), header, claims()), bad},
		{"other site's key", must[string](t)(other.Issue(session(now))), bad + "_Unknown_Key"},
		{"kid with path tricks", head(`{"alg":"ES256","kid":"../../../../dev/null","typ":"JWT"}`), bad + "_Unknown_Key"},
		{"kid with SQL", head(`{"alg":"ES256","kid":"' OR 1=1 --","typ":"JWT"}`), bad + "_Unknown_Key"},
		{"kid with NUL", head(`{"alg":"ES256","kid":"` + kid + `\u0000","typ":"JWT"}`), bad + "_Unknown_Key"},
		{"no kid", head(`{"alg":"ES256","typ":"JWT"}`), bad}, {"kid a number", head(`{"alg":"ES256","kid":1,"typ":"JWT"}`), bad},
		{"crit", head(`{"alg":"ES256","kid":"` + kid + `","typ":"JWT","crit":["exp"],"exp":1}`), bad},
		{"b64", head(`{"alg":"ES256","kid":"` + kid + `","typ":"JWT","crit":["b64"],"b64":false}`), bad},
		{"brings its key", signRaw(t, other.keys[0].Key.(*ecdsa.PrivateKey), `{"alg":"ES256","kid":"`+kid+`","typ":"JWT","jwk":`+jwk+`}`, claims()), bad},
		{"says where its key is", head(`{"alg":"ES256","kid":"` + kid + `","typ":"JWT","jku":"https://example.com/"}`), bad},
		{"alg twice", head(`{"alg":"none","alg":"ES256","kid":"` + kid + `","typ":"JWT"}`), bad},
		{"another typ", head(`{"alg":"ES256","kid":"` + kid + `","typ":"cmg-caller+jwt"}`), bad},
		{"header no object", head(`["ES256"]`), bad}, {"header null", head(`null`), bad}, {"header twice", head(header + header), bad},
		{"payload no object", signRaw(t, key, header, `"x"`), bad}, {"payload deep", signRaw(t, key, header, `{"a":`+strings.Repeat("[", 50)+strings.Repeat("]", 50)+`}`), bad},
		{"claim twice", signRaw(t, key, header, strings.Replace(claims(), "{", `{"exp":99999999999,`, 1)), bad},
		{"claim twice inside", raw("x", `{"a":1,"a":2}`), bad},
		{"claim twice by escape", signRaw(t, key, header, strings.Replace(claims(), "{", `{"e\u0078p":1,`, 1)), bad},
		{"claims in capitals", signRaw(t, key, header, strings.ToUpper(claims())), bad},
		{"padded", good + "=", bad}, {"line end inside", parts[0] + "\n." + parts[1] + "." + parts[2], bad},
		{"oversized", raw("x", `"`+strings.Repeat("x", maxToken)+`"`), bad},
		{"expired", raw("nbf", unix(-time.Hour), "exp", unix(0)), bad + "_Expired"},
		{"not yet valid", raw("nbf", unix(2*time.Minute)), bad + "_Not_Yet_Valid"},
		{"far future", raw("exp", unix(101*day)), bad}, {"100 days", raw("exp", unix(100*day)), ""},
		{"no exp", raw("exp", ""), bad}, {"no nbf", raw("nbf", ""), bad}, {"exp null", raw("exp", "null"), bad},
		{"exp overflows", raw("exp", "9223372036854775807"), bad}, {"exp a text", raw("exp", `"2099"`), bad}, {"exp a fraction", raw("exp", "1e99"), bad},
		{"exp before nbf", raw("exp", unix(-time.Hour)), bad}, {"nbf negative", raw("nbf", "-1"), bad},
		{"another site", raw("iss", `"urn:cmg:site:XYZ"`), bad + "_Wrong_Site"}, {"no issuer", raw("iss", ""), bad},
		{"another audience", raw("aud", `"urn:cmg:content"`), bad + "_Wrong_Audience"}, {"several audiences", raw("aud", `["urn:cmg:gateway"]`), bad},
		{"content", raw("knd", `"content"`, "aud", `"urn:cmg:content"`, "pkg", `[{"pkg":"LAB00001","ver":1,"man":"`+strings.Repeat("0", 64)+`"}]`), bad + "_Wrong_Kind"},
		{"unknown kind", raw("knd", `"admin"`), bad}, {"no kind", raw("knd", ""), bad},
		{"session without device", raw("sub", ""), bad}, {"device malformed", raw("sub", `"GUID:1' --"`), bad},
		{"session with packages", raw("pkg", `[{"pkg":"LAB00001","ver":1,"man":"`+strings.Repeat("0", 64)+`"}]`), bad},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 2 {
				c, err := trust.Verify(Evidence{Authorization: "Bearer " + test.token}, byToken, now)
				if test.token == "" {
					wantCode(t, err, 401, codeRequired)
					continue
				}
				wantCode(t, err, 401, test.code)
				if err == nil && (c.Device != deviceA || c.TokenKind != "session" || c.TokenID != "1" || c.Proof != cmg.ProofToken) {
					t.Errorf("caller %+v", c)
				}
				if err != nil && len(test.token) > 20 && strings.Contains(err.Error(), test.token[len(test.token)-20:]) {
					t.Errorf("the token stands in %v", err)
				}
			}
		})
	}
}

func TestTrustVerifyChoosesProof(t *testing.T) {
	now := time.Now()
	k := must[*Keyring](t)(NewKeyring())
	ca := newAuthority(t, "client CA")
	trust := trustOf(t, k, ca.cert)
	cert := []*x509.Certificate{issue(t, ca, CertRequest{Site: testSite, Device: deviceA}).Certificate}
	foreign := []*x509.Certificate{issue(t, newAuthority(t, "x"), CertRequest{Name: "x", Client: true}).Certificate}
	token := "bearer  " + must[string](t)(k.Issue(session(now)))
	either := []cmg.Proof{cmg.ProofCertificate, cmg.ProofToken}
	for _, test := range []struct {
		name    string
		e       Evidence
		allowed []cmg.Proof
		proof   cmg.Proof
		status  int
		code    string
	}{
		{"token where a token is asked", Evidence{nil, token}, byToken, cmg.ProofToken, 0, ""},
		{"both where a token is asked", Evidence{cert, token}, byToken, cmg.ProofToken, 0, ""},
		{"both where either is asked", Evidence{cert, token}, either, cmg.ProofCertificate, 0, ""},
		{"good token, bad certificate", Evidence{foreign, token}, either, cmg.ProofToken, 0, ""},
		{"bad token, good certificate", Evidence{cert, "Bearer x"}, either, cmg.ProofCertificate, 0, ""},
		{"bad certificate alone", Evidence{foreign, ""}, either, "", 403, "CMGService_Certificate_Unknown_Root"},
		{"bad token alone", Evidence{nil, "Bearer x"}, either, "", 401, "CMGService_Invalid_Token"},
		{"nothing where either is asked", Evidence{}, either, "", 401, codeRequired},
		{"nothing where a token is asked", Evidence{}, byToken, "", 401, codeRequired},
		{"a password", Evidence{nil, "Basic dTpw"}, byToken, "", 401, codeRequired},
		{"a certificate where a token is asked", Evidence{cert, ""}, byToken, "", 401, codeRequired},
		{"a token where a certificate is asked", Evidence{nil, token}, byCertificate, "", 403, codeCertificateRequired},
		{"nothing allowed", Evidence{cert, token}, nil, "", 403, "CMGService_Forbidden"},
		{"no proof asked", Evidence{cert, token}, []cmg.Proof{cmg.ProofNone}, "", 403, "CMGService_Forbidden"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := trust.Verify(test.e, test.allowed, now)
			wantCode(t, err, test.status, test.code)
			if c.Proof != test.proof {
				t.Errorf("proven by %q, want %q", c.Proof, test.proof)
			}
		})
	}
}

// Both verifiers keep to the contract of Verifier.
func TestVerifiers(t *testing.T) {
	now := time.Now()
	k := must[*Keyring](t)(NewKeyring())
	ca := newAuthority(t, "client CA")
	trust := trustOf(t, k, ca.cert)
	good := Evidence{
		[]*x509.Certificate{issue(t, ca, CertRequest{Site: testSite, Device: deviceA}).Certificate},
		"Bearer " + must[string](t)(k.Issue(session(now.Add(-time.Minute)))),
	}
	for proof, v := range map[cmg.Proof]Verifier{cmg.ProofCertificate: trust.certificates, cmg.ProofToken: trust.tokens} {
		c, err := v.Verify(good, now)
		if err != nil || c.Proof != proof || c.Device != deviceA || !c.NotAfter.After(now) {
			t.Errorf("%s: %+v, %v", proof, c, err)
		}
		for name, at := range map[string]time.Time{"before": now.Add(-time.Hour), "after": now.Add(2 * yearOfDays)} {
			if status := cmg.StatusOf(second(v.Verify(good, at))); status != 401 && status != 403 {
				t.Errorf("%s, %s its time: status %d", proof, name, status)
			}
		}
		if err := second(v.Verify(Evidence{}, now)); !notShown(err) {
			t.Errorf("%s, nothing shown: %v", proof, err)
		}
	}
}

func second[A any](_ A, err error) error { return err }

func TestTrustContent(t *testing.T) {
	now := time.Now()
	k := must[*Keyring](t)(NewKeyring())
	trust := trustOf(t, k)
	c := Claims{Kind: TokenContent, Site: testSite, Device: deviceA, NotBefore: now, Expires: now.Add(day), Packages: []cmg.PackageGrant{{Package: "LAB00001", Version: 1}}}
	got, err := trust.Content("Bearer "+must[string](t)(k.Issue(c)), now.Add(day-time.Minute))
	if err != nil || len(got.Packages) != 1 || got.Device != deviceA {
		t.Errorf("got %+v, %v", got, err)
	}
	wantCode(t, second(trust.Content("Bearer "+must[string](t)(k.Issue(c)), now.Add(day+time.Minute))), 401, codeToken+"_Expired")
	wantCode(t, second(trust.Content("Bearer "+must[string](t)(k.Issue(session(now))), now)), 401, codeToken+"_Wrong_Kind")
	wantCode(t, second(trust.Content("", now)), 401, codeRequired)
}

func TestIssueChecks(t *testing.T) {
	now := time.Now()
	k := must[*Keyring](t)(NewKeyring())
	many := session(now)
	many.Kind, many.Packages = TokenContent, make([]cmg.PackageGrant, 100)
	for name, test := range map[string]struct {
		c    Claims
		kind error
	}{
		"no kind":    {Claims{Site: testSite, Expires: now.Add(day)}, cmg.ErrInvalid},
		"no site":    {Claims{Kind: TokenRegistration, Expires: now.Add(day)}, cmg.ErrInvalid},
		"no end":     {Claims{Kind: TokenRegistration, Site: testSite}, cmg.ErrInvalid},
		"too long":   {Claims{Kind: TokenRegistration, Site: testSite, Expires: now.Add(101 * day)}, cmg.ErrInvalid},
		"no device":  {Claims{Kind: TokenDevice, Site: testSite, Expires: now.Add(day)}, cmg.ErrInvalid},
		"bad device": {Claims{Kind: TokenDevice, Site: testSite, Device: "me", Expires: now.Add(day)}, cmg.ErrInvalid},
		"packages":   {many, cmg.ErrTooLarge},
		"from now":   {Claims{Kind: TokenRegistration, Site: testSite, Expires: now.Add(day)}, nil},
	} {
		_, err := k.Issue(test.c)
		t.Run(name, func(t *testing.T) { wantKind(t, err, test.kind) })
	}
}

func TestKeyringFile(t *testing.T) {
	in := inDir(t)
	now := time.Now()
	k := must[*Keyring](t)(NewKeyring())
	if err := k.Save(in("keys.json")); err != nil {
		t.Fatal(err)
	}
	if info := must[os.FileInfo](t)(os.Stat(in("keys.json"))); runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	wantKind(t, must[*Keyring](t)(NewKeyring()).Save(in("keys.json")), cmg.ErrConflict)
	again := must[*Keyring](t)(LoadKeyring(in("keys.json")))
	if d := cmp.Diff(k.PublicKeys(), again.PublicKeys()); d != "" {
		t.Errorf("public keys (-want +got):\n%s", d)
	}
	for _, pub := range k.PublicKeys() {
		if strings.Contains(string(pub), `"d"`) {
			t.Error("a private key is published")
		}
	}
	// A rolled keyring: the first key signs, the older one still verifies.
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rolled := &Keyring{keys: append([]jose.JSONWebKey{{Key: ed, KeyID: "ed", Algorithm: "EdDSA", Use: "sig"}}, k.keys...)}
	if err := rolled.Save(in("rolled.json")); err != nil {
		t.Fatal(err)
	}
	rolled = must[*Keyring](t)(LoadKeyring(in("rolled.json")))
	trust := trustOf(t, rolled)
	for _, ring := range []*Keyring{k, rolled} {
		if _, err := trust.Verify(Evidence{Authorization: "Bearer " + must[string](t)(ring.Issue(session(now)))}, byToken, now); err != nil {
			t.Error(err)
		}
	}
}

func TestKeysRefused(t *testing.T) {
	in := inDir(t)
	k := must[*Keyring](t)(NewKeyring())
	private := must[[]byte](t)(k.keys[0].MarshalJSON())
	public := k.PublicKeys()[0]
	rsaKey := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	rsaPublic := must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "r"}))
	secret := must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: []byte("shared secret of some length"), KeyID: "s"}))
	nameless := must[[]byte](t)(json.Marshal(jose.JSONWebKey{Key: k.keys[0].Public().Key}))
	for name, keys := range map[string][]json.RawMessage{
		"private": {private}, "RSA": {rsaPublic}, "shared secret": {secret}, "no kid": {nameless}, "twice": {public, public}, "junk": {json.RawMessage(`{"kty":"EC"}`)},
	} {
		if _, err := NewTokens(testSite, keys); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := NewTokens("", nil); err == nil {
		t.Error("no site: accepted")
	}
	for name, text := range map[string]string{"junk": "x", "empty": `{"keys":[]}`, "public": `{"keys":[` + string(public) + `]}`, "secret": `{"keys":[` + string(secret) + `]}`} {
		if err := os.WriteFile(in("k.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKeyring(in("k.json")); err == nil {
			t.Errorf("keyring %s: accepted", name)
		}
	}
}
