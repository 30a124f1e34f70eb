package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProfileCPU(t *testing.T) {
	dir := t.TempDir()
	in := func(dir string) func(string) (string, bool) {
		return func(name string) (string, bool) { return dir, name == "CMG_CPU_PROFILE" }
	}
	profileCPU(in(""), io.Discard)()
	profileCPU(in(dir), io.Discard)()
	files, err := filepath.Glob(filepath.Join(dir, "*.pprof"))
	if err != nil || len(files) != 1 {
		t.Fatalf("profiles: %v, %v, want one", files, err)
	}
	if b, err := os.ReadFile(files[0]); err != nil || !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		t.Errorf("the profile begins with %.4x, %v, want a gzip header", b, err)
	}
	var said strings.Builder
	profileCPU(in(filepath.Join(dir, "none")), &said)()
	if !strings.HasPrefix(said.String(), "cmg: profile: ") {
		t.Errorf("of a folder that is not there it says %q", said.String())
	}
}
