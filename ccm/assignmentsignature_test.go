package ccm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/opencmg/cmg"
)

// A signature holds over what was written and read, whatever stands in the
// fields, and over nothing else.
func TestAssignmentSignature(t *testing.T) {
	key, _ := device(t)
	a := Assignment{ID: "{A}", PolicyID: "{P}", Version: "1.00", Category: "a\"<&>\n\tü", Flags: 4, Digest: cmg.Digest{1}, Location: "http://<mp>/SMS_MP/.sms_pol?]]>x"}
	if err := a.Sign(key); err != nil {
		t.Fatal(err)
	}
	read, err := ReadAssignmentReply(AssignmentReply{Assignments: []Assignment{a}}.XML())
	if err != nil || len(read.Assignments) != 1 {
		t.Fatalf("%+v, %v", read, err)
	}
	got := read.Assignments[0]
	if err := got.Verify(&key.PublicKey); err != nil {
		t.Errorf("%+v: %v", got, err)
	}
	for name, change := range map[string]func(*Assignment){
		"nothing signed": func(a *Assignment) { a.Signature = "" },
		"id":             func(a *Assignment) { a.ID = "{B}" },
		"policy":         func(a *Assignment) { a.PolicyID = "{Q}" },
		"version":        func(a *Assignment) { a.Version = "2.00" },
		"category":       func(a *Assignment) { a.Category = "" },
		"flags":          func(a *Assignment) { a.Flags = 0 },
		"digest":         func(a *Assignment) { a.Digest[0]++ },
		"place":          func(a *Assignment) { a.Location = "" },
	} {
		changed := got
		change(&changed)
		if err := changed.Verify(&key.PublicKey); !errors.Is(err, cmg.ErrUnauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Sign(ec); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("a key that is not RSA: %v", err)
	}
}

func TestSiteSigningCertificate(t *testing.T) {
	_, cert := device(t)
	if got, err := ReadSiteSigningCertificate(SiteSigningCertificate(cert)); err != nil || string(got) != string(cert) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for _, bad := range []string{"", "<SiteSigningCertificate/>", "<SiteSigningCertificate>3000</SiteSigningCertificate>", MPCertificate(cert)} {
		if _, err := ReadSiteSigningCertificate(bad); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%.40q: %v", bad, err)
		}
	}
}
