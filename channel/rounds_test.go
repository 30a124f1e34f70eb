package channel

import (
	"net"
	"testing"
)

// A busyConn has another sender add a frame during each write.
type busyConn struct {
	net.Conn
	w            *writer
	writes, left int
}

func (c *busyConn) Write(p []byte) (int, error) {
	c.writes++
	if c.left--; c.left >= 0 {
		c.w.later(framePing, 0)
	}
	return len(p), nil
}

// TestRounds has others send without a pause: whoever sends a frame writes
// those of others a few times only, and goes on with its own work.
func TestRounds(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	c := &busyConn{Conn: a, left: 100}
	c.w = newWriter(c, &new(Session).open)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.frame(framePing, 0, 0)
	c.w.writing = true
	for total := 0; ; {
		c.writes = 0
		more := c.w.flush()
		if c.writes > maxRounds {
			t.Errorf("wrote %d times for others, want at most %d", c.writes, maxRounds)
		}
		if total += c.writes; !more {
			if total != 101 || c.w.writing {
				t.Errorf("%d writes of 101, writing %v", total, c.w.writing)
			}
			return
		}
	}
}
