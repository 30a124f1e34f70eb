package site

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

const (
	deviceA = cmg.DeviceID("GUID:AAAAAAAA-0000-4000-8000-000000000001")
	deviceB = cmg.DeviceID("GUID:BBBBBBBB-0000-4000-8000-000000000002")
)

var keys = map[string]*ecdsa.PrivateKey{}

// certOf gives a certificate for the key of that name; a name such as k1+ is a
// renewed certificate for the key k1.
func certOf(t *testing.T, name string) []byte {
	t.Helper()
	if name == "" {
		return nil
	}
	var err error
	key := strings.TrimSuffix(name, "+")
	if keys[key] == nil {
		if keys[key], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(int64(len(name))), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, keys[key].Public(), keys[key])
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func device(t *testing.T, id cmg.DeviceID, cert string, p cmg.Proof, a cmg.Approval) cmg.Device {
	return cmg.Device{ID: id, Name: "PC1", FQDN: "pc1.example", Agent: "0.1", Certificate: certOf(t, cert), Proof: p, Approval: a}
}

func TestRegisterAgain(t *testing.T) {
	for _, test := range []struct {
		name          string
		first, second cmg.Device
		want          error // of the second
		same          bool  // the second has the first's id
		approval      cmg.Approval
	}{
		{
			name: "the same certificate gives the same id", same: true, approval: cmg.Pending,
			first: device(t, "", "k1", cmg.ProofToken, cmg.Pending), second: device(t, "", "k1", cmg.ProofToken, cmg.Pending),
		}, {
			name: "so does a renewed certificate", same: true, approval: cmg.Pending,
			first: device(t, "", "k1", cmg.ProofToken, cmg.Pending), second: device(t, "", "k1+", cmg.ProofToken, cmg.Pending),
		}, {
			name: "another key is another device", approval: cmg.Pending,
			first: device(t, "", "k1", cmg.ProofToken, cmg.Pending), second: device(t, "", "k2", cmg.ProofToken, cmg.Pending),
		}, {
			name: "approval rises", same: true, approval: cmg.Approved,
			first: device(t, "", "k1", cmg.ProofToken, cmg.Pending), second: device(t, "", "k1", cmg.ProofCertificate, cmg.Approved),
		}, {
			name: "approval does not fall", same: true, approval: cmg.Approved,
			first: device(t, "", "k1", cmg.ProofCertificate, cmg.Approved), second: device(t, "", "k1", cmg.ProofToken, cmg.Pending),
		}, {
			name: "blocked stays blocked", want: ErrDeviceBlocked,
			first: device(t, "", "k1", cmg.ProofToken, cmg.Blocked), second: device(t, "", "k1", cmg.ProofCertificate, cmg.Approved),
		}, {
			name: "a certificate may replace the key", same: true, approval: cmg.Approved,
			first: device(t, deviceA, "k1", cmg.ProofCertificate, cmg.Approved), second: device(t, deviceA, "k2", cmg.ProofCertificate, cmg.Approved),
		}, {
			name: "a token may not replace the key", want: cmg.ErrConflict,
			first: device(t, deviceA, "k1", cmg.ProofCertificate, cmg.Approved), second: device(t, deviceA, "k2", cmg.ProofToken, cmg.Approved),
		}, {
			name: "nobody takes another device's key", want: cmg.ErrConflict,
			first: device(t, deviceA, "k1", cmg.ProofCertificate, cmg.Approved), second: device(t, deviceB, "k1", cmg.ProofCertificate, cmg.Approved),
		}, {
			name: "no certificate", want: cmg.ErrInvalid,
			first: device(t, deviceA, "k1", cmg.ProofCertificate, cmg.Approved), second: device(t, deviceB, "", cmg.ProofCertificate, cmg.Approved),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, now := open(t)
			first, err := s.Register(t.Context(), test.first, "")
			if err != nil {
				t.Fatal(err)
			}
			began := *now
			*now = now.Add(time.Hour)
			second, err := s.Register(t.Context(), test.second, "")
			if !errors.Is(err, test.want) {
				t.Fatalf("second: %v, want %v", err, test.want)
			}
			if test.want != nil {
				if d, err := s.Device(t.Context(), first.ID); err != nil || !cmp.Equal(d, first) {
					t.Fatalf("the first device became %+v, %v", d, err)
				}
				return
			}
			if got := first.ID == second.ID; got != test.same {
				t.Errorf("ids %s and %s", first.ID, second.ID)
			}
			if second.Approval != test.approval || !bytes.Equal(second.Certificate, test.second.Certificate) || !second.LastSeen.Equal(*now) {
				t.Errorf("second is %+v", second)
			}
			if test.same && !second.Registered.Equal(began) {
				t.Errorf("registered %s, want %s", second.Registered, began)
			}
			if d, err := s.Device(t.Context(), second.ID); err != nil || !cmp.Equal(d, second) {
				t.Errorf("stored %+v, %v; want %+v", d, err, second)
			}
		})
	}
}

func TestRegistrationTokens(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	tok := Token{ID: "t1", Kind: "registration", Note: "branch", NotBefore: *now, Expires: now.Add(time.Hour), MaxUses: 2}
	if err := s.RecordToken(ctx, tok); err != nil {
		t.Fatal(err)
	}
	if err := s.RecordToken(ctx, tok); !errors.Is(err, cmg.ErrConflict) {
		t.Fatalf("recorded twice: %v", err)
	}
	register := func(cert string, token string, want error) {
		t.Helper()
		if _, err := s.Register(ctx, device(t, "", cert, cmg.ProofToken, cmg.Approved), token); !errors.Is(err, want) {
			t.Fatalf("register %s with %s: %v, want %v", cert, token, err, want)
		}
	}
	register("k1", "t1", nil)
	register("k1", "t1", nil) // repeated: not spent again
	register("k2", "t1", nil)
	register("k3", "t1", ErrTokenSpent)
	register("k3", "t2", ErrTokenUnknown)
	if got, err := s.Token(ctx, "t1"); err != nil || got.Uses != 2 {
		t.Fatalf("token %+v, %v; want 2 uses", got, err)
	}
	if ds, err := s.Devices(ctx, "", 0); err != nil || len(ds) != 2 {
		t.Fatalf("%d devices, %v; want 2: a refused token registers nothing", len(ds), err)
	}
	if err := s.BlockToken(ctx, "t1", true); err != nil {
		t.Fatal(err)
	}
	register("k1", "t1", ErrTokenBlocked)
	if err := s.BlockToken(ctx, "t1", false); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(time.Hour)
	register("k1", "t1", ErrTokenExpired)
	*now = now.Add(-2 * time.Hour)
	register("k1", "t1", ErrTokenNotYetValid)
	if err := s.BlockToken(ctx, "t9", true); !errors.Is(err, cmg.ErrNotFound) {
		t.Fatalf("block of nothing: %v", err)
	}
}

func TestTokenLists(t *testing.T) {
	s, now := open(t)
	for i := range 3 {
		*now = now.Add(time.Minute)
		for _, kind := range []string{"session", "device"} {
			tok := Token{ID: fmt.Sprint(kind, i), Kind: kind, Device: deviceA, NotBefore: *now, Expires: now.Add(time.Hour)}
			if err := s.RecordToken(t.Context(), tok); err != nil {
				t.Fatal(err)
			}
		}
	}
	ts, err := s.Tokens(t.Context(), "session", 2)
	if err != nil || len(ts) != 2 || ts[0].ID != "session2" || ts[1].ID != "session1" || ts[0].Device != deviceA {
		t.Fatalf("Tokens = %+v, %v", ts, err)
	}
	if n, err := s.PruneTokens(t.Context(), now.Add(time.Hour), now.Add(time.Hour)); err != nil || n != 4 {
		t.Fatalf("pruned %d, %v; want 4", n, err)
	}
}

func TestProofsAreGoodForOneUse(t *testing.T) {
	s, now := open(t)
	record := func(id, proof string, want error) {
		t.Helper()
		tok := Token{ID: id, Kind: "session", Device: deviceA, NotBefore: *now, Expires: now.Add(time.Hour)}
		if err := s.RecordTokenFor(t.Context(), tok, proof, now.Add(15*time.Minute)); !errors.Is(err, want) {
			t.Fatalf("record %s for %s: %v, want %v", id, proof, err, want)
		}
	}
	record("s1", "p1", nil)
	record("s2", "p1", ErrProofUsed)
	record("s1", "p2", cmg.ErrConflict)
	record("s2", "p2", nil) // the refused write left nothing behind
	*now = now.Add(16 * time.Minute)
	record("s3", "p1", nil) // forgotten: its time no longer passes
	if _, err := s.Token(t.Context(), "s2"); err != nil {
		t.Fatal(err)
	}
}

func TestDevicesTouchApproval(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	for i, id := range []cmg.DeviceID{deviceB, deviceA} {
		if _, err := s.Register(ctx, device(t, id, fmt.Sprint("k", i), cmg.ProofCertificate, cmg.Pending), ""); err != nil {
			t.Fatal(err)
		}
	}
	later := now.Add(time.Minute)
	if err := s.Touch(ctx, map[cmg.DeviceID]time.Time{deviceA: later, deviceB: now.Add(-time.Hour), "GUID:none": later}); err != nil {
		t.Fatal(err)
	}
	ds, err := s.Devices(ctx, "", 0)
	if err != nil || len(ds) != 2 || ds[0].ID != deviceA || !ds[0].LastSeen.Equal(later) || !ds[1].LastSeen.Equal(*now) {
		t.Fatalf("Devices = %+v, %v", ds, err)
	}
	if ds, err = s.Devices(ctx, deviceA, 5); err != nil || len(ds) != 1 || ds[0].ID != deviceB {
		t.Fatalf("Devices after A = %+v, %v", ds, err)
	}
	if err := s.SetApproval(ctx, deviceA, cmg.Blocked); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Device(ctx, deviceA); err != nil || d.Approval != cmg.Blocked {
		t.Fatalf("Device = %+v, %v", d, err)
	}
	if err := s.SetApproval(ctx, deviceA, "root"); !errors.Is(err, cmg.ErrInvalid) {
		t.Fatalf("unknown approval: %v", err)
	}
	for _, id := range []cmg.DeviceID{"GUID:none", "' OR '1'='1", "x'; DROP TABLE devices; --"} {
		if err := s.SetApproval(ctx, id, cmg.Approved); !errors.Is(err, cmg.ErrNotFound) {
			t.Fatalf("SetApproval(%q): %v, want not found", id, err)
		}
		if _, err := s.Device(ctx, id); !errors.Is(err, cmg.ErrNotFound) {
			t.Fatalf("Device(%q): %v, want not found", id, err)
		}
	}
	if ds, err := s.Devices(ctx, "", 0); err != nil || len(ds) != 2 {
		t.Fatalf("%d devices are left, %v", len(ds), err)
	}
}
