package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory makes the collector keep below nine tenths of what the control
// group grants, so that a container's limit is met by collecting and not by
// the kernel. GOMEMLIMIT, where set, stands. root is "/" outside tests.
func limitMemory(root string, lookup func(string) (string, bool)) (limit int64) {
	if s, ok := lookup("GOMEMLIMIT"); ok && s != "" {
		return 0
	}
	granted := memoryGranted(root)
	if granted == 0 {
		return 0
	}
	limit = granted / 10 * 9
	debug.SetMemoryLimit(limit)
	return limit
}

// memoryGranted reads the least memory limit of this process's control group
// and those above it, in bytes; 0 where there is none.
func memoryGranted(root string) int64 {
	least := int64(math.MaxInt64)
	groups, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	for line := range strings.Lines(string(groups)) {
		// hierarchy:controllers:path; version 2 is "0::/path"
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		switch {
		case parts[1] == "memory":
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		case parts[1] != "":
			continue
		}
		// Inside a container the path is the host's: its own group is then
		// mounted at the top.
		for dir := filepath.Join("/", parts[2]); ; dir = filepath.Dir(dir) {
			text, err := os.ReadFile(filepath.Join(root, mount, dir, file))
			if n, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && bad == nil && n > 0 {
				least = min(least, n)
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	if least >= 1<<60 { // version 1 writes a huge number for none
		return 0
	}
	return least
}
