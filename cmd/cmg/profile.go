package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
)

// profileCPU writes a profile of the whole process into the folder that
// CMG_CPU_PROFILE names, as PID.pprof, for `make pgo`. What fails is said on
// stderr: the process does its work all the same.
func profileCPU(lookup func(string) (string, bool), stderr io.Writer) (stop func()) {
	dir, _ := lookup("CMG_CPU_PROFILE")
	if dir == "" {
		return func() {}
	}
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d.pprof", os.Getpid())))
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(stderr, "cmg: profile:", err)
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		if err := f.Close(); err != nil {
			fmt.Fprintln(stderr, "cmg: profile:", err)
		}
	}
}
