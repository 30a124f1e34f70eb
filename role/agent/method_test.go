package agent

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
)

// Of the ways a device can prove itself the best counts, for as long as it is
// there: certificate, directory token, token of the site.
func TestPreferred(t *testing.T) {
	l := newLab(t)
	save := func(name string, r auth.CertRequest) (cert, key string) {
		t.Helper()
		i, err := l.authority.Issue(r)
		if err == nil {
			err = i.Save(l.file(name+".crt"), l.file(name+".key"))
		}
		if err != nil {
			t.Fatal(err)
		}
		return l.file(name + ".crt"), l.file(name + ".key")
	}
	good, goodKey := save("good", auth.CertRequest{Name: "good", Client: true})
	old, oldKey := save("old", auth.CertRequest{Name: "old", Client: true, NotBefore: time.Now().Add(-2 * time.Hour), Life: time.Hour})
	server, serverKey := save("server", auth.CertRequest{Name: "server", Server: true, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	directory := func(context.Context) (string, error) { return "directory", nil }
	for _, test := range []struct {
		name      string
		cert, key string
		directory bool
		token     bool
		proof     cmg.Proof
		first     string // what registers; "token" is the registration token
	}{
		{"all three", good, goodKey, true, true, cmg.ProofCertificate, ""},
		{"no certificate", "", "", true, true, cmg.ProofToken, "directory"},
		{"token only", "", "", false, true, cmg.ProofToken, "token"},
		{"certificate that ended", old, oldKey, false, true, cmg.ProofToken, "token"},
		{"certificate that ended, and a directory", old, oldKey, true, true, cmg.ProofToken, "directory"},
		{"certificate for servers", server, serverKey, false, true, cmg.ProofToken, "token"},
		{"certificate that is not there", l.file("none.crt"), l.file("none.key"), false, true, cmg.ProofToken, "token"},
		{"certificate only", good, goodKey, false, false, cmg.ProofCertificate, ""},
		{"certificate that ended, and nothing else", old, oldKey, false, false, cmg.ProofCertificate, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := l.config(l.file("state-" + test.name))
			c.ClientCertificate, c.ClientKey = test.cert, test.key
			if test.directory {
				c.EntraToken = directory
			}
			if !test.token {
				c.RegistrationTokenFile = ""
			}
			a, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			defer a.link.close()
			if got := a.cfg.proof(); got != test.proof {
				t.Errorf("it proves itself by %s, want %s", got, test.proof)
			}
			first, err := a.firstProof(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if first != test.first && !(test.first == "token" && len(first) > 50) {
				t.Errorf("it registers with %.20q, want %s", first, test.first)
			}
		})
	}
}

// A session that brings a new device token saves a registration: in a running
// agent, at its next contact.
func TestDeviceTokenComesWithSession(t *testing.T) {
	l := newLab(t)
	l.renews = true
	a, err := l.pass(l.config(l.file("state")))
	if err != nil {
		t.Fatal(err)
	}
	if got := a.state.Token.lived(l.now()); got > 0.01 {
		t.Fatalf("%v of the device token's life is over", got)
	}
	before := a.state.Token.Value
	l.wait(31 * 24 * time.Hour)
	l.forget()
	if err := a.Run(t.Context()); err != nil { // not started again
		t.Fatal(err)
	}
	if a.state.Token.Value == before || l.count(ccm.EndpointRegistration) != 0 || l.count("session") != 1 {
		t.Errorf("renewed: %v; %d registrations, %d exchanges", a.state.Token.Value != before, l.count(ccm.EndpointRegistration), l.count("session"))
	}
	kept, err := a.store.load()
	if err != nil || kept.Token.Value != a.state.Token.Value {
		t.Errorf("the new device token is not kept (%v)", err)
	}
}
