//go:build !unix

package gateway

import (
	"context"
	"fmt"
	"net"

	"github.com/opencmg/cmg"
)

// listen opens the clients' port. This system cannot share it.
func listen(ctx context.Context, addr string, share bool) (net.Listener, error) {
	if share {
		return nil, fmt.Errorf("reuse_port: this operating system cannot share a port between processes: %w", cmg.ErrInvalid)
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}
