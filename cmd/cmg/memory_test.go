package main

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
)

func TestMemoryGranted(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"version 2", map[string]string{
			"proc/self/cgroup":                                  "0::/system.slice/cmg.service\n",
			"sys/fs/cgroup/memory.max":                          "max\n",
			"sys/fs/cgroup/system.slice/memory.max":             "4096\n",
			"sys/fs/cgroup/system.slice/cmg.service/memory.max": "8192\n",
		}, 4096},
		{"version 2 in a container", map[string]string{
			"proc/self/cgroup":         "0::/docker/abc\n",
			"sys/fs/cgroup/memory.max": "268435456\n",
		}, 268435456},
		{"version 1", map[string]string{
			"proc/self/cgroup": "5:cpu:/x\n4:memory:/x\n",
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": "1000\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":   "9223372036854771712\n",
		}, 1000},
		{"version 1 without a limit", map[string]string{
			"proc/self/cgroup":                           "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		{"none", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				file := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := memoryGranted(root); got != tt.want {
				t.Errorf("memoryGranted() = %d, want %d", got, tt.want)
			}
		})
	}
}

func TestGOMEMLIMITStands(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	limitMemory("/", func(string) (string, bool) { return "1GiB", true })
	if after := debug.SetMemoryLimit(-1); after != before {
		t.Errorf("the limit went from %d to %d although GOMEMLIMIT is set", before, after)
	}
}
