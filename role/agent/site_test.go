package agent

import (
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// What the site has not signed is not obeyed, and takes nothing back either.
func TestAssignmentsThatTheSiteHasNotSigned(t *testing.T) {
	other, otherKey, err := ccm.NewClientCertificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, tamper := range map[string]func(*ccm.Assignment){
		"no signature":       func(a *ccm.Assignment) { a.Signature = "" },
		"another digest":     func(a *ccm.Assignment) { a.Digest[0] ^= 1 },
		"another policy":     func(a *ccm.Assignment) { a.PolicyID = a.PolicyID + "x" },
		"not secret":         func(a *ccm.Assignment) { a.Flags ^= cmg.PolicySecret },
		"another place":      func(a *ccm.Assignment) { a.Location += "0" },
		"signed by a device": func(a *ccm.Assignment) { a.Sign(otherKey) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			first := l.addPackage("LAB00001", "first", tools)
			c := l.config(l.file("state"))
			if _, err := l.pass(c); err != nil {
				t.Fatal(err)
			}
			l.addPackage("LAB00002", "second", tools)
			l.tamper = tamper
			a, err := l.pass(c)
			if !errors.Is(err, cmg.ErrUnauthenticated) {
				t.Fatalf("got %v", err)
			}
			if _, err := os.Stat(filepath.Join(c.StateDir, "content", "second")); !os.IsNotExist(err) {
				t.Errorf("it was obeyed: %v", err)
			}
			if a.state.Policies[first.ID] == nil {
				t.Error("what was obeyed before was forgotten")
			}
		})
	}

	// The certificate that was shown first stays; the configured one counts more.
	l := newLab(t)
	l.addPackage("LAB00001", "first", tools)
	c := l.config(l.file("state"))
	if _, err := l.pass(c); err != nil {
		t.Fatal(err)
	}
	l.siteCert, l.siteKey = other, otherKey
	if _, err := l.pass(c); !errors.Is(err, cmg.ErrUnauthenticated) {
		t.Fatalf("another site: %v", err)
	}
	c.SiteCertificate = l.file("site.pem")
	if _, err := New(c); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(c.SiteCertificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other}), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := l.pass(c); err != nil {
		t.Errorf("the other site's certificate was configured: %v", err)
	}
}
