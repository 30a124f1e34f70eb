package site

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

func TestUploads(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	one := Upload{ID: "1", Device: "GUID:A", Name: "{1}", Size: 7, SHA256: cmg.Digest{1}, Received: at}
	two := Upload{ID: "2", Device: "GUID:B", Name: "report.xml", Size: 1 << 40, SHA256: cmg.Digest{2}, Received: at.Add(time.Hour)}
	again := one
	again.Name, again.Size = "other", 8 // the first word counts
	for _, u := range []Upload{one, two, again} {
		if err := s.AddUpload(ctx, u); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddUpload(ctx, Upload{ID: "3"}); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("without a device: %v", err)
	}
	lists := func() (got [4][]Upload) {
		t.Helper()
		var errs [4]error
		got[0], errs[0] = s.Uploads(ctx, "", 0)
		got[1], errs[1] = s.Uploads(ctx, "GUID:A", 0)
		got[2], errs[2] = s.Uploads(ctx, "", 1)
		got[3], errs[3] = s.UploadsBefore(ctx, two.Received, 0)
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		return got
	}
	if d := cmp.Diff([4][]Upload{{two, one}, {one}, {two}, {one}}, lists()); d != "" {
		t.Error(d)
	}
	for device, want := range map[cmg.DeviceID]int64{"GUID:A": 7, "GUID:B": 1 << 40, "GUID:C": 0} {
		if n, err := s.UploadedBytes(ctx, device); err != nil || n != want {
			t.Errorf("%s has %d bytes, %v", device, n, err)
		}
	}
	if err := errors.Join(s.RemoveUpload(ctx, "1"), s.RemoveUpload(ctx, "1")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([4][]Upload{{two}, nil, {two}, nil}, lists()); d != "" {
		t.Error(d)
	}
}
