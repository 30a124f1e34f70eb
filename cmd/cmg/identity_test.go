package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

// A token's text is shown once and lies nowhere: not in the database, not
// beside it.
func TestTokenIsStoredNowhere(t *testing.T) {
	dir := newSite(t)
	code, out, errs := cmgRun(t, "token", "new", "--site", dir, "--note", "helpdesk", "--from", "192.0.2.0/24,2001:db8::/32", "--max-uses", "3")
	token := strings.TrimSpace(out)
	if code != exitOK || strings.Count(token, ".") != 2 {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	parts := strings.Split(token, ".")
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for _, part := range []string{token, parts[1], parts[2]} {
			if bytes.Contains(b, []byte(part)) {
				t.Errorf("%s holds the token", path)
			}
		}
		return err
	})
	if err != nil || files < 10 {
		t.Fatalf("%d files, %v", files, err)
	}
	_, out, _ = cmgRun(t, "token", "list", "--site", dir, "--json")
	var list []site.Token
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		t.Fatalf("list %s: %v", out, err)
	}
	show := func(want string) {
		t.Helper()
		if code, out, errs := cmgRun(t, "token", "show", list[0].ID, "--site", dir); code != exitOK || !strings.Contains(out, want) {
			t.Errorf("show, want %s: exit code %d: %s%s", want, code, out, errs)
		}
	}
	show(`"state": "valid"`)
	show(`"192.0.2.0/24"`)
	cmgRun(t, "token", "block", list[0].ID, "--site", dir)
	show(`"state": "blocked"`)
	cmgRun(t, "token", "unblock", list[0].ID, "--site", dir)
	show(`"state": "valid"`)
	if code, _, _ := cmgRun(t, "token", "new", "--from", "192.0.2.1", "--site", dir); code != exitUsage {
		t.Errorf("--from without a length: exit code %d", code)
	}
}

func TestRollKeysByCommand(t *testing.T) {
	dir := newSite(t)
	keys := func() (published int, ring *auth.Keyring) {
		t.Helper()
		ring, err := auth.LoadKeyring(siteFolder(dir).tokenKeys())
		if err != nil {
			t.Fatal(err)
		}
		db, err := siteFolder(dir).open(t.Context(), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		p, err := db.PublicationState(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(p.Keys), ring
	}
	_, before := keys()
	if code, out, errs := cmgRun(t, "token", "roll-keys", "--after", "1m", "--site", dir); code != exitOK || !strings.Contains(out, "2 keys verify") {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	n, ring := keys()
	now := time.Now()
	if n != 2 || ring.SignerID(now) != before.SignerID(now) || ring.SignerID(now.Add(2*time.Minute)) == before.SignerID(now) {
		t.Errorf("%d keys are published; %s signs now, %s soon", n, ring.SignerID(now), ring.SignerID(now.Add(2*time.Minute)))
	}
	if code, _, _ := cmgRun(t, "token", "roll-keys", "--after", "25h", "--site", dir); code != exitUsage {
		t.Errorf("--after 25h: exit code %d", code)
	}
}

func TestBlockingVerbs(t *testing.T) {
	dir := newSite(t)
	const device = "GUID:00000000-0000-0000-0000-000000000000"
	const tenant = "6a5c7a92-5a3c-4a57-9f0e-2f3f3f1f0b11"
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"device block " + device, exitNotFound, "GUID:0000"},
		{"device block nonsense", exitUsage, "nonsense"},
		{"device unblock " + device, exitNotFound, "GUID:0000"},
		{"device approve " + device, exitNotFound, "GUID:0000"},
		{"device show " + device, exitNotFound, "GUID:0000"},
		{"device delete " + device, exitNotFound, "GUID:0000"},
		{"device delete nonsense", exitUsage, "nonsense"},
		{"device list --approval maybe", exitUsage, `"maybe"`},
		{"device list --approval pending --duplicates", exitOK, "DEVICE"},
		{"certificate block 00:1F:0A --reason lost", exitOK, ""},
		{"certificate block 1f0a", exitOK, ""},
		{"certificate block CN=x", exitUsage, "CN=x"},
		{"tenant block " + tenant, exitOK, ""},
		{"tenant block contoso.com", exitUsage, "contoso.com"},
		{"blocks", exitOK, "1f0a"},
		{"blocks", exitOK, "lost"},
		{"blocks --json", exitOK, tenant},
		{"certificate unblock 1f0a", exitOK, ""},
		{"certificate unblock 1f0a", exitNotFound, "1f0a"},
		{"tenant unblock " + tenant, exitOK, ""},
		{"explain CMGService_Not_Published", exitOK, "cmg route add"},
		{"explain nobody-knows --wait 1ms", exitNotFound, "nobody-knows"},
		{"explain nobody-knows --wait 1ms --ask 127.0.0.1:1", exitNotFound, "127.0.0.1:1"},
		{"audit list", exitOK, "certificate.block"},
		{"audit list --json", exitOK, "cmg certificate block"}, // who did it
		{"audit verify", exitOK, "compared with 1 signed heads"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := cmgRun(t, append(strings.Fields(tt.args), "--site", dir)...)
			if code != tt.code || !strings.Contains(stdout+stderr, tt.want) {
				t.Errorf("exit code %d, want %d; want %q in:\n%s%s", code, tt.code, tt.want, stdout, stderr)
			}
		})
	}
}

// The end of the audit log cannot be taken back with the database: the signed
// head beside it, or a copy of it elsewhere, tells.
func TestAuditVerify(t *testing.T) {
	dir := newSite(t)
	s := siteFolder(dir)
	run := func(args ...string) (int, string) {
		t.Helper()
		code, out, errs := cmgRun(t, append(args, "--site", dir)...)
		return code, out + errs
	}
	if code, out := run("gateways", "add", "one.test"); code != exitOK {
		t.Fatal(out)
	}
	older, err := os.ReadFile(s.database())
	if err != nil {
		t.Fatal(err)
	}
	if code, out := run("gateways", "add", "two.test"); code != exitOK {
		t.Fatal(out)
	}
	copied := filepath.Join(t.TempDir(), "audit.head")
	head, err := os.ReadFile(s.auditHead())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, head, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := run("audit", "verify", "--head", copied); code != exitOK || !strings.Contains(out, "2 signed heads") {
		t.Errorf("whole: exit code %d: %s", code, out)
	}
	// An older database is put in its place.
	if err := os.WriteFile(s.database(), older, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"-wal", "-shm"} {
		os.Remove(s.database() + side)
	}
	if code, out := run("audit", "verify"); code != exitFailed || !strings.Contains(out, "ends at entry") {
		t.Errorf("an older database: exit code %d: %s", code, out)
	}
	os.Remove(s.auditHead())
	if code, out := run("audit", "verify"); code != exitOK {
		t.Errorf("without any head it looks whole: exit code %d: %s", code, out)
	}
	if code, out := run("audit", "verify", "--head", copied); code != exitFailed {
		t.Errorf("with the copy: exit code %d: %s", code, out)
	}
	if err := os.WriteFile(copied, []byte("x.y.z"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := run("audit", "verify", "--head", copied); code != exitUsage {
		t.Errorf("a head that is none: exit code %d: %s", code, out)
	}
}

func TestClockIsMovedForTests(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	if err := os.WriteFile(file, []byte("48h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]time.Duration{"": 0, "24h1m": 24*time.Hour + time.Minute, "-1h": -time.Hour, "nonsense": 0, file: 48 * time.Hour} {
		a := &app{lookup: func(name string) (string, bool) { return text, name == clockVariable }}
		if got := time.Until(a.now()); (got - want).Abs() > time.Minute {
			t.Errorf("%q: %v ahead, want %v", text, got, want)
		}
		if (a.clock == nil) != (want == 0) {
			t.Errorf("%q: a clock of its own: %v", text, a.clock != nil)
		}
	}
	a := &app{lookup: func(string) (string, bool) { return file, true }}
	a.now()
	if err := os.WriteFile(file, []byte("72h"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.clock.looked.Store(0) // as if a while had passed
	if got := time.Until(a.now()); (got - 72*time.Hour).Abs() > time.Minute {
		t.Errorf("after the file changed: %v ahead", got)
	}
}
