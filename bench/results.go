//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// keepTable writes the tables of file into folder/DATE.md, or where there is
// one already into DATE-2.md and so on: what was measured is not overwritten.
func (r *runner) keepTable(folder, base, file string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("keep table: %w", err)
	}
	now := time.Now().UTC()
	name := now.Format(time.DateOnly)
	var f *os.File
	var err error
	for i := 1; ; i++ {
		path := filepath.Join(folder, name+".md")
		if i > 1 {
			path = filepath.Join(folder, fmt.Sprintf("%s-%d.md", name, i))
		}
		if f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644); !errors.Is(err, os.ErrExist) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("keep table: %w", err)
	}
	r.conditions(f, now)
	if err := errors.Join(reportFiles(f, base, false, file), f.Close()); err != nil {
		return fmt.Errorf("keep table: %w", err)
	}
	fmt.Println("kept in", f.Name())
	return nil
}

// conditions says on what was measured.
func (r *runner) conditions(w io.Writer, at time.Time) {
	say := func(name string, arg ...string) string {
		out, _ := exec.Command(name, arg...).CombinedOutput() // not there: nothing to say
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return first
	}
	model := "unknown"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for l := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
			}
		}
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	fmt.Fprintf(w, "# %s\n\n%d × %s, Linux %s, %s. Product %s. %s; %s.\n\n", at.Format("2006-01-02 15:04 UTC"),
		runtime.NumCPU(), model, strings.TrimSpace(string(release)), runtime.Version(),
		say(r.vars["CMG"], "version")+", the checkout at "+say("git", "describe", "--always", "--dirty"),
		say(r.vars["NGINX"], "-v"), say("h2load", "--version"))
}
