package site

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

func TestBlocks(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	d, err := s.Register(ctx, cmg.Device{Name: "PC1", Certificate: certificate(t, "PC1", false).Raw, Approval: cmg.Approved, Proof: cmg.ProofCertificate, Thumbprint: strings.Repeat("ab", 32)}, "")
	if err != nil {
		t.Fatal(err)
	}
	tok := Token{ID: "tok-1", Kind: "registration", NotBefore: *now, Expires: now.Add(time.Hour)}
	if err := s.RecordToken(ctx, tok); err != nil {
		t.Fatal(err)
	}
	const tenant = "6a5c7a92-5a3c-4a57-9f0e-2f3f3f1f0b11"
	for _, step := range []struct {
		name  string
		do    func() error
		bump  uint64
		fails error
		want  cmg.Blocks
	}{
		{"device", func() error { return s.Block(ctx, BlockDevice, strings.ToLower(string(d.ID)), "lost") }, 1, nil,
			cmg.Blocks{Devices: []cmg.DeviceID{d.ID}, Certificates: []string{strings.Repeat("ab", 32)}}},
		{"device again", func() error { return s.Block(ctx, BlockDevice, string(d.ID), "lost") }, 0, nil,
			cmg.Blocks{Devices: []cmg.DeviceID{d.ID}, Certificates: []string{strings.Repeat("ab", 32)}}},
		{"unblock device", func() error { return s.Unblock(ctx, BlockDevice, string(d.ID)) }, 1, nil, cmg.Blocks{}},
		{"unblock it again", func() error { return s.Unblock(ctx, BlockDevice, string(d.ID)) }, 0, cmg.ErrNotFound, cmg.Blocks{}},
		{"unknown device", func() error { return s.Block(ctx, BlockDevice, string(cmg.NewDeviceID()), "") }, 0, cmg.ErrNotFound, cmg.Blocks{}},
		{"token", func() error { return s.Block(ctx, BlockToken, "tok-1", "") }, 1, nil, cmg.Blocks{Tokens: []string{"tok-1"}}},
		{"unknown token", func() error { return s.Block(ctx, BlockToken, "tok-2", "") }, 0, cmg.ErrNotFound, cmg.Blocks{Tokens: []string{"tok-1"}}},
		{"unblock token", func() error { return s.Unblock(ctx, BlockToken, "tok-1") }, 1, nil, cmg.Blocks{}},
		{"serial", func() error { return s.Block(ctx, BlockCertificate, "00:1A:2b", "") }, 1, nil, cmg.Blocks{Certificates: []string{"1a2b"}}},
		{"no serial", func() error { return s.Block(ctx, BlockCertificate, "CN=x", "") }, 0, cmg.ErrInvalid, cmg.Blocks{Certificates: []string{"1a2b"}}},
		{"unblock serial", func() error { return s.Unblock(ctx, BlockCertificate, "1a 2b") }, 1, nil, cmg.Blocks{}},
		{"tenant", func() error { return s.Block(ctx, BlockTenant, strings.ToUpper(tenant), "") }, 1, nil, cmg.Blocks{Tenants: []string{tenant}}},
		{"no tenant", func() error { return s.Block(ctx, BlockTenant, "contoso.com", "") }, 0, cmg.ErrInvalid, cmg.Blocks{Tenants: []string{tenant}}},
		{"unknown kind", func() error { return s.Block(ctx, "planet", "x", "") }, 0, cmg.ErrInvalid, cmg.Blocks{Tenants: []string{tenant}}},
		{"long reason", func() error { return s.Block(ctx, BlockTenant, tenant, strings.Repeat("x", 257)) }, 0, cmg.ErrTooLarge, cmg.Blocks{Tenants: []string{tenant}}},
	} {
		before, err := s.PublicationState(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := step.do(); !errors.Is(err, step.fails) {
			t.Fatalf("%s: %v, want %v", step.name, err, step.fails)
		}
		after, err := s.PublicationState(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if after.Version-before.Version != step.bump {
			t.Errorf("%s: the version grew by %d, want %d", step.name, after.Version-before.Version, step.bump)
		}
		if diff := cmp.Diff(step.want, after.Publication().Blocks); diff != "" {
			t.Errorf("%s (-want +got):\n%s", step.name, diff)
		}
		if err := after.Publication().Check(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
	}
	if got, err := s.Device(ctx, d.ID); err != nil || got.Approval != cmg.Approved {
		t.Errorf("a device that was approved before is %s after its block, %v", got.Approval, err)
	}
}

// A block of a token goes when the token's record does: nothing is left of
// what it could block. A device token can be renewed after its end: its block
// stays for as long.
func TestBlockEndsWithItsToken(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	for _, kind := range []string{"session", "device"} {
		if err := s.RecordToken(ctx, Token{ID: kind, Kind: kind, Device: "GUID:x", NotBefore: *now, Expires: now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Block(ctx, BlockToken, "session", ""), s.Block(ctx, BlockToken, "device", ""), s.Block(ctx, BlockCertificate, "1f", "")); err != nil {
		t.Fatal(err)
	}
	for _, prune := range []struct {
		devices time.Duration
		want    []string
	}{{-time.Hour, []string{"1f", "device"}}, {2 * time.Hour, []string{"1f"}}} {
		if _, err := s.PruneTokens(ctx, now.Add(2*time.Hour), now.Add(prune.devices)); err != nil {
			t.Fatal(err)
		}
		bs, err := s.Blocks(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, b := range bs {
			left = append(left, b.Value)
		}
		if diff := cmp.Diff(prune.want, left); diff != "" {
			t.Errorf("blocks left (-want +got):\n%s", diff)
		}
	}
}

// The certificate's block that came with a device's goes with it, whichever
// way the device is let in again; one of the certificate's own stays.
func TestCertificateOfBlockedDevice(t *testing.T) {
	thumb := strings.Repeat("ab", 32)
	for name, letIn := range map[string]func(*Site, cmg.DeviceID) error{
		"unblock": func(s *Site, id cmg.DeviceID) error { return s.Unblock(t.Context(), BlockDevice, string(id)) },
		"approve": func(s *Site, id cmg.DeviceID) error { return s.SetApproval(t.Context(), id, cmg.Approved) },
	} {
		for _, own := range []bool{false, true} {
			s, _ := open(t)
			d, err := s.Register(t.Context(), cmg.Device{Certificate: certificate(t, "PC1", false).Raw, Approval: cmg.Approved, Proof: cmg.ProofCertificate, Thumbprint: thumb}, "")
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			if own {
				if err := s.Block(t.Context(), BlockCertificate, thumb, "stolen"); err != nil {
					t.Fatal(err)
				}
				want = 1
			}
			if err := errors.Join(s.Block(t.Context(), BlockDevice, string(d.ID), "lost"), letIn(s, d.ID)); err != nil {
				t.Fatal(err)
			}
			if bs, err := s.Blocks(t.Context()); err != nil || len(bs) != want {
				t.Errorf("%s, a block of its own %v: left are %+v, %v", name, own, bs, err)
			}
		}
	}
}

func TestBlocksAreBounded(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	if _, err := s.write.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO blocks SELECT 'certificate', ltrim(printf('%x', i), '0'), '', '', 0, 0, '' FROM n`, cmg.MaxBlocks); err != nil {
		t.Fatal(err)
	}
	if err := s.Block(ctx, BlockCertificate, "ffffff", ""); !errors.Is(err, cmg.ErrTooLarge) {
		t.Errorf("one more: %v, want too large", err)
	}
	p, err := s.PublicationState(ctx)
	if err != nil || p.Publication().Check() != nil || p.Blocks.Len() != cmg.MaxBlocks {
		t.Errorf("%d blocks, %v, %v", p.Blocks.Len(), p.Publication().Check(), err)
	}
}

func TestRefusals(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	rec := func(id, hop string) cmg.RefusalRecord {
		*now = now.Add(time.Millisecond)
		return cmg.Record(id, hop, *now, cmg.Refuse(403, "CMGService_Not_Published", "nothing", errors.New("inner")).With("path", "/x"))
	}
	if err := s.AddRefusals(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.AddRefusals(ctx, []cmg.RefusalRecord{rec("a", "gateway/1"), rec("a", "connection-point/1"), rec("a", "gateway/1"), rec("b", "gateway/1")}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Refusal(ctx, "a")
	if err != nil || len(got) != 2 || got[1].Hop != "gateway/1" || got[1].Cause != "inner" || len(got[1].Facts) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := s.Refusal(ctx, "c"); !errors.Is(err, cmg.ErrNotFound) {
		t.Errorf("unknown id: %v", err)
	}
	if rs, err := s.Refusals(ctx, 1); err != nil || len(rs) != 1 || rs[0].ID != "b" {
		t.Errorf("newest: %+v, %v", rs, err)
	}
	if _, err := s.write.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO refusals SELECT 'm' || i, 'gateway/1', ? + i, '{}' FROM n`, keepRefusals+500, micros(*now)); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(time.Hour)
	if err := s.AddRefusals(ctx, []cmg.RefusalRecord{rec("last", "gateway/1")}); err != nil {
		t.Fatal(err)
	}
	if rs, err := s.Refusals(ctx, 0); err != nil || len(rs) > keepRefusals+1 || rs[0].ID != "last" {
		t.Errorf("%d are kept, %v", len(rs), err)
	}
	if _, err := s.Refusal(ctx, "a"); !errors.Is(err, cmg.ErrNotFound) {
		t.Errorf("the oldest is still there: %v", err)
	}
}
