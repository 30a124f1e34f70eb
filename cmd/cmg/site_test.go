package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// freeAddress gives an address of this machine that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// newSite makes a site by command and gives its folder.
func newSite(t *testing.T, args ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "site")
	line := append([]string{"site", "init", "--dir", dir, "--code", "LAB", "--management-point", "mp.test"}, args...)
	if code, _, errs := cmgRun(t, line...); code != exitOK {
		t.Fatalf("site init: exit code %d: %s", code, errs)
	}
	return dir
}

func TestSiteInit(t *testing.T) {
	dir := newSite(t, "--gateway", "gw.test:8443", "--listen", "127.0.0.1:18443")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		switch ext := filepath.Ext(path); {
		case d.IsDir() && i.Mode().Perm() != 0o700:
			t.Errorf("folder %s has mode %o", path, i.Mode().Perm())
		case !d.IsDir() && ext != ".crt" && i.Mode().Perm() != 0o600:
			t.Errorf("%s has mode %o", path, i.Mode().Perm())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if code, out, errs := cmgRun(t, "config", "check", filepath.Join(dir, "cmg.yaml")); code != exitOK {
		t.Errorf("config check of what site init wrote: exit code %d\n%s%s", code, out, errs)
	}
	s := siteFolder(dir)
	for name, want := range map[string]cmg.RoleKind{"management-point-1": cmg.RoleManagementPoint, "connection-point-1": cmg.RoleConnectionPoint} {
		id, err := auth.LoadIdentity(s.identity(name))
		if err != nil {
			t.Error(err)
		} else if id.Name().Role != want || id.Name().Site != "LAB" {
			t.Errorf("%s is %s", name, id.Name())
		}
	}
	before, err := os.ReadFile(s.database())
	if err != nil {
		t.Fatal(err)
	}
	code, _, errs := cmgRun(t, "site", "init", "--dir", dir, "--code", "LAB")
	if code != exitConflict || !strings.Contains(errs, "nothing was overwritten") {
		t.Errorf("site init over a site: exit code %d: %s", code, errs)
	}
	if after, err := os.ReadFile(s.database()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("site init over a site changed its database (%v)", err)
	}
	if code, _, _ := cmgRun(t, "site", "init", "--dir", filepath.Join(t.TempDir(), "x"), "--code", "lab"); code != exitUsage {
		t.Errorf("site init with a bad code: exit code %d", code)
	}
	for _, name := range []string{"", "https://mp.test", "mp test", "mp.test:8443", "a/../b", "*.test"} {
		if code, _, errs := cmgRun(t, "site", "init", "--dir", filepath.Join(t.TempDir(), "x"), "--code", "LAB", "--management-point", name); code != exitUsage || !strings.Contains(errs, "--management-point") {
			t.Errorf("site init with the management point %q: exit code %d: %s", name, code, errs)
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".site-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestAdministratorsVerbs(t *testing.T) {
	dir := newSite(t)
	input := filepath.Join(t.TempDir(), "Tools")
	if err := os.Mkdir(input, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(input, "a.txt"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"content add " + input, exitOK, "LAB00001\n"},
		{"content add " + input + " --package LAB00001", exitOK, "LAB00001\n"},
		{"content list", exitOK, "LAB00001  2        Tools  1      5 B"},
		{"content add " + input + " --package LAB00009", exitNotFound, "LAB00009"},
		{"content add /nonexistent", exitNotFound, "/nonexistent"},
		{"deploy LAB00001 --to tools", exitOK, "{"},
		{"deploy LAB00001", exitUsage, "--to is missing"},
		{"deploy LAB00002 --to tools", exitNotFound, "LAB00002"},
		{"deploy x --to tools", exitUsage, `package id "x"`},
		{"deploy LAB00001 --to /etc", exitUsage, "--to: "},
		{"deploy LAB00001 --to a/nul", exitUsage, "device's name on Windows"},
		{"deploy LAB00001 --to .cmg-partial", exitUsage, "begin with .cmg"},
		{"deploy list", exitOK, "LAB00001  2        tools"},
		{"deploy LAB00001 --version 1 --to Tools", exitOK, "LAB00001 version 2 in tools"},
		{"deploy list --json", exitOK, `"folder": "Tools"`},
		{"content add " + input + " --name Other", exitOK, "LAB00003\n"},
		{"deploy LAB00003 --to tools", exitConflict, "LAB00001 version 1 is deployed there"},
		{"deploy LAB00003 --to tools --replace", exitOK, "LAB00001 version 1 in Tools"},
		{"deploy LAB00003 --to other", exitOK, "{"},
		{"deploy remove nonsense", exitUsage, "not a GUID"},
		{"deploy remove {3D4D1F6C-7B7B-4B0E-8F0E-2B8C3F6B1A01}", exitNotFound, "3D4D1F6C"},
		{"token new --note helpdesk --max-uses 2", exitOK, "ey"},
		{"token new --max-uses 2", exitOK, "registers 2 devices, until "},
		{"token new --max-uses 1", exitOK, "registers one device, until "},
		{"token new", exitOK, "registers any number of devices"},
		{"token new --lifetime 10081m", exitUsage, "10080m"},
		{"token list", exitOK, "helpdesk"},
		{"token list --kind nonsense", exitUsage, "nonsense"},
		{"token block nonsense", exitNotFound, "nonsense"},
		{"token session GUID:00000000-0000-0000-0000-000000000000", exitNotFound, "GUID:0000"},
		{"route add /files http://files.inside", exitOK, ""},
		{"route add /files http://other.inside", exitConflict, "leads to http://files.inside already"},
		{"route add /files http://files.inside --replace", exitOK, ""},
		{"route add /CCM_Proxy_MutualAuth/72057594037927937/SMS_MP http://x --replace", exitConflict, "--force"},
		{"route remove /CCM_Proxy_ServerAuth/72057594037927937/CCM_STS", exitConflict, "--force"},
		{"route remove /CCM_Proxy_ServerAuth/72057594037927937/CCM_STS --force", exitOK, ""},
		{"route list --json", exitOK, `"target": "http://files.inside"`},
		{"content list --json", exitOK, `"added": "`},
		{"token list --json", exitOK, `"max_uses": 2`},
		{"route add files http://files.inside", exitUsage, "the prefix has to begin with /"},
		{"route add /files2 http://files.inside --proof nothing", exitUsage, `--proof "nothing"`},
		{"route list", exitOK, "/files "},
		{"route list --json", exitOK, `"BITS_POST"`},
		{"upload list", exitOK, "SHA-256"},
		{"upload list --device x", exitUsage, "--device"},
		{"route remove /files", exitOK, ""},
		{"route remove /files", exitNotFound, "/files"},
		{"gateways add gw.test", exitOK, ""},
		{"gateways list", exitOK, "gw.test  443"},
		{"device list", exitOK, "DEVICE"},
		{"site issue gateway --name gateway-1 --host gw.test --out " + out, exitOK, "gateway-1-front.key"},
		{"site issue gateway --name gateway-1 --host gw.test --out " + out, exitConflict, "nothing was overwritten"},
		{"site issue gateway --name gateway-2", exitUsage, "--host is missing"},
		{"site issue gatway --name gateway-2", exitUsage, `did you mean "gateway"?`},
		{"site issue client --name ../../laptop", exitUsage, "--name"},
		{"site issue client --name .hidden", exitUsage, "--name"},
		{"site issue connection-point --name a/b", exitUsage, "--name"},
		{"site issue client --name laptop --device x", exitUsage, "--device"},
		{"site issue gateway --name gateway-3 --host https://gw.test", exitUsage, "--host"},
		{"site issue gateway --name gateway-3 --host gw.test:443", exitUsage, "--host"},
		{"site issue content-store --name store-1 --host *.store.test,192.0.2.1,::1", exitOK, "store-1.crt"},
		{"site issue client --name laptop", exitOK, "laptop.crt"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := cmgRun(t, append(strings.Fields(tt.args), "--site", dir)...)
			if code != tt.code || !strings.Contains(stdout+stderr, tt.want) {
				t.Errorf("exit code %d, want %d; want %q in:\n%s%s", code, tt.code, tt.want, stdout, stderr)
			}
		})
	}
	if _, err := auth.LoadIdentity(auth.IdentityFiles{Certificate: filepath.Join(out, "gateway-1.crt"), Key: filepath.Join(out, "gateway-1.key"), Roots: filepath.Join(out, "roots.crt")}); err != nil {
		t.Error(err)
	}
	if _, err := auth.GatewayFront(filepath.Join(out, "gateway-1-front.crt"), filepath.Join(out, "gateway-1-front.key")); err != nil {
		t.Error(err)
	}
}

func TestDeployListRemove(t *testing.T) {
	dir := newSite(t)
	run := func(args ...string) (stdout string) {
		t.Helper()
		code, stdout, stderr := cmgRun(t, append(args, "--site", dir)...)
		if code != exitOK {
			t.Fatalf("%v: exit code %d: %s", args, code, stderr)
		}
		return stdout
	}
	input := t.TempDir()
	if err := os.WriteFile(filepath.Join(input, "a.txt"), []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("content", "add", input)
	run("deploy", "LAB00001", "--to", "one")
	two := strings.TrimSpace(run("deploy", "LAB00001", "--to", "two"))
	again := strings.TrimSpace(run("deploy", "LAB00001", "--to", "one"))
	listed := func() (ids []string) {
		t.Helper()
		var all []deployment
		if err := json.Unmarshal([]byte(run("deploy", "list", "--json")), &all); err != nil {
			t.Fatal(err)
		}
		for _, d := range all {
			ids = append(ids, d.Policy)
		}
		return ids
	}
	if got := listed(); !slices.Equal(got, []string{two, again}) {
		t.Errorf("in force are %v, want %v", got, []string{two, again})
	}
	run("deploy", "remove", strings.ToLower(strings.Trim(two, "{}")))
	if got := listed(); !slices.Equal(got, []string{again}) {
		t.Errorf("in force are %v, want %s", got, again)
	}
}

// TestSiteRun runs the inside in one process, with no gateway there.
func TestSiteRun(t *testing.T) {
	listen, status := freeAddress(t), freeAddress(t)
	dir := newSite(t, "--gateway", "127.0.0.1", "--listen", listen)
	env := map[string]string{"CMG_MANAGEMENT_POINT_STATUS": status, "CMG_CONNECTION_POINT_GATEWAYS": freeAddress(t)}
	ctx, stop := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	ended := make(chan int)
	go func() {
		a := &app{stdout: &out, stderr: &errs, lookup: func(k string) (string, bool) { v, ok := env[k]; return v, ok }}
		ended <- execute(ctx, a, []string{"site", "run", "--config", filepath.Join(dir, "cmg.yaml")})
	}()
	wait, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// The connection point has fetched the map: both halves run.
	err := poll(wait, func() error {
		var s struct {
			Connections struct {
				ConnectionPoint int `json:"connection_point"`
			} `json:"connections"`
		}
		if err := getStatus(wait, status, &s); err != nil {
			return err
		}
		if s.Connections.ConnectionPoint == 0 {
			return errors.New("no connection point has connected")
		}
		return nil
	})
	stop()
	if code := <-ended; code != exitOK || err != nil {
		t.Errorf("exit code %d, %v\n%s", code, err, errs.String())
	}
	for line := range strings.Lines(errs.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not a line of JSON although stderr is no terminal: %s", line)
		}
	}
}

// TestInnerLast: what others rest on ends last, and either ends both.
func TestInnerLast(t *testing.T) {
	var order []string
	outer := func(ctx context.Context) error { <-ctx.Done(); order = append(order, "outer"); return nil }
	inner := func(ctx context.Context) error { <-ctx.Done(); order = append(order, "inner"); return nil }
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := innerLast(ctx, outer, inner); err != nil || strings.Join(order, " ") != "outer inner" {
		t.Errorf("ended in order %v, %v", order, err)
	}
	broken := errors.New("broken")
	if err := innerLast(t.Context(), outer, func(context.Context) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	if err := innerLast(t.Context(), func(context.Context) error { return broken }, inner); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}
