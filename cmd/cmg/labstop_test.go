package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A watcher is a writer that acts once, on what is written.
type watcher struct {
	mu   sync.Mutex
	text bytes.Buffer
	on   string
	act  func()
}

func (w *watcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err := w.text.Write(b)
	if w.act != nil && strings.Contains(w.text.String(), w.on) {
		w.act()
		w.act = nil
	}
	return n, err
}

// TestLabStopped ends labs as Ctrl-C does, before and after their pass.
func TestLabStopped(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the lab's two gateways share a port")
	}
	t.Setenv(asBinary, "1")
	for _, tt := range []struct {
		name, on, says string
		args           []string
		code           int
	}{
		{"before the pass", "lab in ", "\nstopped before the pass was done; removed ", nil, exitStopped},
		{"in the pass", "content store are up", "\nstopped before the pass was done; removed ", []string{"--once"}, exitStopped},
		{"in a folder that stays", "lab in ", "\nstopped before the pass was done; the lab's folder stays: ", []string{"--dir", filepath.Join(t.TempDir(), "lab")}, exitStopped},
		{"after the pass", "up until Ctrl-C", "\nstopped; removed ", nil, exitOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			out := &watcher{on: tt.on, act: stop}
			var errs bytes.Buffer
			a := &app{stdout: out, stderr: &errs, logFormat: "auto", logLevel: "info", lookup: os.LookupEnv}
			code := execute(ctx, a, append([]string{"lab", "--port-base", strconv.Itoa(freeBase(t))}, tt.args...))
			if text := out.text.String(); code != tt.code || strings.Count(text, tt.says) != 1 {
				t.Errorf("exit code %d, want %d; want %q in:\n%s%s", code, tt.code, tt.says, text, errs.String())
			}
			if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

// TestLabWithoutServer publishes a server that is not up: that alone is wrong.
func TestLabWithoutServer(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the lab's two gateways share a port")
	}
	t.Setenv(asBinary, "1")
	t.Setenv("TMPDIR", t.TempDir())
	server := "http://" + freeAddress(t)
	var out, errs bytes.Buffer
	a := &app{stdout: &out, stderr: &errs, logFormat: "auto", logLevel: "info", lookup: os.LookupEnv}
	code := execute(t.Context(), a, []string{"lab", "--once", "--json", "--port-base", strconv.Itoa(freeBase(t)), "--map", "/hello=" + server})
	var sum labSummary
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil {
		t.Fatalf("summary: %v\n%s%s", err, out.String(), errs.String())
	}
	if code != exitFailed || len(sum.Wrong) != 1 || !strings.Contains(sum.Wrong[0], "your server at "+server+" cannot be reached") || !strings.Contains(sum.Wrong[0], "connect") {
		t.Errorf("exit code %d, wrong: %q", code, sum.Wrong)
	}
	if strings.Contains(errs.String(), "502 502") {
		t.Errorf("the status stands twice:\n%s", errs.String())
	}
}

func TestShellWord(t *testing.T) {
	for _, word := range []string{"", "/tmp/lab/env.sh", "/tmp/a lab/env.sh", "it's", "a$b", "~/x", "*", "ä"} {
		out, err := exec.Command("sh", "-c", "printf %s "+shellWord(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("%q came back as %q, %v", word, out, err)
		}
	}
	if got := shellWord("/tmp/lab-1/env.sh"); got != "/tmp/lab-1/env.sh" {
		t.Errorf("plain words get quotes: %s", got)
	}
}
