package main

import "syscall"

// childAttributes keeps a terminal's Ctrl-C from a child, which the lab ends
// in order.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
