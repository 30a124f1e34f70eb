package site

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

// pushesOf lists what waits, as device and kind in order, and the newest id.
func pushesOf(t *testing.T, s *Site) (all []string, last uint64) {
	t.Helper()
	ps, err := s.Pushes(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		if p.ID <= last || p.GUID == "" || !p.Expires.After(p.Made) {
			t.Errorf("push %+v after %d", p, last)
		}
		all, last = append(all, string(p.Device)+"/"+string(p.Param)), p.ID
	}
	return all, last
}

func TestPushes(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	for _, d := range []cmg.Device{device(t, deviceA, "k1", cmg.ProofToken, cmg.Approved), device(t, deviceB, "k2", cmg.ProofToken, cmg.Pending)} {
		if _, err := s.Register(ctx, d, ""); err != nil {
			t.Fatal(err)
		}
	}
	push := func(task int, param string, life time.Duration, to ...cmg.DeviceID) {
		t.Helper()
		if err := s.Push(ctx, task, []byte(param), life, to...); err != nil {
			t.Fatal(err)
		}
	}
	push(taskPolicy, "1", 0)
	push(15, "2", time.Hour, deviceA, deviceB)
	push(taskPolicy, "3", 0) // takes the first one's place
	push(taskPolicy, "4", 0, deviceA)
	push(taskPolicy, "5", 0, deviceA)
	all, last := pushesOf(t, s)
	want := []string{string(deviceA) + "/2", string(deviceB) + "/2", "/3", string(deviceA) + "/5"}
	if d := cmp.Diff(all, want); d != "" || last != 6 {
		t.Error(d, last)
	}

	if err := s.NotePresence(ctx, []Presence{{Device: deviceA, Acked: last, Online: true, LastOnline: *now, Run: "r1"}}); err != nil {
		t.Fatal(err)
	}
	all, _ = pushesOf(t, s)
	if d := cmp.Diff(all, []string{string(deviceB) + "/2", "/3"}); d != "" {
		t.Errorf("what a device took is forgotten, what is for all is not: %s", d)
	}
	*now = now.Add(2 * time.Hour)
	if err := s.PrunePushes(ctx); err != nil {
		t.Fatal(err)
	}
	if all, _ = pushesOf(t, s); len(all) != 1 {
		t.Errorf("after an hour there are %q", all)
	}

	stranger := cmg.DeviceID("GUID:CCCCCCCC-0000-4000-8000-000000000003")
	for name, c := range map[string]struct{ got, want error }{
		"no device": {s.Push(ctx, 1, nil, 0, deviceA, stranger), cmg.ErrNotFound},
		"no task":   {s.Push(ctx, 0, nil, 0), cmg.ErrInvalid},
		"long":      {s.Push(ctx, 15, make([]byte, MaxPushParam+1), 0), cmg.ErrInvalid},
		"for ever":  {s.Push(ctx, 15, nil, MaxPushLife+1), cmg.ErrInvalid},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v", name, c.got)
		}
	}
	if all, _ := pushesOf(t, s); len(all) != 1 {
		t.Errorf("what was refused left %q", all)
	}
	for range MaxPushes {
		push(15, "x", 0, deviceB)
	}
	if err := s.Push(ctx, 15, nil, 0, deviceB); !errors.Is(err, cmg.ErrConflict) {
		t.Errorf("one more than fit: %v", err)
	}
	push(15, "x", 0, deviceA) // has room of its own
}

// TestPolicyPushes: what changes policy tells of it, what changes nothing
// does not.
func TestPolicyPushes(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	p := cmg.Policy{ID: "{AAAAAAAA-0000-4000-8000-000000000001}", Version: "1", Category: "x", Body: []byte("b")}
	if _, err := s.Register(ctx, device(t, deviceA, "k1", cmg.ProofToken, cmg.Pending), ""); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		do   func() error
		last uint64
	}{
		{"add", func() error { return s.AddPolicy(ctx, p) }, 1},
		{"add the same", func() error { return s.AddPolicy(ctx, p) }, 1},
		{"retire", func() error { return s.RetirePolicy(ctx, p.ID) }, 2},
		{"approve", func() error { return s.SetApproval(ctx, deviceA, cmg.Approved) }, 3},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if _, last := pushesOf(t, s); last != step.last {
			t.Errorf("%s: the newest push is %d, not %d", step.name, last, step.last)
		}
	}
	if err := s.RetirePolicy(ctx, p.ID); !errors.Is(err, cmg.ErrNotFound) {
		t.Error(err)
	}
	if all, last := pushesOf(t, s); len(all) != 2 || last != 3 {
		t.Errorf("a change that failed told of itself: %q", all)
	}
}

func TestAwaitPushes(t *testing.T) {
	s, _ := open(t)
	other, got := make(chan error, 1), make(chan uint64, 1)
	go func() {
		last, err := s.AwaitPushes(t.Context(), 0)
		other <- err
		got <- last
	}()
	if err := s.Push(t.Context(), taskPolicy, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err, last := <-other, <-got; err != nil || last != 1 {
		t.Errorf("woken with %d, %v", last, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.AwaitPushes(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

func TestPresence(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	at := func(minutes int) time.Time { return now.Add(time.Duration(minutes) * time.Minute) }
	for _, step := range []struct {
		name       string
		note, want Presence
	}{
		{"comes", Presence{deviceA, 3, true, at(0), "r1"}, Presence{deviceA, 3, true, at(0), "r1"}},
		{"goes", Presence{deviceA, 4, false, at(1), "r1"}, Presence{deviceA, 4, false, at(1), "r1"}},
		{"comes elsewhere", Presence{deviceA, 4, true, at(3), "r2"}, Presence{deviceA, 4, true, at(3), "r2"}},
		{"is told late to have gone", Presence{deviceA, 2, false, at(2), "r1"}, Presence{deviceA, 4, true, at(3), "r2"}},
	} {
		if err := s.NotePresence(ctx, []Presence{step.note}); err != nil {
			t.Fatal(err)
		}
		got, err := s.Presence(ctx, deviceA)
		if d := cmp.Diff(got, step.want); d != "" || err != nil {
			t.Errorf("%s: %s %v", step.name, d, err)
		}
	}
	if p, err := s.Presence(ctx, deviceB); err != nil || p != (Presence{Device: deviceB}) {
		t.Errorf("a stranger: %+v, %v", p, err)
	}
	if err := s.Push(ctx, taskPolicy, nil, 0); err != nil {
		t.Fatal(err)
	}
	c, err := s.Register(ctx, device(t, "", "k3", cmg.ProofToken, cmg.Pending), "")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := s.Presence(ctx, c.ID); err != nil || p != (Presence{Device: c.ID, Acked: 1}) {
		t.Errorf("a new device begins with what was pushed before: %+v, %v", p, err)
	}
	if err := s.NotePresence(ctx, []Presence{{Device: c.ID}}); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Presence(ctx, c.ID); err != nil || p.Acked != 1 {
		t.Errorf("then %+v, %v", p, err)
	}
	all, err := s.Presences(ctx, "", 0)
	if err != nil || len(all) != 2 || all[0].Device >= all[1].Device {
		t.Fatalf("all: %+v, %v", all, err)
	}
	for _, p := range all {
		if p.OnlineAt(at(4)) != (p.Device == deviceA) || p.OnlineAt(at(3).Add(2*OnlineWrite)) {
			t.Errorf("%+v: online %v", p, p.OnlineAt(at(4)))
		}
	}
}
