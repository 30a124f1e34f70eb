package gateway

import (
	"context"
	"time"
)

// handshakeWait is how long a connection may wait for its handshake to begin.
// Whoever has waited longer is closed: the work goes to those that a client
// still waits for.
const handshakeWait = 5 * time.Second

// enterHandshake takes a place among those that make a handshake. false:
// there was none in time.
func (g *Gateway) enterHandshake(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(handshakeWait)
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	g.counts.handshakesFull.Add(1)
	return false
}
