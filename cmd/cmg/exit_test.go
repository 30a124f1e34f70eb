package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("x"), exitFailed},
		{usage("bad %w", fs.ErrNotExist), exitUsage},
		{problems{{text: "x"}}, exitUsage},
		{fmt.Errorf("x: %w", cmg.ErrInvalid), exitUsage},
		{fmt.Errorf("x: %w", cmg.ErrUnavailable), exitUnavailable},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, exitUnavailable},
		{&net.OpError{Op: "listen", Err: errors.New("in use")}, exitFailed},
		{context.DeadlineExceeded, exitUnavailable},
		{cmg.Refuse(http.StatusForbidden, "X", "y", nil), exitRefused},
		{cmg.Refuse(http.StatusUnauthorized, "X", "y", nil), exitRefused},
		{fmt.Errorf("x: %w", cmg.ErrNotFound), exitNotFound},
		{&os.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, exitNotFound},
		{fmt.Errorf("x: %w", cmg.ErrConflict), exitConflict},
		{&saidError{usage("x")}, exitUsage},
		{fmt.Errorf("stopped: %w", context.Canceled), exitStopped},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("exitCode(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

// cmgRun runs a command line in this process.
func cmgRun(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs, lookup: func(string) (string, bool) { return "", false }}
	code = execute(t.Context(), a, args)
	return code, out.String(), errs.String()
}

func TestCommandLine(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good.yaml")
	if err := os.WriteFile(good, []byte("agent:\n  url: https://x\n  lissten: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args string
		code int
		want string // on stderr or stdout
	}{
		{"version", exitOK, "cmg " + cmg.Version},
		{"--version", exitOK, "cmg " + cmg.Version},
		{"version --json", exitOK, `"go": "go1.`},
		{"versoin", exitUsage, `unknown command "versoin": did you mean "version"?`},
		{"content ad x", exitUsage, `did you mean "add"?`},
		{"version --jsn", exitUsage, "unknown flag: --jsn"},
		{"deploy", exitUsage, "PACKAGE is missing"},
		{"version x", exitUsage, `unexpected argument "x"`},
		{"device list --site /nonexistent", exitNotFound, "cmg site init makes one"},
		{"gateway --log-format xml", exitUsage, `--log-format "xml" is not auto, text or json`},
		{"gateway --config " + good, exitUsage, `it has no section "gateway"`},
		{"config check " + good, exitUsage, good + `:3:3: unknown key "lissten" in agent`},
		{"config check /nonexistent", exitUsage, "/nonexistent"},
		{"config example", exitOK, "connection_point:"},
		{"gateway --help", exitOK, "key_file: content.key"},
		{"connection-point --help", exitOK, "--identity-roots"},
		{"site init --dir x --code LAB --gateway a/b", exitUsage, `gateway "a/b" is not HOST or HOST:PORT`},
		{"status 127.0.0.1:1", exitUnavailable, "ask 127.0.0.1:1"},
		{"lab --port-base 80", exitUsage, "--port-base 80"},
		{"completion bash", exitOK, "bash completion"},
		{"", exitOK, "See it work on this machine"},
	} {
		t.Run(tt.args, func(t *testing.T) {
			code, out, errs := cmgRun(t, strings.Fields(tt.args)...)
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.Contains(out+errs, tt.want) {
				t.Errorf("got:\n%s%s\nwant: %s", out, errs, tt.want)
			}
		})
	}
}
