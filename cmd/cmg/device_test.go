package main

import (
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// Two registrations of one machine: found, shown, and the old one deleted.
func TestDeviceVerbs(t *testing.T) {
	dir := newSite(t)
	db, err := siteFolder(dir).open(t.Context(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, name := range []string{"OLD", "NEW", "OTHER"} {
		der, _, err := ccm.NewClientCertificate(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		d := cmg.Device{Name: name, Certificate: der, Approval: cmg.Pending, Proof: cmg.ProofToken}
		if name != "OTHER" {
			d.Hardware = "one machine"
		}
		if d, err = db.Register(t.Context(), d, ""); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, string(d.ID))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		args string
		code int
		want []string
		not  string
	}{
		{"device list --duplicates", exitOK, ids[:2], "OTHER"},
		{"device approve " + ids[1], exitOK, nil, ""},
		{"device list --approval pending", exitOK, []string{ids[0], ids[2]}, "NEW"},
		{"device show " + ids[1], exitOK, []string{"approved", "one machine", "same hardware", ids[0] + " OLD"}, "OTHER"},
		{"device show --json " + ids[1], exitOK, []string{`"same_hardware": [`, ids[0]}, "OTHER"},
		{"device block " + ids[0], exitOK, nil, ""},
		{"device delete " + ids[0], exitConflict, []string{"blocked"}, ""},
		{"device unblock " + ids[0], exitOK, nil, ""},
		{"device delete " + ids[0], exitOK, nil, ""},
		{"device list --duplicates", exitOK, nil, "GUID:"},
		{"device list", exitOK, ids[1:], "OLD"},
		{"audit list", exitOK, []string{"device.delete"}, ""},
	} {
		code, stdout, stderr := cmgRun(t, append(strings.Fields(step.args), "--site", dir)...)
		if code != step.code {
			t.Errorf("%s: exit code %d, want %d: %s", step.args, code, step.code, stderr)
		}
		for _, w := range step.want {
			if !strings.Contains(stdout+stderr, w) {
				t.Errorf("%s: no %q in:\n%s%s", step.args, w, stdout, stderr)
			}
		}
		if step.not != "" && strings.Contains(stdout, step.not) {
			t.Errorf("%s: %q in:\n%s", step.args, step.not, stdout)
		}
	}
}
