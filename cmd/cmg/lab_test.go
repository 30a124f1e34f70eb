package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func TestLabPorts(t *testing.T) {
	for _, base := range []int{1024, 18000, 65436} {
		p, err := newLabPorts(base, false)
		if err != nil {
			t.Fatal(err)
		}
		all := p.all()
		slices.Sort(all)
		if len(slices.Compact(slices.Clone(all))) != len(all) || all[0] < base || all[len(all)-1] > base+99 {
			t.Errorf("ports from %d: %v are not all different and within a hundred", base, all)
		}
	}
	for _, base := range []int{0, 1023, 65437, -5} {
		if _, err := newLabPorts(base, false); exitCode(err) != exitUsage {
			t.Errorf("ports from %d: %v", base, err)
		}
	}
	p, err := newLabPorts(18000, true)
	if err != nil || p.client != 443 || p.channel != [2]int{10140, 10141} {
		t.Errorf("real ports: %+v, %v", p, err)
	}
}

func TestLabFolder(t *testing.T) {
	ports, err := newLabPorts(18000, false)
	if err != nil {
		t.Fatal(err)
	}
	open := func(dir string) error {
		_, _, err := openLabFolder(dir, ports)
		return err
	}
	write := func(file string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "deep", "lab")
	if err := open(dir); err != nil {
		t.Fatalf("a folder that is not there: %v", err)
	}
	write(filepath.Join(dir, "site", "site.db"))
	write(filepath.Join(dir, "run", "agent-1.pid"))
	write(filepath.Join(dir, "mine.txt"))
	if err := open(dir); err != nil {
		t.Fatalf("the folder of an earlier lab: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "site")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the earlier lab's site is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine.txt")); err != nil {
		t.Errorf("a file that is not the lab's is gone: %v", err)
	}
	other := t.TempDir()
	write(filepath.Join(other, "site", "precious"))
	if err := open(other); !errors.Is(err, cmg.ErrConflict) {
		t.Errorf("a folder that is no lab's: %v", err)
	}
	if _, err := os.Stat(filepath.Join(other, "site", "precious")); err != nil {
		t.Errorf("a file of a folder that was refused is gone: %v", err)
	}
	write(filepath.Join(dir, "file"))
	if err := open(filepath.Join(dir, "file")); err == nil {
		t.Error("a file was taken for a folder")
	}
}

func TestParseMaps(t *testing.T) {
	rs, err := parseMaps([]string{"/a=http://x:1/y?", "/b"})
	if err == nil {
		t.Errorf("got %v, want an error", rs)
	}
	for _, m := range [][]string{{"/CCM_Proxy_MutualAuth/72057594037927937/SMS_MP=http://x"}, {"/ccm_proxy_serverauth/72057594037927937/x=http://x"}, {"/a=http://x", "/A=http://y"}} {
		if rs, err := parseMaps(m); exitCode(err) != exitUsage {
			t.Errorf("%v: %v, %v", m, rs, err)
		}
	}
	if _, err := parseMaps([]string{"/CCM_Proxy_MutualAuth/8/x=http://x"}); err != nil {
		t.Error(err)
	}
	rs, err = parseMaps([]string{"/a/b=http://x:1/y=z"})
	if err != nil || len(rs) != 1 || rs[0].Route.Prefix != "/a/b" || rs[0].Target != "http://x:1/y=z" || !slices.Contains(rs[0].Route.Methods, "BITS_POST") {
		t.Errorf("got %+v, %v", rs, err)
	}
}

// freeBase finds a hundred ports for a lab.
func freeBase(t *testing.T) int {
	t.Helper()
	for range 50 {
		base := 20000 + 100*rand.IntN(120)
		p, err := newLabPorts(base, false)
		if err == nil && p.free() == nil {
			return base
		}
	}
	t.Fatal("no hundred ports are free")
	return 0
}

// TestLab makes one whole pass: every role a process, this binary each.
func TestLab(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the lab's two gateways share a port")
	}
	t.Setenv(asBinary, "1")
	dir := filepath.Join(t.TempDir(), "lab with 'blanks'")
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs, logFormat: "auto", logLevel: "info", lookup: os.LookupEnv}
	code := execute(t.Context(), a, []string{"lab", "--once", "--json", "--dir", dir, "--port-base", strconv.Itoa(freeBase(t))})
	var sum labSummary
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
		t.Fatalf("summary: %v\n%s%s", err, out.String(), errs.String())
	}
	if code != exitOK || !sum.OK || sum.AgentsRegistered != 3 || sum.PoliciesApplied != 3 || sum.BytesVerified != 3*24<<20 || sum.InboundConnections != 0 {
		t.Errorf("exit code %d\n%s%s", code, out.String(), errs.String())
	}
	for _, name := range labConnectionPoints {
		if sum.RequestsForwarded[name] == 0 {
			t.Errorf("%s forwarded nothing", name)
		}
	}
	wantQuietLogs(t, dir)
	wantEnvironment(t, dir)
	left, err := filepath.Glob(filepath.Join(dir, "run", "*.pid"))
	if err != nil || len(left) != 0 {
		t.Errorf("pid files of ended processes: %v %v", left, err)
	}
}

// wantQuietLogs looks through the roles' logs for what no log may hold.
func wantQuietLogs(t *testing.T, dir string) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "run", "*.log"))
	if err != nil || len(logs) != 9 {
		t.Fatalf("logs %v, %v", logs, err)
	}
	for _, file := range logs {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"DATA RACE", "panic:", "eyJ", "PRIVATE KEY", `"level":"ERROR"`} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s holds %q:\n%.4000s", file, bad, text)
			}
		}
	}
}

// wantEnvironment reads env.sh as a shell does.
func wantEnvironment(t *testing.T, dir string) {
	t.Helper()
	c := exec.Command("sh", "-c", `. "$0" && printf '%s\n' "$CMG_URL" "$CMG_RESOLVE" "$CMG_CA" "$CMG_CLIENT_CERT" "$CMG_CLIENT_KEY" "$CMG_TOKEN" "$CMG_MP_MUTUAL" "$CMG_MP_SERVER" "$CMG_PACKAGE" "$CMG_LAB" "$CMG_SITE"`, filepath.Join(dir, "env.sh"))
	out, err := c.Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 11 || slices.Contains(lines, "") {
		t.Fatalf("env.sh: %v\n%s", err, out)
	}
	for _, i := range []int{2, 3, 4, 9, 10} {
		if _, err := os.Stat(lines[i]); err != nil {
			t.Errorf("env.sh names what is not there: %v", err)
		}
	}
}
