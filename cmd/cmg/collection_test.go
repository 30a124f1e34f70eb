package main

import (
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

func TestCollectionVerbs(t *testing.T) {
	dir := newSite(t)
	db, err := siteFolder(dir).open(t.Context(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	der, _, err := ccm.NewClientCertificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	d, err := db.Register(t.Context(), cmg.Device{Name: "WEB-1", Certificate: der, Approval: cmg.Approved, Proof: cmg.ProofToken}, "")
	if err != nil {
		t.Fatal(err)
	}
	manifest := cmg.Manifest{Package: "LAB00001", Version: 1, Name: "tools", Files: []cmg.File{{Path: "a", Size: 3}}}
	if err := db.AddPackage(t.Context(), manifest, cmg.Digest{1}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	id := string(d.ID)
	for _, step := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"collection", "add", "Web servers", "--query", `name like "WEB-%"`}, exitOK, ""},
		{[]string{"collection", "add", "Bad", "--query", `name ~ "x"`}, exitUsage, "character 6"},
		{[]string{"collection", "add", "Pilot"}, exitOK, ""},
		{[]string{"collection", "add", "pilot"}, exitConflict, "of this name"},
		{[]string{"collection", "list"}, exitOK, `name like "WEB-%"`},
		{[]string{"collection", "list", "--json"}, exitOK, `"Pilot"`},
		{[]string{"collection", "show", "web SERVERS"}, exitOK, id},
		{[]string{"collection", "members", "Web servers"}, exitOK, id},
		{[]string{"collection", "members", "Web servers", "--add", id}, exitConflict, "a query"},
		{[]string{"collection", "members", "Pilot", "--add", "nonsense"}, exitUsage, "nonsense"},
		{[]string{"collection", "members", "Pilot", "--add", id}, exitOK, ""},
		{[]string{"collection", "show", "Pilot", "--json"}, exitOK, id},
		{[]string{"collection", "members", "Pilot", "--remove", id}, exitOK, ""},
		{[]string{"deploy", "LAB00001", "--to", "tools", "--collection", "None"}, exitNotFound, "None"},
		{[]string{"deploy", "LAB00001", "--to", "tools"}, exitOK, "{"},
		{[]string{"deploy", "LAB00001", "--to", "tools", "--collection", "pilot"}, exitOK, "{"},
		{[]string{"deploy", "list"}, exitOK, "all devices"},
		{[]string{"deploy", "list"}, exitOK, "Pilot"},
		{[]string{"collection", "remove", "Pilot"}, exitConflict, "policies in force"},
		{[]string{"collection", "remove", "web servers"}, exitOK, ""},
		{[]string{"collection", "show", "web servers"}, exitNotFound, "web servers"},
	} {
		code, stdout, stderr := cmgRun(t, append(step.args, "--site", dir)...)
		if code != step.code || !strings.Contains(stdout+stderr, step.want) {
			t.Errorf("%q: exit code %d, want %d; want %q in:\n%s%s", step.args, code, step.code, step.want, stdout, stderr)
		}
	}
}
