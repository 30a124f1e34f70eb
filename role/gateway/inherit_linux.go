package gateway

import (
	"net"

	"golang.org/x/sys/unix"
)

// inherit has the kernel do for each connection what would take calls of its
// own: a socket that is accepted has the keep-alive of the one that listens,
// and is not shown before its client has said something. The figures are those
// that package net sets.
func inherit(lc *net.ListenConfig) func(fd int) error {
	lc.KeepAlive = -1 // package net leaves it alone
	return func(fd int) error {
		for _, o := range [...]struct{ level, name, value int }{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
			{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
			{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
			{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(handshakeTime.Seconds())},
		} {
			if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
				return err
			}
		}
		return nil
	}
}
