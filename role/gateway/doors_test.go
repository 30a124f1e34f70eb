package gateway

import (
	"net"
	"strings"
	"testing"
)

// A port that is taken is an error, and leaves no listener behind.
func TestOpenTakenPort(t *testing.T) {
	t.Parallel()
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	c := getSite(t).config(t)
	c.Listen = ln.Addr().String()
	g := must[*Gateway](t)(New(c))
	if err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listen for clients") {
		t.Errorf("got %v", err)
	}
}
