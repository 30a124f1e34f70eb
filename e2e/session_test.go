package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// sessionToken makes the session token that a device of a site would have
// from the token service: with the site's own key, out of its folder.
func sessionToken(t *testing.T, folder, site, device string) string {
	t.Helper()
	var ring struct {
		Keys []struct{ Kid, D string }
	}
	b, err := os.ReadFile(filepath.Join(folder, "keys", "tokens.jwks"))
	if err == nil {
		err = json.Unmarshal(b, &ring)
	}
	if err != nil || len(ring.Keys) != 1 {
		t.Fatalf("token keyring of %s: %d keys, %v", site, len(ring.Keys), err)
	}
	d, err := base64.RawURLEncoding.DecodeString(ring.Keys[0].D)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	part := func(v map[string]any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]any{"alg": "ES256", "kid": ring.Keys[0].Kid, "typ": "JWT"}) + "." +
		part(map[string]any{"iss": "urn:cmg:site:" + site, "aud": "urn:cmg:gateway", "knd": "session", "jti": fmt.Sprintf("e2e-%s", device), "sub": device, "nbf": now, "exp": now + 8*3600})
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}
