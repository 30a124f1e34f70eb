package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// register is the site's memory of the certificates it issued.
type register map[string]*x509.Certificate

func (r register) find(_ context.Context, thumbprint string) (*x509.Certificate, error) {
	if c, ok := r[thumbprint]; ok {
		return c, nil
	}
	return nil, fmt.Errorf("certificate %s: %w", thumbprint, cmg.ErrNotFound)
}

func registerOf(ids ...*Identity) register {
	r := register{}
	for _, id := range ids {
		r[Thumbprint(id.Certificate())] = id.Certificate()
	}
	return r
}

func testCaller(now time.Time) cmg.Caller {
	return cmg.Caller{Proof: cmg.ProofToken, Device: deviceA, Name: "a note – with \"signs\"", TokenID: "1", TokenKind: "session", NotAfter: now.Add(time.Hour).UTC().Truncate(time.Second)}
}

func TestCallerRoundTrip(t *testing.T) {
	now := time.Now()
	ca := newAuthority(t, "site CA")
	gw := identity(t, ca, cmg.RoleGateway, "gw1")
	signer, reader := NewCallerSigner(gw), NewCallerReader(registerOf(gw).find)
	for _, c := range []cmg.Caller{
		testCaller(now),
		{Proof: cmg.ProofCertificate, Name: "CN=x", Thumbprint: strings.Repeat("a", 64), Gateway: "somebody else"},
	} {
		header := must[string](t)(signer.Sign(c, now))
		want := c
		want.Gateway = "gw1"
		for _, pass := range []string{"checked", "remembered"} {
			got, err := reader.Read(t.Context(), header, now.Add(time.Minute))
			if err != nil || got != want {
				t.Errorf("%s: got %+v, %v\nwant %+v", pass, got, err, want)
			}
		}
	}
}

func TestCallerSignerUsesAgain(t *testing.T) {
	now := time.Now()
	gw := identity(t, newAuthority(t, "site CA"), cmg.RoleGateway, "gw1")
	signer := NewCallerSigner(gw)
	first := must[string](t)(signer.Sign(testCaller(now), now))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if again, err := signer.Sign(testCaller(now), now.Add(3*time.Minute+50*time.Second)); err != nil || again != first {
				t.Errorf("with a minute left: another header, %v", err)
			}
		})
	}
	wg.Wait()
	if again := must[string](t)(signer.Sign(testCaller(now), now.Add(4*time.Minute+time.Second))); again == first {
		t.Error("with less than a minute left: the same header")
	}
	other := testCaller(now)
	other.TokenID = "2"
	if must[string](t)(signer.Sign(other, now)) == first {
		t.Error("another caller has the same header")
	}
}

func TestCallerRefusals(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	ca, otherCA := newAuthority(t, "site CA"), newAuthority(t, "site CA")
	gw, gw2 := identity(t, ca, cmg.RoleGateway, "gw1"), identity(t, ca, cmg.RoleGateway, "gw2")
	cp, foreign := identity(t, ca, cmg.RoleConnectionPoint, "cp"), identity(t, otherCA, cmg.RoleGateway, "gw1")
	rsaGateway := unchecked(t, issue(t, ca, request(cmg.RoleGateway, func(r *CertRequest) { r.RSA = true })), ca)
	expired := unchecked(t, issue(t, ca, request(cmg.RoleGateway, func(r *CertRequest) { r.NotBefore, r.Life = now.Add(-2*day), day })), ca)
	known := registerOf(gw, gw2, cp, rsaGateway, expired)
	reader := NewCallerReader(known.find)

	sign := func(id *Identity) string { return must[string](t)(NewCallerSigner(id).Sign(testCaller(now), now)) }
	key := gw.key().(*ecdsa.PrivateKey)
	kid := Thumbprint(gw.Certificate())
	header := `{"alg":"ES256","kid":"` + kid + `","typ":"cmg-caller+jwt"}`
	body := func(gateway string, iat, exp time.Time) string {
		return fmt.Sprintf(`{"caller":{"proof":"token","gateway":%q},"iat":%d,"exp":%d}`, gateway, iat.Unix(), exp.Unix())
	}
	plain := body("gw1", now, now.Add(callerLife))
	good := sign(gw)
	parts := strings.Split(good, ".")
	const bad = "CMGSite_Invalid_Caller"
	for _, test := range []struct {
		name, header string
		at           time.Duration
		code         string
	}{
		{"good", good, 0, ""},
		{"written by hand", signRaw(t, key, header, plain), 0, ""},
		{"gateway's clock a minute ahead", good, -time.Minute, ""},
		{"gateway's clock a minute behind", good, 5*time.Minute + 59*time.Second, ""},
		{"empty", "", 0, bad}, {"junk", "junk", 0, bad}, {"oversized", strings.Repeat("x", maxToken+1), 0, bad},
		{"expired", good, 6 * time.Minute, bad + "_Expired"},
		{"of the future", good, -2 * time.Minute, bad + "_Not_Yet_Valid"},
		{"caller changed", parts[0] + "." + b64(strings.Replace(plain, "token", "certificate", 1)) + "." + parts[2], 0, bad},
		{"signature cut", parts[0] + "." + parts[1] + ".", 0, bad},
		{"other gateway's key under our kid", signRaw(t, gw2.key().(*ecdsa.PrivateKey), header, plain), 0, bad},
		{"other gateway speaks for us", signRaw(t, key, header, body("gw2", now, now.Add(callerLife))), 0, bad},
		{"no gateway named", signRaw(t, key, header, body("", now, now.Add(callerLife))), 0, bad},
		{"nothing proven", signRaw(t, key, header, strings.Replace(plain, "token", "", 1)), 0, bad},
		{"lives too long", signRaw(t, key, header, body("gw1", now, now.Add(time.Hour))), 0, bad},
		{"ends before it begins", signRaw(t, key, header, body("gw1", now, now)), 0, bad},
		{"a session token", must[string](t)(must[*Keyring](t)(NewKeyring()).Issue(session(now))), 0, bad},
		{"alg none", b64(`{"alg":"none","kid":"`+kid+`","typ":"cmg-caller+jwt"}`) + "." + parts[1] + ".", 0, bad},
		{"claim twice", signRaw(t, key, header, strings.Replace(plain, "{", `{"iat":1,`, 1)), 0, bad},
		{"crit", signRaw(t, key, `{"alg":"ES256","kid":"`+kid+`","typ":"cmg-caller+jwt","crit":["x"],"x":1}`, plain), 0, bad},
		{"other site's gateway of the same name", sign(foreign), 0, bad + "_Unknown_Gateway"},
		{"connection point signs", sign(cp), 0, bad + "_Unknown_Gateway"},
		{"kid with path tricks", signRaw(t, key, `{"alg":"ES256","kid":"../gw1.pem","typ":"cmg-caller+jwt"}`, plain), 0, bad + "_Unknown_Gateway"},
		{"expired gateway", sign(expired), 0, bad + "_Unknown_Gateway"},
		{"RSA gateway", signRaw(t, key, `{"alg":"ES256","kid":"`+Thumbprint(rsaGateway.Certificate())+`","typ":"cmg-caller+jwt"}`, plain), 0, bad},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 2 {
				c, err := reader.Read(t.Context(), test.header, now.Add(test.at))
				wantCode(t, err, 401, test.code)
				if err != nil && c != (cmg.Caller{}) {
					t.Errorf("a refusal comes with caller %+v", c)
				}
			}
		})
	}
	if _, err := NewCallerSigner(rsaGateway).Sign(testCaller(now), now); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("signing with RSA: got %v", err)
	}
}

func TestCallerReaderTrustsNoLookup(t *testing.T) {
	now := time.Now()
	ca := newAuthority(t, "site CA")
	gw, gw2 := identity(t, ca, cmg.RoleGateway, "gw1"), identity(t, ca, cmg.RoleGateway, "gw2")
	header := must[string](t)(NewCallerSigner(gw).Sign(testCaller(now), now))
	swapped := maps.Clone(registerOf(gw))
	swapped[Thumbprint(gw.Certificate())] = gw2.Certificate()
	_, err := NewCallerReader(swapped.find).Read(t.Context(), header, now)
	wantCode(t, err, 401, "CMGSite_Invalid_Caller_Unknown_Gateway")

	down := errors.New("database is locked")
	_, err = NewCallerReader(func(context.Context, string) (*x509.Certificate, error) { return nil, down }).Read(t.Context(), header, now)
	if !errors.Is(err, down) || cmg.StatusOf(err) != 500 {
		t.Errorf("got %v, want the lookup's own error", err)
	}
	_, err = NewCallerReader(func(context.Context, string) (*x509.Certificate, error) { return nil, nil }).Read(t.Context(), header, now)
	wantCode(t, err, 401, "CMGSite_Invalid_Caller_Unknown_Gateway")
}
