package site

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func newDevice(t *testing.T, s *Site, name string) cmg.DeviceID {
	t.Helper()
	d, err := s.Register(t.Context(), cmg.Device{Name: name, Certificate: certificate(t, name, false).Raw, Approval: cmg.Approved, Proof: cmg.ProofToken}, "")
	if err != nil {
		t.Fatal(err)
	}
	return d.ID
}

func (s *Site) names(t *testing.T, collection string) (names []string) {
	t.Helper()
	members, err := s.Members(t.Context(), collection)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range members {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	return names
}

func TestCollections(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	web, db := newDevice(t, s, "WEB-1"), newDevice(t, s, "DB-1")
	for name, query := range map[string]string{"Web": `name like "web-%"`, "Linux": `os = "linux"`, "Pilot": ""} {
		if err := s.AddCollection(ctx, name, query); err != nil {
			t.Fatal(err)
		}
	}
	for name, query := range map[string]string{"": "", "-x": "", "a\nb": "", "it's": "", strings.Repeat("a", 65): "", "Bad": `os = `} {
		if err := s.AddCollection(ctx, name, query); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%.40q %s: %v", name, query, err)
		}
	}
	if err := s.AddCollection(ctx, "PILOT", ""); !errors.Is(err, cmg.ErrConflict) {
		t.Errorf("the same name: %v", err)
	}
	if all, err := s.Collections(ctx); err != nil || len(all) != 3 || all[0].Name != "Linux" || all[1].Name != "Pilot" {
		t.Errorf("collections %+v, %v", all, err)
	}
	if got := s.names(t, "WEB"); !slices.Equal(got, []string{"WEB-1"}) {
		t.Errorf("Web holds %v", got)
	}

	// Discovery changes what a query holds; a record that is repeated does not.
	discovery := func(id, os string) {
		t.Helper()
		if _, err := s.AddDiscovery(ctx, cmg.Report{ID: id, Device: db, Kind: "Discovery"}, map[string]string{"OS": os, "name": "WEB-lie", strings.Repeat("x", 200): "y"}); err != nil {
			t.Fatal(err)
		}
	}
	discovery("1", "Linux")
	if got := s.names(t, "Linux"); !slices.Equal(got, []string{"DB-1"}) {
		t.Errorf("Linux holds %v", got)
	}
	discovery("2", "windows")
	discovery("1", "Linux")
	if got := s.names(t, "Linux"); len(got) != 0 {
		t.Errorf("after the repetition Linux holds %v", got)
	}
	if got := s.names(t, "Web"); !slices.Equal(got, []string{"WEB-1"}) {
		t.Errorf("a device chose its own name: Web holds %v", got)
	}

	if err := s.ChangeMembers(ctx, "pilot", []cmg.DeviceID{web, db, web}, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.ChangeMembers(ctx, "Pilot", nil, []cmg.DeviceID{web}); err != nil {
		t.Fatal(err)
	}
	if got := s.names(t, "Pilot"); !slices.Equal(got, []string{"DB-1"}) {
		t.Errorf("Pilot holds %v", got)
	}
	for name, err := range map[string]error{
		"unknown collection": s.ChangeMembers(ctx, "None", []cmg.DeviceID{web}, nil),
		"unknown device":     s.ChangeMembers(ctx, "Pilot", []cmg.DeviceID{cmg.NewDeviceID()}, nil),
		"unknown, removed":   s.RemoveCollection(ctx, "None"),
	} {
		if !errors.Is(err, cmg.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.ChangeMembers(ctx, "Web", []cmg.DeviceID{db}, nil); !errors.Is(err, cmg.ErrConflict) {
		t.Errorf("a query's members: %v", err)
	}
	if err := s.DeleteDevice(ctx, db); err != nil {
		t.Fatal(err)
	}
	if got := s.names(t, "Pilot"); len(got) != 0 {
		t.Errorf("a deleted device is in %v", got)
	}
}

// Policies reach the devices of their collection only, and are taken back
// from those that leave it.
func TestPoliciesOfCollections(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	in, out := newDevice(t, s, "WEB-1"), newDevice(t, s, "DB-1")
	if err := s.AddCollection(ctx, "Pilot", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.AddCollection(ctx, "Web", `name like "WEB-%"`); err != nil {
		t.Fatal(err)
	}
	policy := func(n int, collection string) cmg.Policy {
		return cmg.Policy{ID: fmt.Sprintf("{00000000-0000-0000-0000-00000000000%d}", n), Version: "1.00", Body: []byte("body"), Collection: collection}
	}
	for n, collection := range []string{"", "pilot", "Web"} {
		if err := s.AddPolicy(ctx, policy(n, collection)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddPolicy(ctx, policy(4, "None")); !errors.Is(err, cmg.ErrNotFound) {
		t.Errorf("for a collection that is not there: %v", err)
	}
	if err := s.AddPolicy(ctx, policy(0, "Web")); !errors.Is(err, cmg.ErrConflict) {
		t.Errorf("the same for others: %v", err)
	}
	of := func(d cmg.DeviceID) (ids string) {
		t.Helper()
		as, err := s.Policies(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range as {
			ids += a.ID[len(a.ID)-2 : len(a.ID)-1]
			p, err := s.Policy(ctx, a.ID)
			if err != nil {
				t.Fatal(err)
			}
			if d == "" {
				continue
			}
			if yes, err := s.Applies(ctx, p, d); err != nil || !yes {
				t.Errorf("policy %s is listed and does not apply: %v", a.ID, err)
			}
		}
		return ids
	}
	if of(in) != "02" || of(out) != "0" || of("") != "012" {
		t.Errorf("policies %s, %s, %s", of(in), of(out), of(""))
	}
	if err := s.ChangeMembers(ctx, "Pilot", []cmg.DeviceID{out}, nil); err != nil {
		t.Fatal(err)
	}
	if of(out) != "01" {
		t.Errorf("after it was put in: %s", of(out))
	}
	if err := s.ChangeMembers(ctx, "Pilot", nil, []cmg.DeviceID{out}); err != nil {
		t.Fatal(err)
	}
	if of(out) != "0" {
		t.Errorf("after it was taken out: %s", of(out))
	}
	if err := s.RemoveCollection(ctx, "Pilot"); !errors.Is(err, cmg.ErrConflict) {
		t.Errorf("a collection in use: %v", err)
	}
	if err := s.RetirePolicy(ctx, policy(1, "").ID); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveCollection(ctx, "Pilot"); err != nil {
		t.Error(err)
	}
}
