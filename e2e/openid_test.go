package e2e

import (
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	ourTenant   = "7c1d6a0e-1f4b-4f0e-9b5a-0d2f3c4b5a69"
	otherTenant = "11111111-2222-4333-8444-555555555555"
	entraApp    = "2e8c0c4e-7d55-4c0a-9a6e-3b1f0a5d7c11" // as in issuer.mjs
)

// An issuer is a running OpenID provider, a certified one that was not made
// here: see openid/issuer.mjs.
type issuer struct {
	t      *testing.T
	url    string
	roots  string // PEM file
	client *http.Client
}

// startIssuer starts the provider with two tenants.
func startIssuer(t *testing.T) *issuer {
	needs(t, "node", "openssl")
	if _, err := os.Stat("openid/node_modules/oidc-provider"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: this story needs the OpenID provider: npm ci --prefix e2e/openid")
	}
	p, port := newPKI(t), freePort(t)
	p.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "tls.key", "-out", "tls.pem", "-days", "5", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
	c := exec.Command("node", "issuer.mjs", port, p.file("tls.pem"), p.file("tls.key"), ourTenant, otherTenant)
	c.Dir = "openid"
	log, err := os.Create(p.file("issuer.log"))
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(p.file("tls.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	i := &issuer{t: t, url: "https://localhost:" + port, roots: p.file("tls.pem"), client: &http.Client{Transport: tr, Timeout: 30 * time.Second}}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		c.Process.Kill()
		c.Wait()
		log.Close()
	})
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		said, _ := os.ReadFile(log.Name())
		if strings.Contains(string(said), "ready") {
			return i
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("the OpenID provider does not start:\n%s", said)
		}
	}
}

// token gets an access token of a tenant for an audience.
func (i *issuer) token(tenant, audience string) string {
	i.t.Helper()
	resp, err := i.client.PostForm(i.url+"/"+tenant+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {entraApp}, "client_secret": {"secret"}, "scope": {audience + "/.default"},
	})
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct {
		Token string `json:"access_token"`
	}
	b, _ := io.ReadAll(resp.Body)
	if err := json.Unmarshal(b, &got); err != nil || got.Token == "" {
		i.t.Fatalf("token for %s: %s: %s", audience, resp.Status, b)
	}
	return got.Token
}

func (i *issuer) post(path string) {
	i.t.Helper()
	resp, err := i.client.Post(i.url+path, "", nil)
	if err != nil {
		i.t.Fatal(err)
	}
	resp.Body.Close()
}

// publicKey gives the tenant's first RSA key as PEM, which is what an attacker
// would take for a shared secret.
func (i *issuer) publicKey(tenant string) []byte {
	i.t.Helper()
	resp, err := i.client.Get(i.url + "/" + tenant + "/discovery/v2.0/keys")
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	var set struct{ Keys []struct{ Kty, N, E string } }
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil || len(set.Keys) == 0 {
		i.t.Fatal(err, set)
	}
	n, _ := base64.RawURLEncoding.DecodeString(set.Keys[0].N)
	e, _ := base64.RawURLEncoding.DecodeString(set.Keys[0].E)
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1(n, e)})
}

// pkcs1 writes an RSA public key, both numbers big endian.
func pkcs1(n, e []byte) []byte {
	var long int
	for _, b := range e {
		long = long<<8 | int(b)
	}
	return x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: long})
}

// forge takes a token apart, changes its header and payload as text, and puts
// it together with a signature.
func forge(token string, header, payload func(string) string, sign func(signed string) []byte) string {
	parts := strings.Split(token, ".")
	for i, change := range []func(string) string{header, payload} {
		if change == nil {
			continue
		}
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			panic(err) // the provider's own token
		}
		parts[i] = base64.RawURLEncoding.EncodeToString([]byte(change(string(b))))
	}
	if sign != nil {
		parts[2] = base64.RawURLEncoding.EncodeToString(sign(parts[0] + "." + parts[1]))
	}
	return strings.Join(parts, ".")
}

func swap(old, new string) func(string) string {
	return func(s string) string {
		if !strings.Contains(s, old) {
			panic("forge: " + s + " does not hold " + old)
		}
		return strings.Replace(s, old, new, 1)
	}
}

// TestOpenID shows every good and bad token of Microsoft Entra ID's shape to
// the gateway by curl, and reads its answer off the status line.
func TestOpenID(t *testing.T) {
	needs(t, "curl", "bash")
	i := startIssuer(t)
	l := startLab(t)
	site := l.env["CMG_SITE"]
	var seen atomic.Pointer[http.Header]
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		seen.Store(&h)
	}))
	defer behind.Close()
	must(t, "route", "add", "--site", site, "--proof", "entra", "/app", behind.URL)
	must(t, "route", "add", "--site", site, "--proof", "token,entra", "/both", behind.URL)
	must(t, "tenant", "add", ourTenant, "--site", site, "--authority", i.url, "--authority-roots", i.roots, "--name", "Example",
		"--audience", "api://cmg-server", "--audience", "https://ConfigMgrService", "--client", entraApp, "--resource", "api://cmg-server", "--app", entraApp)
	show := func(token, path string) string {
		file := filepath.Join(t.TempDir(), "header")
		if err := os.WriteFile(file, []byte("Authorization: Bearer "+token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return " -H @" + file + ` "$CMG_URL` + path + `" `
	}
	good := i.token(ourTenant, "api://cmg-server")
	l.until("the tenant's keys arrive", func() error { return l.statusIs(t, show(good, "/app"), "200 ") })
	if h := *seen.Load(); h.Get("Authorization") != "" || h.Get("CMG-Caller") == "" {
		t.Errorf("the server behind saw %v", h)
	}

	short := i.token(ourTenant, "api://cmg-server;short") // ends while the others are tried
	const invalid = "401 CMGService_Invalid_Token"
	hmacWith := func(key []byte) func(string) []byte {
		return func(signed string) []byte {
			m := hmac.New(sha256.New, key)
			m.Write([]byte(signed))
			return m.Sum(nil)
		}
	}
	nothing := func(string) []byte { return nil }
	for _, c := range []struct{ name, token, status string }{
		{"version 2.0", good, "200"},
		{"version 1.0", i.token(ourTenant, "https://ConfigMgrService"), "200"},
		{"PS256", i.token(ourTenant, "api://cmg-server;x;PS256"), "200"},
		{"ES256", i.token(ourTenant, "api://cmg-server;x;ES256"), "200"},
		{"of a user", i.token(ourTenant, "api://cmg-server;user"), "200"},
		{"wrong audience", i.token(ourTenant, "api://another"), invalid + "_Wrong_Audience"},
		{"unknown tenant", i.token(otherTenant, "api://cmg-server"), invalid + "_Unknown_Tenant"},
		{"another tenant's key", i.token(otherTenant, "api://cmg-server;tenant"), invalid + "_Unknown_Tenant"},
		{"no tenant", i.token(ourTenant, "api://cmg-server;notenant"), invalid},
		{"wrong issuer", i.token(ourTenant, "api://cmg-server;issuer"), invalid + "_Wrong_Issuer"},
		{"version against its issuer", i.token(ourTenant, "api://cmg-server;version"), invalid + "_Wrong_Issuer"},
		{"not yet valid", i.token(ourTenant, "api://cmg-server;later"), invalid + "_Not_Yet_Valid"},
		{"ten years", i.token(ourTenant, "api://cmg-server;long"), invalid + "_Too_Long_Lived"},
		{"garbage", "a.b.c", invalid},
		{"a site token", l.env["CMG_TOKEN"], invalid},
		{"alg none", forge(good, swap(`"RS256"`, `"none"`), nil, nothing), invalid + "_Algorithm"},
		{"alg none, key id gone", forge(good, func(string) string { return `{"alg":"none"}` }, nil, nothing), invalid + "_Algorithm"},
		{"alg None", forge(good, swap(`"RS256"`, `"None"`), nil, nothing), invalid + "_Algorithm"},
		{"HS256 with the public key", forge(good, swap(`"RS256"`, `"HS256"`), nil, hmacWith(i.publicKey(ourTenant))), invalid + "_Algorithm"},
		{"RS512", forge(good, swap(`"RS256"`, `"RS512"`), nil, nil), invalid + "_Algorithm"},
		{"ES256 with the RSA key", forge(good, swap(`"RS256"`, `"ES256"`), nil, nil), invalid + "_Algorithm"},
		{"kid is a path", forge(good, swap(`"rsa-1"`, `"../../../../dev/null"`), nil, hmacWith(nil)), invalid + "_Unknown_Key"},
		{"kid is SQL", forge(good, swap(`"rsa-1"`, `"x' UNION SELECT 'y"`), nil, nil), invalid + "_Unknown_Key"},
		{"kid is no text", forge(good, swap(`"rsa-1"`, `["rsa-1"]`), nil, nil), invalid},
		{"unknown crit", forge(good, swap(`{`, `{"crit":["x"],"x":1,`), nil, nil), invalid},
		{"brings its key", forge(good, swap(`{`, `{"jwk":{"kty":"oct","k":"AA"},`), nil, nil), invalid},
		{"says where its key is", forge(good, swap(`{`, `{"jku":"https://evil.example/keys",`), nil, nil), invalid},
		{"brings a certificate", forge(good, swap(`{`, `{"x5c":["AA"],`), nil, nil), invalid},
		{"claim twice", forge(good, nil, swap(`{`, `{"aud":"api://cmg-server",`), nil), invalid},
		{"header twice", forge(good, swap(`{`, `{"alg":"RS256",`), nil, nil), invalid},
		{"audience changed", forge(good, nil, swap(`"aud":"api://cmg-server"`, `"aud":"https://ConfigMgrService"`), nil), invalid + "_Signature"},
		{"signature changed", forge(good, nil, nil, func(string) []byte { return make([]byte, 256) }), invalid + "_Signature"},
		{"signature cut off", good[:strings.LastIndexByte(good, '.')+1], invalid + "_Signature"},
		{"too long", good + strings.Repeat("A", 20<<10), invalid},
		{"expired", short, invalid + "_Expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.token == short {
				time.Sleep(2500 * time.Millisecond) // two seconds is its whole life
			}
			l.wantStatus(t, show(c.token, "/app"), c.status)
		})
	}
	t.Run("where both kinds pass", func(t *testing.T) {
		l.wantStatus(t, show(good, "/both"), "200")
		l.wantStatus(t, show(l.env["CMG_TOKEN"], "/both"), "200")
		l.wantStatus(t, show(l.env["CMG_TOKEN"]+"x", "/both"), invalid)
		l.wantStatus(t, show(i.token(ourTenant, "api://another"), "/both"), invalid+"_Wrong_Audience")
		l.wantStatus(t, ` "$CMG_URL/both" `, "401 CMGService_Authentication_Required")
	})
	t.Run("bootstrap", func(t *testing.T) { l.bootstrap(t, show, good, short) })
	t.Run("rotation", func(t *testing.T) { l.rotation(t, i, show, good, site) })
	t.Run("tenant removed", func(t *testing.T) {
		must(t, "tenant", "remove", ourTenant, "--site", site)
		l.until("the removal arrives", func() error { return l.statusIs(t, show(good, "/app"), invalid+"_Unknown_Tenant") })
	})
}

// bootstrap asks what clients ask before they know anything.
func (l *lab) bootstrap(t *testing.T, show func(token, path string) string, good, expired string) {
	const info = `"$CMG_URL/CCM_Proxy_ServerAuth/AADAuthInfo`
	for args, status := range map[string]string{
		info + `?TenantID=` + otherTenant + `"`:                "404 CMGService_Unknown_Tenant",
		info + `?TenantID=x"`:                                  "404 CMGService_Unknown_Tenant",
		info + `"`:                                             "400 CMGService_Bad_Request",
		`-d x=1 ` + info + `?TenantID=x"`:                      "405 CMGService_Method_Not_Allowed",
		show(expired, "/CCM_Proxy_ServerAuth/ServiceMetadata"): "401 CMGService_Invalid_Token_Expired",
		// The token passes the gateway; that no device's key was proven is
		// for the management point to say.
		"-X POST " + show(good, "$CMG_MP_SERVER/CCM_STS"):   "401 CMGConnector_Unauthorized",
		show(good, "$CMG_MP_SERVER/SMS_MP/.sms_aut?MPLIST"): "401 CMGService_Invalid_Token",
	} {
		l.wantStatus(t, args, status)
	}
	_, body := l.curl(t, info+`?tenantid=`+strings.ToUpper(ourTenant)+`"`)
	var told struct{ TenantID, AADCLIENTAPPID, AADRESOURCEURI, Authority string }
	if err := json.Unmarshal([]byte(body), &told); err != nil || told.TenantID != ourTenant || told.AADCLIENTAPPID != entraApp || told.AADRESOURCEURI != "api://cmg-server" {
		t.Errorf("AADAuthInfo: %v: %s", err, body)
	}
	_, body = l.curl(t, show(good, "/CCM_Proxy_ServerAuth/ServiceMetadata"))
	if !strings.Contains(body, `"Proof":"entra"`) || !strings.Contains(body, l.env["CMG_MP_SERVER"]+"/CCM_STS") {
		t.Errorf("metadata for a token: %s", body)
	}
	_, body = l.curl(t, ` "$CMG_URL/CCM_Proxy_ServerAuth/ServiceMetadata" `)
	if strings.Contains(body, "CCM_Proxy") || !strings.Contains(body, "Service") {
		t.Errorf("metadata for anybody: %s", body)
	}
}

// rotation changes the tenant's keys, and takes its authority away.
func (l *lab) rotation(t *testing.T, i *issuer, show func(token, path string) string, good, site string) {
	const unknown = "401 CMGService_Invalid_Token_Unknown_Key"
	i.post("/" + ourTenant + "/rotate")
	fresh := i.token(ourTenant, "api://cmg-server")
	l.wantStatus(t, show(fresh, "/app"), unknown)
	took := l.until("the gateway has the new key fetched", func() error { return l.statusIs(t, show(fresh, "/app"), "200") })
	t.Logf("a new key was taken %v after it was first met", took.Round(time.Millisecond))
	l.wantStatus(t, show(good, "/app"), "200") // the old one is still published

	i.post("/off")
	must(t, "tenant", "refresh", "--site", site)
	l.until("the outage is seen", func() error {
		if out := must(t, "tenant", "show", ourTenant, "--site", site); !strings.Contains(out, "503") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})
	l.wantStatus(t, show(fresh, "/app"), "200")
	l.wantStatus(t, show(good, "/app"), "200")
	l.kill("gateway-1")
	l.again("gateway-1")
	l.until("the gateway is there again", func() error { return l.ready("gateway-1") })
	for range 4 { // of either gateway
		l.wantStatus(t, show(good, "/app"), "200")
	}
	i.post("/on")

	i.post("/" + ourTenant + "/rotate")
	must(t, "tenant", "refresh", "--site", site)
	l.until("the first key is gone", func() error { return l.statusIs(t, show(good, "/app"), unknown) })
	l.wantStatus(t, show(fresh, "/app"), "200")
}
