package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// labMark is the file by which a lab's folder is known.
const labMark = "lab.json"

// labParts is all that a lab makes in its folder, and all that the next lab
// there removes.
var labParts = []string{"site", "config", "certs", "state", "input", "run", "env.sh", "packages", labMark}

// openLabFolder makes the lab's folder ready and gives its absolute path. An
// empty name is a new temporary folder. The folder of an earlier lab is
// cleared; any other that is not empty is refused.
func openLabFolder(dir string, ports labPorts) (abs string, temp bool, err error) {
	if dir == "" {
		abs, err = os.MkdirTemp("", "cmg-lab-")
		if err != nil {
			return "", true, fmt.Errorf("make the lab's folder: %w", err)
		}
		return abs, true, markLab(abs, ports)
	}
	if abs, err = filepath.Abs(dir); err != nil {
		return "", false, usage("--dir: %w", err)
	}
	entries, err := os.ReadDir(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = os.MkdirAll(abs, 0o700)
	case err == nil && len(entries) > 0:
		err = clearLab(abs)
	}
	if err != nil {
		return "", false, fmt.Errorf("use %s as the lab's folder: %w", abs, err)
	}
	return abs, false, markLab(abs, ports)
}

func markLab(dir string, ports labPorts) error {
	text, err := json.MarshalIndent(map[string]any{
		"made": time.Now().UTC().Truncate(time.Second), "by": cmg.BuildInfo().Version, "client_port": ports.client,
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, labMark), append(text, '\n'), 0o600)
}

// clearLab removes what an earlier lab left in its folder, and nothing else.
func clearLab(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, labMark)); err != nil {
		return fmt.Errorf("it is not empty and no lab's (it has no %s): %w", labMark, cmg.ErrConflict)
	}
	pids, err := filepath.Glob(filepath.Join(dir, "run", "*.pid"))
	if err != nil {
		return err
	}
	for _, file := range pids {
		name := strings.TrimSuffix(filepath.Base(file), ".pid")
		if pid := readPid(file); pid > 0 && runs(pid, filepath.Join(dir, "config", name+".yaml")) {
			return fmt.Errorf("a lab is running there (%s is process %d): end it, or name another folder: %w", name, pid, cmg.ErrConflict)
		}
	}
	for _, part := range labParts {
		if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
			return err
		}
	}
	return nil
}

// readPid gives the process id that a file names, 0 where it names none.
func readPid(file string) int {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// runs reports whether the process lives and has arg on its command line.
// Only Linux can tell; elsewhere no process is known to be ours.
func runs(pid int, arg string) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return false
	}
	for a := range strings.SplitSeq(string(text), "\x00") {
		if a == arg {
			return true
		}
	}
	return false
}

// writeWhole writes a file so that a reader sees the old or the new one.
func writeWhole(file, text string, mode fs.FileMode) error {
	if err := os.WriteFile(file+".new", []byte(text), mode); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
