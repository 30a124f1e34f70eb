package site

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

func TestNewKey(t *testing.T) {
	s, _ := open(t)
	first := certificate(t, "first", false).Raw
	d, err := s.Register(t.Context(), cmg.Device{Certificate: first, Approval: cmg.Approved, Proof: cmg.ProofToken}, "")
	if err != nil {
		t.Fatal(err)
	}
	second := cmg.Device{ID: d.ID, Certificate: certificate(t, "second", false).Raw, Encryption: []byte("e"), Hardware: "h", Approval: cmg.Pending, Proof: cmg.ProofToken}
	if _, err := s.Register(t.Context(), second, ""); !errors.Is(err, cmg.ErrConflict) {
		t.Fatalf("without the old key: %v", err)
	}
	got, err := s.RegisterNewKey(t.Context(), second, "")
	if err != nil || got.ID != d.ID || got.Approval != cmg.Approved {
		t.Fatalf("%+v, %v", got, err)
	}
	if kept, err := s.Device(t.Context(), d.ID); err != nil || string(kept.Certificate) != string(second.Certificate) || string(kept.Encryption) != "e" || kept.Hardware != "h" {
		t.Errorf("kept %+v, %v", kept, err)
	}
	// The key of another device stays that device's.
	other, err := s.Register(t.Context(), cmg.Device{Certificate: first, Proof: cmg.ProofToken, Approval: cmg.Pending}, "")
	if err != nil || other.ID == d.ID {
		t.Fatalf("the first key, free again: %+v, %v", other, err)
	}
	second.Certificate = first
	if _, err := s.RegisterNewKey(t.Context(), second, ""); !errors.Is(err, cmg.ErrConflict) {
		t.Errorf("a key that is another's: %v", err)
	}
}

func TestDuplicateDevices(t *testing.T) {
	s, now := open(t)
	var ids []cmg.DeviceID
	for _, hardware := range []string{"b", "", "a", "b", "", "c"} {
		*now = now.Add(time.Second)
		d, err := s.Register(t.Context(), cmg.Device{Certificate: certificate(t, "x", false).Raw, Approval: cmg.Pending, Proof: cmg.ProofToken, Hardware: hardware}, "")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.ID)
	}
	want := []cmg.DeviceID{ids[0], ids[3]}
	slices.Sort(want)
	got, err := s.DuplicateDevices(t.Context(), 0)
	if err != nil || len(got) != 2 || got[0].ID != want[0] || got[1].ID != want[1] {
		t.Fatalf("duplicates %+v, %v", got, err)
	}
	if others, err := s.SameHardware(t.Context(), got[0]); err != nil || len(others) != 1 || others[0].ID != want[1] {
		t.Errorf("others %+v, %v", others, err)
	}
	if others, err := s.SameHardware(t.Context(), cmg.Device{ID: ids[1]}); err != nil || len(others) != 0 {
		t.Errorf("devices that say nothing of their hardware: %+v, %v", others, err)
	}
}

func TestDeleteDevice(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	d, err := s.Register(ctx, cmg.Device{Certificate: certificate(t, "x", false).Raw, Approval: cmg.Approved, Proof: cmg.ProofToken}, "")
	if err != nil {
		t.Fatal(err)
	}
	state := cmg.DeploymentState{Policy: "p", Device: d.ID, State: "succeeded"}
	if _, err := s.AddReport(ctx, cmg.Report{ID: "1", Device: d.ID, Kind: "k"}, state); err != nil {
		t.Fatal(err)
	}
	if err := s.Block(ctx, BlockDevice, string(d.ID), ""); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteDevice(ctx, d.ID); !errors.Is(err, cmg.ErrConflict) {
		t.Fatalf("a blocked device: %v", err)
	}
	if err := s.Unblock(ctx, BlockDevice, string(d.ID)); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteDevice(ctx, d.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Device(ctx, d.ID); !errors.Is(err, cmg.ErrNotFound) {
		t.Errorf("device: %v", err)
	}
	if rs, err := s.Reports(ctx, d.ID, "", 0); err != nil || len(rs) != 0 {
		t.Errorf("reports %+v, %v", rs, err)
	}
	if sts, err := s.DeploymentStates(ctx, "p"); err != nil || len(sts) != 0 {
		t.Errorf("states %+v, %v", sts, err)
	}
	if err := s.DeleteDevice(ctx, d.ID); !errors.Is(err, cmg.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
}

// Devices that nothing proves cannot fill the database.
func TestWaitingDevicesAreBounded(t *testing.T) {
	s, _ := open(t)
	_, err := s.write.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO devices (`+deviceColumns+`, key_id, registration_token)
		SELECT 'GUID:' || i, '', '', '', x'00', 'pending', '', 0, 0, '', x'', '', i, '' FROM n`, maxWaiting)
	if err != nil {
		t.Fatal(err)
	}
	d := cmg.Device{Certificate: certificate(t, "x", false).Raw, Approval: cmg.Pending}
	if _, err := s.Register(t.Context(), d, ""); !errors.Is(err, ErrTooManyWaiting) {
		t.Errorf("one more: %v", err)
	}
	d.Proof = cmg.ProofToken
	if _, err := s.Register(t.Context(), d, ""); err != nil {
		t.Errorf("one that is proven: %v", err)
	}
}
