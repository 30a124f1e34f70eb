//go:build !linux && !windows

package main

import "syscall"

// childAttributes keeps a terminal's Ctrl-C from a child, which the lab ends
// in order.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
