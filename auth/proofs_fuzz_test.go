package auth

import (
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// FuzzEntraToken: whatever comes is refused, or is the one token that was made.
func FuzzEntraToken(f *testing.F) {
	d := newDirectory(f, tenantA)
	authority := cmg.EntraClouds["public"]
	v, err := newEntra([]cmg.Tenant{d.tenant(authority)})
	if err != nil {
		f.Fatal(err)
	}
	good := d.token(authority, nil)
	for _, s := range []string{good, "", "a.b.c", good[:len(good)-1], "eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := v.Verify(Evidence{Authorization: "Bearer " + s}, d.from)
		if err == nil && s != good {
			t.Errorf("%q proved %+v", s, c)
		}
	})
}

// FuzzReadCRL: nothing but a list that the authority signed is taken.
func FuzzReadCRL(f *testing.F) {
	root := signingRoot(f, "root")
	good := crlOf(f, root, nil, 5, 6)
	f.Add(good)
	f.Add([]byte("-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ReadCRL(b, root.cert, time.Now()); err == nil && !c.Revoked.Has(big.NewInt(5)) {
			t.Errorf("a list that was not made was taken: %+v", c)
		}
	})
}

// FuzzReadOCSP: an answer that the authority did not sign is never good news.
func FuzzReadOCSP(f *testing.F) {
	root := signingRoot(f, "root")
	leaf := leafOf(f, root, 9, nil)
	f.Add([]byte{0x30, 0x03, 0x0a, 0x01, 0x06})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := readOCSP(b, leaf, root.cert, time.Now()); err == nil {
			t.Errorf("it was taken: %+v", s)
		}
	})
}

// FuzzReadRevokedList: what is read is written the same.
func FuzzReadRevokedList(f *testing.F) {
	l, err := newRevokedList([]uint64{1, 2, 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(l.Document())
	f.Add([]byte(listMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := ReadRevokedList(b); err == nil && string(l.Document()) != string(b) {
			t.Errorf("%x was read as %x", b, l.Document())
		}
	})
}
