//go:build unix

package handover

import "golang.org/x/sys/unix"

// keepFromChildren closes a descriptor in programs that are started later.
func keepFromChildren(fd int) { unix.CloseOnExec(fd) }
