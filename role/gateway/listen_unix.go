//go:build unix

package gateway

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// listen opens the clients' port. Instances on one machine may share it: the
// kernel then spreads new connections over them.
func listen(ctx context.Context, addr string, share bool) (net.Listener, error) {
	var lc net.ListenConfig
	inherited := inherit(&lc)
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			if set = inherited(int(fd)); set == nil && share {
				set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
		})
		if err != nil {
			return err
		}
		return set
	}
	return lc.Listen(ctx, "tcp", addr)
}
