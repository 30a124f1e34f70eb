package distribution

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program finds a WebDAV client that others have written.
func program(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("no %s, and CI skips nothing: .ci/needs installs it", name)
		}
		t.Skipf("no %s here: .ci/needs installs it", name)
	}
	return p
}

func run(t *testing.T, stdin string, env []string, name string, args ...string) string {
	t.Helper()
	c := exec.Command(program(t, name), args...)
	c.Env, c.Stdin = append(os.Environ(), env...), strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// sameFiles compares a folder with what the package was made of.
func sameFiles(t *testing.T, dir string) {
	t.Helper()
	for name, want := range files {
		if got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name))); err != nil || string(got) != want {
			t.Errorf("%s: %.60q, %v", name, got, err)
		}
	}
}

func TestRclone(t *testing.T) {
	s := newShop(t, nil)
	to := t.TempDir()
	conf := filepath.Join(to, "rclone.conf")
	if err := os.WriteFile(conf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"RCLONE_CONFIG=" + conf, "RCLONE_WEBDAV_URL=" + s.base, "RCLONE_WEBDAV_VENDOR=other"}
	if out := run(t, "", env, "rclone", "lsf", ":webdav:"); out != "DataLib/\nFileLib/\nLAB00001/\nLAB00002/\nPkgLib/\n" {
		t.Errorf("list:\n%s", out)
	}
	run(t, "", env, "rclone", "copy", ":webdav:LAB00001", filepath.Join(to, "copy"))
	sameFiles(t, filepath.Join(to, "copy"))
	if out := run(t, "", env, "rclone", "check", "--download", ":webdav:LAB00001", filepath.Join(to, "copy")); !strings.Contains(out, "0 differences found") {
		t.Errorf("check:\n%s", out)
	}
	if out := run(t, "", env, "rclone", "lsf", "-R", "--files-only", ":webdav:FileLib"); strings.Count(out, ".INI\n") != 6 {
		t.Errorf("FileLib:\n%s", out)
	}
}

func TestCadaver(t *testing.T) {
	s := newShop(t, nil)
	to := filepath.Join(t.TempDir(), "tool")
	out := run(t, "ls bin\ncd bin\nget tool.exe "+to+"\nput "+to+" x\nquit\n", nil, "cadaver", s.base+"/LAB00001/")
	if b, err := os.ReadFile(to); err != nil || string(b) != "a tool" {
		t.Errorf("got %q, %v\n%s", b, err, out)
	}
	if !strings.Contains(out, "Coll:   deep") || !strings.Contains(out, "405") {
		t.Errorf("cadaver:\n%s", out)
	}
}

func TestCurl(t *testing.T) {
	s := newShop(t, nil)
	to := filepath.Join(t.TempDir(), "setup.exe")
	if err := os.WriteFile(to, []byte(files["setup.exe"][:4000]), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "", nil, "curl", "-sf", "-C", "-", "-o", to, s.base+"/LAB00001/sccm?/setup.exe")
	if b, err := os.ReadFile(to); err != nil || string(b) != files["setup.exe"] {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if out := run(t, "", nil, "curl", "-sf", "-X", "PROPFIND", "-H", "Depth: 1", s.base+"/LAB00001"); strings.Count(out, "<D:response>") != 4 {
		t.Errorf("PROPFIND:\n%s", out)
	}
}
