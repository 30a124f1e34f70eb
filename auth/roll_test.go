package auth

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// A rolled keyring signs with the old key until the new one's time, and every
// token keeps its value until it ends, whichever key signed it.
func TestRoll(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	first := must[*Keyring](t)(NewKeyring())
	device := func(k *Keyring, at time.Time) string {
		return must[string](t)(k.Issue(Claims{Kind: TokenDevice, Site: testSite, Device: deviceA, NotBefore: at, Expires: at.Add(90 * day), Grace: 30 * day}))
	}
	before := device(first, now)
	second, dropped, err := first.Roll(now, now.Add(time.Minute))
	if err != nil || len(dropped) > 0 || len(second.PublicKeys()) != 2 {
		t.Fatalf("roll: %v, dropped %v, %d keys", err, dropped, len(second.PublicKeys()))
	}
	file := filepath.Join(t.TempDir(), "tokens.jwks")
	if err := first.Save(file); err != nil {
		t.Fatal(err)
	}
	if err := second.Replace(file); err != nil {
		t.Fatal(err)
	}
	if i, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && i.Mode().Perm() != 0o600 {
		t.Fatalf("keyring file: %v, %v", i.Mode(), err)
	}
	second = must[*Keyring](t)(LoadKeyring(file))
	if a, b := second.SignerID(now), second.SignerID(now.Add(time.Minute)); a == b || a != first.SignerID(now) {
		t.Fatalf("%s signs now and %s in a minute, first %s", a, b, first.SignerID(now))
	}
	old := must[*Tokens](t)(NewTokens(testSite, first.PublicKeys())) // a gateway that has not heard of it yet
	if _, err := old.Verify(device(second, now.Add(59*time.Second)), now.Add(time.Minute), TokenDevice); err != nil {
		t.Errorf("a token of before the new key's time: %v", err)
	}
	tokens := must[*Tokens](t)(NewTokens(testSite, second.PublicKeys()))
	for name, token := range map[string]string{"old": before, "new": device(second, now.Add(time.Hour))} {
		if _, err := tokens.Verify(token, now.Add(89*day), TokenDevice); err != nil {
			t.Errorf("%s token on day 89: %v", name, err)
		}
	}
	_, err = old.Verify(device(second, now.Add(time.Hour)), now.Add(2*time.Hour), TokenDevice)
	wantCode(t, err, 401, "CMGService_Invalid_Token_Unknown_Key")

	third, dropped, err := second.Roll(now.Add(KeyKeep), now.Add(KeyKeep+time.Minute))
	if err != nil || len(dropped) > 0 {
		t.Fatalf("a key was dropped whose last token may live: %v, %v", dropped, err)
	}
	last := now.Add(KeyKeep + 2*time.Minute)
	fourth, dropped, err := third.Roll(last, last.Add(time.Minute))
	if err != nil || !slices.Equal(dropped, []string{first.SignerID(now)}) || len(fourth.PublicKeys()) != 3 {
		t.Fatalf("dropped %v, want the first; %d keys, %v", dropped, len(fourth.PublicKeys()), err)
	}
}

// A device token may be renewed for a while after its end, and used for
// nothing else then.
func TestGrace(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	k := must[*Keyring](t)(NewKeyring())
	tokens := must[*Tokens](t)(NewTokens(testSite, k.PublicKeys()))
	token := must[string](t)(k.Issue(Claims{Kind: TokenDevice, Site: testSite, Device: deviceA, NotBefore: now, Expires: now.Add(90 * day), Grace: 30 * day}))
	for _, test := range []struct {
		name  string
		at    time.Time
		kinds []TokenKind
		kind  TokenKind
		code  string
	}{
		{"in its life", now.Add(90*day - time.Second), []TokenKind{TokenDevice, TokenGrace}, TokenDevice, ""},
		{"in its grace", now.Add(90 * day), []TokenKind{TokenDevice, TokenGrace}, TokenGrace, ""},
		{"at the end of its grace", now.Add(120*day - time.Second), []TokenKind{TokenDevice, TokenGrace}, TokenGrace, ""},
		{"after its grace", now.Add(120 * day), []TokenKind{TokenDevice, TokenGrace}, "", "CMGService_Invalid_Token_Expired"},
		{"where no grace is given", now.Add(90 * day), []TokenKind{TokenDevice}, "", "CMGService_Invalid_Token_Expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := tokens.Verify(token, test.at, test.kinds...)
			wantCode(t, err, 401, test.code)
			if c.Kind != test.kind || test.kind == TokenGrace && !c.Expires.Equal(now.Add(120*day)) {
				t.Errorf("got %+v", c)
			}
		})
	}
	for name, c := range map[string]Claims{
		"session":  {Kind: TokenSession, Grace: time.Hour},
		"too long": {Kind: TokenDevice, Grace: MaxGrace + time.Second},
		"negative": {Kind: TokenDevice, Grace: -time.Second},
		"grace":    {Kind: TokenGrace},
	} {
		c.Site, c.Device, c.NotBefore, c.Expires = testSite, deviceA, now, now.Add(time.Hour)
		if _, err := k.Issue(c); err == nil {
			t.Errorf("%s: a token was issued", name)
		}
	}
}

// A bulk registration token says what the field's says (PROTOCOL 4.6).
func TestBulkRegistrationClaims(t *testing.T) {
	const hierarchy = "6a5c7a92-5a3c-4a57-9f0e-2f3f3f1f0b11"
	now := time.Now().UTC().Truncate(time.Second)
	k := must[*Keyring](t)(NewKeyring())
	c := Claims{Kind: TokenRegistration, ID: cmg.NewGUID(), Site: testSite, Hierarchy: hierarchy, NotBefore: now, Expires: now.Add(4320 * time.Minute)}
	token := must[string](t)(k.Issue(c))
	var got map[string]any
	b := must[[]byte](t)(base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1]))
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"SCCMTokenCategory": "SCCMPreAuthToken", "Authority": "SCCM", "License": "SCCM", "Type": "BulkRegistration",
		"TenantId": strings.ToUpper(hierarchy), "UniqueId": c.ID, "iss": "urn:sccm:oauth2:" + hierarchy, "aud": "urn:sccm:service",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if got["exp"].(float64)-got["nbf"].(float64) != 259200 || got["iat"] != nil {
		t.Errorf("times: %v", got)
	}
	for name, test := range map[string]struct{ hierarchy, code string }{
		"its hierarchy": {hierarchy, ""}, "another": {"6a5c7a92-5a3c-4a57-9f0e-2f3f3f1f0b12", "CMGService_Invalid_Token_Wrong_Site"}, "none": {"", "CMGService_Invalid_Token_Wrong_Site"},
	} {
		trust := must[*Trust](t)(NewTrust(cmg.Publication{Version: 1, Site: testSite, Hierarchy: test.hierarchy, Keys: k.PublicKeys()}))
		_, err := trust.Verify(Evidence{Authorization: "Bearer " + token}, []cmg.Proof{cmg.ProofToken}, now)
		t.Run(name, func(t *testing.T) { wantCode(t, err, 401, test.code) })
	}
}
