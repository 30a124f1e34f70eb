package auth

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

func testPublication(t *testing.T) cmg.Publication {
	k := must[*Keyring](t)(NewKeyring())
	return cmg.Publication{
		Version: 7, Site: testSite, Issued: time.Now().UTC().Truncate(time.Second),
		Routes:  cmg.ManagementPointRoutes(1<<56 + 1),
		Anchors: []string{string(certificatePEM(newAuthority(t, "client CA").Certificate()))},
		Keys:    k.PublicKeys(),
	}
}

// signAs signs a publication as SignPublication does, without its checks.
func signAs(t *testing.T, id *Identity, typ string, payload any) string {
	t.Helper()
	b := must[[]byte](t)(json.Marshal(payload))
	signer := must[jose.Signer](t)(jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: id.key().(*rsa.PrivateKey)},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("x5c", []string{base64.StdEncoding.EncodeToString(id.Certificate().Raw)})))
	return must[string](t)(must[*jose.JSONWebSignature](t)(signer.Sign(b)).CompactSerialize())
}

func TestPublicationRoundTrip(t *testing.T) {
	ca := newAuthority(t, "site CA")
	site, gw := identity(t, ca, cmg.RoleSite, testSite), identity(t, ca, cmg.RoleGateway, "gw1")
	p := testPublication(t)
	got := must[cmg.Publication](t)(ReadPublication(gw, must[string](t)(SignPublication(site, p)), time.Now()))
	if d := cmp.Diff(p, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := NewTrust(got); err != nil {
		t.Error(err)
	}
}

func TestSignPublicationRefusals(t *testing.T) {
	ca := newAuthority(t, "site CA")
	site := identity(t, ca, cmg.RoleSite, testSite)
	p := testPublication(t)
	_, err := SignPublication(identity(t, ca, cmg.RoleGateway, "gw1"), p)
	wantKind(t, err, cmg.ErrForbidden)
	other := p
	other.Site = "XYZ"
	_, err = SignPublication(site, other)
	wantKind(t, err, cmg.ErrForbidden)
	_, err = SignPublication(site, cmg.Publication{Site: testSite})
	wantKind(t, err, cmg.ErrInvalid)
	_, err = SignPublication(unchecked(t, issue(t, ca, CertRequest{Site: testSite, Role: cmg.RoleSite, Name: testSite}), ca), p)
	wantKind(t, err, cmg.ErrInvalid)
	huge := p
	huge.Anchors = []string{strings.Repeat("x", maxPublication)}
	_, err = SignPublication(site, huge)
	wantKind(t, err, cmg.ErrTooLarge)
}

func TestReadPublicationRefusals(t *testing.T) {
	now := time.Now()
	ca, otherCA := newAuthority(t, "site CA"), newAuthority(t, "site CA")
	gw := identity(t, ca, cmg.RoleGateway, "gw1")
	rsaOf := func(a *Authority, change func(*CertRequest)) *Identity {
		r := CertRequest{Site: testSite, Role: cmg.RoleSite, Name: testSite, RSA: true}
		if change != nil {
			change(&r)
		}
		return unchecked(t, issue(t, a, r), a)
	}
	site := rsaOf(ca, nil)
	p := testPublication(t)
	otherSite, badRoute := p, p
	otherSite.Site, badRoute.Routes = "XYZ", []cmg.Route{{Prefix: "/"}}
	good := must[string](t)(SignPublication(site, p))
	parts := strings.Split(good, ".")
	changed := p
	changed.Version++
	for _, test := range []struct {
		name, jws string
		kind      error
	}{
		{"good", good, nil},
		{"junk", "junk", cmg.ErrInvalid},
		{"too large", strings.Repeat("x", maxPublication+1), cmg.ErrTooLarge},
		{"changed", parts[0] + "." + b64(string(must[[]byte](t)(json.Marshal(changed)))) + "." + parts[2], cmg.ErrUnauthenticated},
		{"alg none", b64(`{"alg":"none","typ":"`+publicationType+`"}`) + "." + parts[1] + ".", cmg.ErrInvalid},
		{"no certificate", must[string](t)(signCompact(jose.RS256, site.key(), "k", publicationType, p)), cmg.ErrUnauthenticated},
		{"signed by a gateway", signAs(t, rsaOf(ca, func(r *CertRequest) { r.Role, r.Name = cmg.RoleGateway, "gw1" }), publicationType, p), cmg.ErrForbidden},
		{"signed by another site under one CA", signAs(t, rsaOf(ca, func(r *CertRequest) { r.Site = "XYZ" }), publicationType, p), cmg.ErrForbidden},
		{"signed under another CA", signAs(t, rsaOf(otherCA, nil), publicationType, p), cmg.ErrUnauthenticated},
		{"signer expired", signAs(t, rsaOf(ca, func(r *CertRequest) { r.NotBefore, r.Life = now.Add(-2*day), day }), publicationType, p), cmg.ErrUnauthenticated},
		{"signer not yet valid", signAs(t, rsaOf(ca, func(r *CertRequest) { r.NotBefore = now.Add(day) }), publicationType, p), cmg.ErrUnauthenticated},
		{"another type", signAs(t, site, "JWT", p), cmg.ErrInvalid},
		{"of another site", signAs(t, site, publicationType, otherSite), cmg.ErrForbidden},
		{"bad route", signAs(t, site, publicationType, badRoute), cmg.ErrInvalid},
		{"no publication", signAs(t, site, publicationType, "text"), cmg.ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ReadPublication(gw, test.jws, now)
			wantKind(t, err, test.kind)
			if err != nil && got.Site != "" {
				t.Errorf("an error comes with %+v", got)
			}
		})
	}
}
