package main

import "syscall"

// childAttributes keeps a terminal's Ctrl-C from a child, which the lab ends
// in order, and ends the child with the lab however that ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
