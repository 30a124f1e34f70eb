//go:build !windows

package content

import (
	"errors"
	"syscall"
)

// freeBytes tells how much an unprivileged process may still write to dir's
// file system.
func freeBytes(dir string) (int64, bool) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil || s.Blocks == 0 {
		return 0, false // file systems without blocks do not know
	}
	return int64(uint64(s.Bavail) * uint64(s.Bsize)), true
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
