//go:build unix

package main

import (
	"os"
	"syscall"
)

// The signals of a life.
var (
	reloadSignal os.Signal = syscall.SIGHUP
	lifeSignals            = []os.Signal{syscall.SIGHUP, syscall.SIGUSR2}
)
