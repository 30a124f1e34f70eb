package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/opencmg/cmg"
)

const (
	tenantA = "7c1d6a0e-1f4b-4f0e-9b5a-0d2f3c4b5a69"
	tenantB = "11111111-2222-4333-8444-555555555555"
)

// A directory plays a tenant's token endpoint. The stories in e2e use a real
// provider; here any claim can be written.
type directory struct {
	t    testing.TB
	rsa  *rsa.PrivateKey
	ec   *ecdsa.PrivateKey
	id   string
	from time.Time
}

func newDirectory(t testing.TB, id string) *directory {
	return &directory{t: t, id: id, from: time.Now().Truncate(time.Second),
		rsa: must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048)), ec: must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))}
}

func (d *directory) keys() (all []json.RawMessage) {
	for _, k := range []jose.JSONWebKey{{Key: d.rsa.Public(), KeyID: "r", Use: "sig"}, {Key: d.ec.Public(), KeyID: "e", Use: "sig", Algorithm: "ES256"}} {
		all = append(all, must[[]byte](d.t)(k.MarshalJSON()))
	}
	return all
}

func (d *directory) tenant(authority string) cmg.Tenant {
	return cmg.Tenant{ID: d.id, Authority: authority, Audiences: []string{"api://cmg"}, Issuers: cmg.EntraIssuers(authority, d.id), Keys: d.keys()}
}

// token signs claims, which change what a good token of version 2.0 says; nil
// takes a claim out.
func (d *directory) token(authority string, change map[string]any) string {
	claims := map[string]any{
		"iss": authority + "/" + d.id + "/v2.0", "aud": "api://cmg", "tid": d.id, "oid": tenantB, "azp": "app-1", "ver": "2.0",
		"iat": d.from.Unix(), "nbf": d.from.Unix(), "exp": d.from.Add(time.Hour).Unix(), "preferred_username": "ada@example.com", "groups": []string{"g"},
	}
	for name, v := range change {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	return must[string](d.t)(signCompact(jose.RS256, d.rsa, "r", "JWT", claims))
}

func TestEntra(t *testing.T) {
	public, gov := cmg.EntraClouds["public"], cmg.EntraClouds["usgov"]
	a, b := newDirectory(t, tenantA), newDirectory(t, tenantB)
	b.from = a.from // both may not have been made in one second
	ta, tb := a.tenant(public), b.tenant(gov)
	tb.Apps = []string{"app-1"}
	v := must[*entra](t)(newEntra([]cmg.Tenant{ta, tb}))
	one := map[string]any{"ver": "1.0", "iss": "https://sts.windows.net/" + tenantA + "/", "azp": nil, "appid": "app-1"}
	with := func(more map[string]any) map[string]any {
		m := map[string]any{}
		for k, v := range one {
			m[k] = v
		}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	now := a.from
	for _, test := range []struct {
		name, token string
		at          time.Duration
		who, code   string // the caller's name, or the refusal behind CMGService_Invalid_Token
	}{
		{"user, 2.0", a.token(public, nil), 0, "ada@example.com", ""},
		{"user, 1.0", a.token(public, with(map[string]any{"upn": "ada@example.com", "preferred_username": nil})), 0, "ada@example.com", ""},
		{"device", a.token(public, map[string]any{"deviceid": strings.ToUpper(tenantB)}), 0, "Entra device " + tenantB, ""},
		{"application", a.token(public, map[string]any{"preferred_username": nil}), 0, "Entra application app-1", ""},
		{"US Government", b.token(gov, nil), 0, "ada@example.com", ""},
		{"several audiences", a.token(public, map[string]any{"aud": []string{"x", "api://cmg"}}), 0, "ada@example.com", ""},
		{"tenant in upper case", a.token(public, map[string]any{"tid": strings.ToUpper(tenantA)}), 0, "ada@example.com", ""},
		{"clock a little behind", a.token(public, nil), -skew, "ada@example.com", ""},
		{"no nbf", a.token(public, map[string]any{"nbf": nil}), 0, "ada@example.com", ""},
		{"neither nbf nor iat", a.token(public, map[string]any{"nbf": nil, "iat": nil}), 0, "", "malformed"},
		{"not yet", a.token(public, nil), -skew - time.Second, "", "_Not_Yet_Valid"},
		{"its end", a.token(public, nil), time.Hour, "", "_Expired"},
		{"far future", a.token(public, map[string]any{"exp": now.Add(maxEntraLife + time.Minute).Unix()}), 0, "", "_Too_Long_Lived"},
		{"out of range", a.token(public, map[string]any{"exp": 1e300}), 0, "", "malformed"},
		{"exp is text", a.token(public, map[string]any{"exp": "9999999999"}), 0, "", "malformed"},
		{"no exp", a.token(public, map[string]any{"exp": nil}), 0, "", "malformed"},
		{"no tid", a.token(public, map[string]any{"tid": nil}), 0, "", "malformed"},
		{"tid is a path", a.token(public, map[string]any{"tid": "../" + tenantA}), 0, "", "malformed"},
		{"no oid, no sub", a.token(public, map[string]any{"oid": nil}), 0, "", "malformed"},
		{"no aud", a.token(public, map[string]any{"aud": nil}), 0, "", "malformed"},
		{"aud is a list of nothing", a.token(public, map[string]any{"aud": []string{}}), 0, "", "malformed"},
		{"deviceid is no GUID", a.token(public, map[string]any{"deviceid": "x"}), 0, "", "malformed"},
		{"other audience", a.token(public, map[string]any{"aud": "api://CMG"}), 0, "", "_Wrong_Audience"},
		{"other cloud's issuer", a.token(gov, nil), 0, "", "_Wrong_Issuer"},
		{"another tenant's issuer", a.token(public, map[string]any{"iss": gov + "/" + tenantB + "/v2.0"}), 0, "", "_Wrong_Issuer"},
		{"1.0 that says 2.0", a.token(public, with(map[string]any{"ver": "2.0"})), 0, "", "_Wrong_Issuer"},
		{"one tenant signs for another", a.token(gov, map[string]any{"tid": tenantB, "iss": gov + "/" + tenantB + "/v2.0"}), 0, "", "_Signature"},
		{"other application", b.token(gov, map[string]any{"azp": "app-2"}), 0, "", "_Wrong_Application"},
		{"appid in a token of 2.0", b.token(gov, map[string]any{"azp": nil, "appid": "app-1"}), 0, "", "_Wrong_Application"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 2 { // the second time from memory, if at all
				c, err := v.Verify(Evidence{Authorization: "bearer " + test.token}, now.Add(test.at))
				if test.code != "" {
					wantCode(t, err, 401, "CMGService_Invalid_Token"+strings.TrimPrefix(test.code, "malformed"))
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if c.Name != test.who || c.Proof != cmg.ProofEntra || c.Account != c.Tenant+"/"+tenantB || !c.NotAfter.Equal(now.Add(time.Hour)) {
					t.Errorf("got %+v", c)
				}
			}
		})
	}
	t.Run("remembered, then ended", func(t *testing.T) {
		token := Evidence{Authorization: "Bearer " + a.token(public, nil)}
		if _, err := v.Verify(token, now); err != nil {
			t.Fatal(err)
		}
		_, err := v.Verify(token, now.Add(time.Hour))
		wantCode(t, err, 401, "CMGService_Invalid_Token_Expired")
	})
	t.Run("a key that is not known", func(t *testing.T) {
		token := must[string](t)(signCompact(jose.ES256, a.ec, "new", "JWT", map[string]any{"tid": tenantA, "ver": "2.0", "iss": "x", "oid": "x", "aud": "x", "iat": 1, "exp": 2}))
		_, err := v.Verify(Evidence{Authorization: "Bearer " + token}, now)
		wantCode(t, err, 401, "CMGService_Invalid_Token_Unknown_Key")
		var u *UnknownKey
		if !errors.As(err, &u) || u.Tenant != tenantA {
			t.Errorf("nobody would look for it: %v", err)
		}
	})
}

func TestTenantKeys(t *testing.T) {
	d := newDirectory(t, tenantA)
	small := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	p384 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	raw := func(k jose.JSONWebKey) string { return string(must[[]byte](t)(k.MarshalJSON())) }
	for name, bad := range map[string]string{
		"short":           raw(jose.JSONWebKey{Key: small.Public(), KeyID: "x"}),
		"P-384":           raw(jose.JSONWebKey{Key: p384.Public(), KeyID: "x"}),
		"for encryption":  raw(jose.JSONWebKey{Key: d.rsa.Public(), KeyID: "x", Use: "enc"}),
		"for RS512":       raw(jose.JSONWebKey{Key: d.rsa.Public(), KeyID: "x", Algorithm: "RS512"}),
		"without a name":  raw(jose.JSONWebKey{Key: d.rsa.Public()}),
		"private":         raw(jose.JSONWebKey{Key: d.rsa, KeyID: "x"}),
		"a shared secret": raw(jose.JSONWebKey{Key: []byte("secret"), KeyID: "x"}),
		"no key":          `{}`,
		"no JSON":         `x`,
	} {
		if k, err := readTenantKey(json.RawMessage(bad)); err == nil {
			t.Errorf("%s was taken: %+v", name, k)
		}
	}
	var set []string
	for _, k := range d.keys() {
		set = append(set, string(k))
	}
	good := strings.Join(set, ",")
	var srv *httptest.Server
	answers := map[string]string{}
	srv = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, strings.ReplaceAll(a, "HERE", srv.URL))
	}))
	defer srv.Close()
	f := must[*Fetcher](t)(NewFetcher(certificatePEM(srv.Certificate())))
	defer f.Close()
	const path = "/" + tenantA + "/v2.0" + discoveryPath
	const here = `{"issuer":"HERE/` + tenantA + `/v2.0","jwks_uri":"HERE/keys"}`
	for _, test := range []struct {
		name, discovery, keys string
		n                     int // keys; 0: an error
	}{
		{"good", here, `{"keys":[` + good + `]}`, 2},
		{"with others that do not serve", here, `{"keys":[{"kty":"oct","k":"AA","kid":"s"},` + good + `,` + good + `]}`, 2},
		{"other issuer", strings.Replace(here, tenantA, tenantB, 1), `{"keys":[` + good + `]}`, 0},
		{"keys elsewhere", strings.Replace(here, "HERE/keys", "https://evil.example/keys", 1), `{"keys":[` + good + `]}`, 0},
		{"keys in the clear", strings.Replace(here, "HERE/keys", "http://localhost/keys", 1), `{"keys":[` + good + `]}`, 0},
		{"no keys", here, `{"keys":[]}`, 0},
		{"no JSON", here, `<html>`, 0},
		{"too long", here, `{"keys":[` + strings.Repeat(" ", maxKeySet) + good + `]}`, 0},
		{"no discovery", `x`, ``, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			answers[path], answers["/keys"] = test.discovery, test.keys
			keys, err := f.TenantKeys(context.Background(), d.tenant(srv.URL))
			if (err == nil) != (test.n > 0) || len(keys) != test.n {
				t.Errorf("got %d keys, %v; want %d", len(keys), err, test.n)
			}
		})
	}
}
