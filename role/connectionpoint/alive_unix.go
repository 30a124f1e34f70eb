//go:build unix

package connectionpoint

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// canLook says whether alive can tell.
const canLook = true

// alive says that an idle connection has nothing to read: neither its end
// nor, what would be as wrong, bytes nobody asked for. It does not block.
func alive(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = rc.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		quiet = err == unix.EAGAIN || err == unix.EWOULDBLOCK
		return true // never wait
	})
	return err == nil && quiet
}
