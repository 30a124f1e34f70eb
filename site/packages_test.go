package site

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

func TestPackages(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	id, err := s.NextPackageID(ctx)
	if err != nil || id != "LAB00001" {
		t.Fatalf("NextPackageID = %s, %v", id, err)
	}
	m := cmg.Manifest{Package: id, Version: 1, Name: "tools", Files: []cmg.File{{Path: "a", Size: 3}, {Path: "b/c", Size: 4}}}
	d1, d2 := cmg.Digest{1}, cmg.Digest{2}
	for _, step := range []struct {
		m    cmg.Manifest
		d    cmg.Digest
		want error
	}{
		{m, d1, nil},
		{m, d1, nil},
		{m, d2, cmg.ErrConflict},
		{cmg.Manifest{Package: id, Version: 0}, d1, cmg.ErrInvalid},
		{cmg.Manifest{Package: "x", Version: 1}, d1, cmg.ErrInvalid},
		{cmg.Manifest{Package: id, Version: 2, Name: "tools"}, d2, nil},
	} {
		if err := s.AddPackage(ctx, step.m, step.d); !errors.Is(err, step.want) {
			t.Fatalf("AddPackage(%s %d): %v, want %v", step.m.Package, step.m.Version, err, step.want)
		}
	}
	p, err := s.Package(ctx, id, 1)
	if err != nil || p.Size != 7 || p.Files != 2 || p.Name != "tools" || p.Grant() != (cmg.PackageGrant{Package: id, Version: 1, Manifest: d1}) {
		t.Fatalf("Package = %+v, %v", p, err)
	}
	if p, err = s.Package(ctx, id, 0); err != nil || p.Version != 2 {
		t.Fatalf("newest = %+v, %v", p, err)
	}
	if _, err = s.Package(ctx, id, 3); !errors.Is(err, cmg.ErrNotFound) {
		t.Fatalf("version 3: %v", err)
	}
	if ps, err := s.Packages(ctx); err != nil || len(ps) != 2 {
		t.Fatalf("Packages = %+v, %v", ps, err)
	}
	if _, err := s.write.Exec(`UPDATE site SET next_package = 1048576`); err != nil {
		t.Fatal(err)
	}
	if id, err := s.NextPackageID(ctx); !errors.Is(err, cmg.ErrConflict) {
		t.Fatalf("after LABFFFFF: %s, %v", id, err)
	}
}

func TestPolicies(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	p := cmg.Policy{ID: "{3D4D1F6C-7B7B-4B0E-8F0E-2B8C3F6B1A01}", Version: "1.00", Category: "CMG_ContentDeployment", Flags: 16, Body: []byte("body")}
	other := p
	other.Body = []byte("other")
	for _, step := range []struct {
		p    cmg.Policy
		want error
	}{
		{p, nil}, {p, nil}, {other, cmg.ErrConflict},
		{cmg.Policy{ID: "3D4D1F6C-7B7B-4B0E-8F0E-2B8C3F6B1A01", Version: "1.00", Body: p.Body}, cmg.ErrInvalid},
		{cmg.Policy{ID: "{3d4d1f6c-7b7b-4b0e-8f0e-2b8c3f6b1a01}", Version: "1.00", Body: p.Body}, cmg.ErrInvalid},
		{cmg.Policy{ID: "{GUID:3D4D1F6C-7B7B-4B0E-8F0E-2B8C3F6B1A01}", Version: "1.00", Body: p.Body}, cmg.ErrInvalid},
		{cmg.Policy{ID: p.ID, Version: "1.00"}, cmg.ErrInvalid},
	} {
		if err := s.AddPolicy(ctx, step.p); !errors.Is(err, step.want) {
			t.Fatalf("AddPolicy(%+v): %v, want %v", step.p, err, step.want)
		}
	}
	as, err := s.Policies(ctx, deviceA)
	if err != nil || len(as) != 1 || as[0].ID != p.ID || as[0].SHA256 != p.SHA256() || as[0].Flags != 16 {
		t.Fatalf("Policies = %+v, %v", as, err)
	}
	if got, err := s.Policy(ctx, p.ID); err != nil || !cmp.Equal(got, p) {
		t.Fatalf("Policy = %+v, %v", got, err)
	}
	if err := s.RetirePolicy(ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	if as, err := s.Policies(ctx, deviceA); err != nil || len(as) != 0 {
		t.Fatalf("Policies after retiring = %+v, %v", as, err)
	}
	for name, err := range map[string]error{"retire again": s.RetirePolicy(ctx, p.ID), "add again": s.AddPolicy(ctx, p)} {
		if !errors.Is(err, cmg.ErrNotFound) && !errors.Is(err, cmg.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Policy(ctx, p.ID); !errors.Is(err, cmg.ErrNotFound) {
		t.Fatalf("retired policy: %v", err)
	}
}

// Policies are listed in the order they were made, whatever their ids and
// the clock say; superseding retires and adds at once or does nothing.
func TestPoliciesInOrder(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	policy := func(digit string) cmg.Policy {
		return cmg.Policy{ID: "{" + digit + "D4D1F6C-7B7B-4B0E-8F0E-2B8C3F6B1A01}", Version: "1.00", Category: "C", Body: []byte(digit)}
	}
	want := func(digits string) {
		t.Helper()
		as, err := s.Policies(ctx, deviceA)
		got := ""
		for _, a := range as {
			got += a.ID[1:2]
		}
		if err != nil || got != digits {
			t.Fatalf("policies %s, %v; want %s", got, err, digits)
		}
	}
	for _, digit := range []string{"9", "5", "7", "1"} {
		if err := s.AddPolicy(ctx, policy(digit)); err != nil {
			t.Fatal(err)
		}
		*now = now.Add(-time.Minute)
	}
	want("9571")
	asked := ""
	err := s.SupersedePolicies(ctx, policy("3"), func(p cmg.Policy) (bool, error) {
		asked += string(p.Body)
		return p.ID == policy("5").ID, nil
	})
	if err != nil || asked != "9571" {
		t.Fatalf("asked of %s, %v", asked, err)
	}
	want("9713")
	no := errors.New("no")
	err = s.SupersedePolicies(ctx, policy("4"), func(p cmg.Policy) (bool, error) {
		if p.ID == policy("1").ID {
			return false, no
		}
		return true, nil
	})
	if !errors.Is(err, no) {
		t.Fatal(err)
	}
	want("9713")
	if err := s.SupersedePolicies(ctx, cmg.Policy{}, nil); !errors.Is(err, cmg.ErrInvalid) {
		t.Error(err)
	}
}

func TestReports(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	add := func(dev cmg.DeviceID, id, kind string, want bool, st ...cmg.DeploymentState) {
		t.Helper()
		*now = now.Add(time.Second)
		added, err := s.AddReport(ctx, cmg.Report{ID: id, Device: dev, Kind: kind, Body: "<Report>" + id + "</Report>"}, st...)
		if err != nil || added != want {
			t.Fatalf("AddReport(%s, %s) = %t, %v", dev, id, added, err)
		}
	}
	state := func(state string, at time.Time) cmg.DeploymentState {
		return cmg.DeploymentState{Device: deviceA, Policy: "{P}", State: state, Updated: at}
	}
	add(deviceA, "1", "State", true, state("failed", *now))
	add(deviceA, "1", "State", false, state("succeeded", now.Add(time.Hour))) // duplicate: nothing of it counts
	add(deviceB, "1", "State", true)                                          // ids count within a device
	add(deviceA, "2", "Discovery", true)
	add(deviceA, "3", "State", true, state("succeeded", now.Add(time.Minute)))
	add(deviceA, "4", "State", true, state("failed", now.Add(-time.Hour))) // older than what is kept
	sts, err := s.DeploymentStates(ctx, "{P}")
	if err != nil || len(sts) != 1 || sts[0].State != "succeeded" {
		t.Fatalf("DeploymentStates = %+v, %v", sts, err)
	}
	for _, test := range []struct {
		device cmg.DeviceID
		kind   string
		limit  int
		want   string
	}{
		{"", "", 0, "43211"}, {"", "", 2, "43"}, {deviceA, "", 0, "4321"}, {deviceA, "State", 0, "431"}, {"", "State", 0, "4311"}, {deviceB, "Discovery", 0, ""},
	} {
		rs, err := s.Reports(ctx, test.device, test.kind, test.limit)
		got := ""
		for _, r := range rs {
			got += r.ID
		}
		if err != nil || got != test.want {
			t.Errorf("Reports(%s, %s, %d) = %s, %v; want %s", test.device, test.kind, test.limit, got, err, test.want)
		}
	}
	if _, err := s.AddReport(ctx, cmg.Report{Device: deviceA}); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("no id: %v", err)
	}
}

// What was written is there when the database is opened again.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.db")
	s, err := Create(t.Context(), path, lab)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Register(t.Context(), device(t, "", "k1", cmg.ProofToken, cmg.Approved), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddRoute(t.Context(), appRoute, "https://app.example"); err != nil {
		t.Fatal(err)
	}
	before, err := s.PublicationState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.Device(t.Context(), d.ID); err != nil || !cmp.Equal(got, d) {
		t.Errorf("device %+v, %v; want %+v", got, err, d)
	}
	if after, err := s.PublicationState(t.Context()); err != nil || !cmp.Equal(after, before) {
		t.Errorf("publication %+v, %v; want %+v", after, err, before)
	}
	if id, err := s.NextPackageID(t.Context()); err != nil || id != "LAB00001" {
		t.Errorf("package id %s, %v", id, err)
	}
}
