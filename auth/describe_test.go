package auth

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

func textOf(facts []cmg.Fact) string {
	var b strings.Builder
	for _, f := range facts {
		b.WriteString(f.Name + "=" + f.Value + "\n")
	}
	return b.String()
}

func TestDescribe(t *testing.T) {
	ca := newAuthority(t, "Somebody's CA")
	cert := issue(t, ca, CertRequest{Name: "laptop-7", Client: true}).Certificate
	k := must[*Keyring](t)(NewKeyring())
	token := must[string](t)(k.Issue(session(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))))
	signature := token[strings.LastIndexByte(token, '.')+1:]
	for _, test := range []struct {
		name string
		e    Evidence
		want []string
		not  []string
	}{
		{"nothing", Evidence{}, []string{""}, []string{"="}},
		{"certificate", Evidence{Certificates: []*x509.Certificate{cert, ca.Certificate()}},
			[]string{"certificates shown=2", "CN=laptop-7", "CN=Somebody's CA", "clientAuth", cert.SerialNumber.Text(16), Thumbprint(cert)}, nil},
		{"token", Evidence{Authorization: "Bearer " + token},
			[]string{"token alg=ES256", "token iss=urn:cmg:site:LAB", "token sub=" + string(deviceA), "token exp=2026-03-01T20:00:00Z", "token kid=" + k.SignerID(time.Now())}, []string{signature, token}},
		{"not a token", Evidence{Authorization: "Bearer hunter2.hunter3"}, []string{"not a signed token"}, []string{"hunter"}},
		{"parts that are no JSON", Evidence{Authorization: "Bearer aHVudGVy.aHVudGVy.aHVudGVy"}, []string{"part 1 is not JSON"}, []string{"hunter", "aHVudGVy"}},
		{"another scheme", Evidence{Authorization: "Basic aHVudGVyMg=="}, []string{"the scheme Basic"}, []string{"aHVudGVyMg"}},
		{"a secret without a scheme", Evidence{Authorization: "hunter2hunter2hunter2"}, []string{"unknown"}, []string{"hunter"}},
		{"long", Evidence{Authorization: "Bearer " + strings.Repeat("a", 9000) + ".b.c"}, []string{"9004 bytes"}, []string{"aaaa"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := textOf(Describe(test.e))
			for _, w := range test.want {
				if !strings.Contains(got, w) {
					t.Errorf("it does not say %q:\n%s", w, got)
				}
			}
			for _, n := range test.not {
				if strings.Contains(got, n) {
					t.Errorf("it says %q:\n%s", n, got)
				}
			}
		})
	}
}

// FuzzDescribe: whatever a client shows is told within bounds, and its
// signature never.
func FuzzDescribe(f *testing.F) {
	for _, s := range fuzzSeeds {
		f.Add("Bearer " + s)
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		facts := Describe(Evidence{Authorization: s})
		if len(facts) > 30 {
			t.Errorf("%d facts", len(facts))
		}
		for _, fact := range facts {
			if len(fact.Value) > 400 {
				t.Errorf("%s has %d bytes", fact.Name, len(fact.Value))
			}
		}
	})
}

func TestStatement(t *testing.T) {
	ca := newAuthority(t, "site CA")
	signer, gw := identity(t, ca, cmg.RoleSite, testSite), identity(t, ca, cmg.RoleGateway, "gw1")
	text := must[string](t)(SignStatement(signer, "a+jws", map[string]int{"seq": 7}))
	var got map[string]int
	if err := ReadStatement(gw, "a+jws", text, time.Now(), &got); err != nil || got["seq"] != 7 {
		t.Fatalf("got %v, %v", got, err)
	}
	_, err := SignStatement(gw, "a+jws", 1)
	wantKind(t, err, cmg.ErrInvalid)
	stranger := identity(t, newAuthority(t, "other CA"), cmg.RoleSite, testSite)
	for name, test := range map[string]struct {
		text, typ string
		kind      error
	}{
		"another type":   {text, "b+jws", cmg.ErrInvalid},
		"no JWS":         {"x", "a+jws", cmg.ErrInvalid},
		"changed":        {strings.Replace(text, ".", ".AAAA", 1), "a+jws", cmg.ErrUnauthenticated},
		"another site's": {must[string](t)(SignStatement(stranger, "a+jws", 1)), "a+jws", cmg.ErrUnauthenticated},
		"too long":       {text + strings.Repeat("A", maxStatement), "a+jws", cmg.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) { wantKind(t, ReadStatement(gw, test.typ, test.text, time.Now(), &got), test.kind) })
	}
}

func TestClientUsable(t *testing.T) {
	in := inDir(t)
	ca := newAuthority(t, "clients")
	now := time.Now()
	save := func(name string, r CertRequest) ClientFiles {
		t.Helper()
		if err := issue(t, ca, r).Save(in(name+".crt"), in(name+".key")); err != nil {
			t.Fatal(err)
		}
		return ClientFiles{Certificate: in(name + ".crt"), Key: in(name + ".key")}
	}
	good := save("good", CertRequest{Name: "good", Client: true, NotBefore: now.Add(-time.Hour), Life: 2 * time.Hour})
	server := save("server", CertRequest{Name: "server", Server: true, DNS: []string{"x"}})
	for name, test := range map[string]struct {
		f  ClientFiles
		at time.Time
		ok bool
	}{
		"good":          {good, now, true},
		"expired":       {good, now.Add(2 * time.Hour), false},
		"not yet valid": {good, now.Add(-2 * time.Hour), false},
		"for servers":   {server, now, false},
		"not there":     {ClientFiles{Certificate: in("none"), Key: in("none")}, now, false},
		"other key":     {ClientFiles{Certificate: good.Certificate, Key: server.Key}, now, false},
	} {
		if err := ClientUsable(test.f, test.at); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
