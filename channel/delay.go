package channel

import "time"

// What records that were written late wait for.
const (
	untilRead  = 1 + iota // a read, for the peer may wait for them before it says more
	untilWrite            // a write: the peer does not wait for them
)

const (
	maxLate   = 16 << 10
	partTime  = 5 * time.Second // for what waits when the connection is closed
	firstLate = 1 << 10         // a ticket, or an alert behind a small answer
)

// Delay has what is written wait until somebody reads from g or closes it, so
// that records which TLS writes one by one go in one system call and one
// segment: those of a handshake, or an answer and the alert behind it.
func (g *Gather) Delay() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wait.Store(untilRead)
}

// DelayRest has what waits by now, and only that, go with the next write or
// Settle, whatever is read meanwhile: a session ticket is of no use to a peer
// before the connection has ended.
func (g *Gather) DelayRest() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wait.Store(0)
	if len(g.late) > 0 {
		g.wait.Store(untilWrite)
	}
}

// Settle writes what waits, and has nothing wait any more.
func (g *Gather) Settle() error {
	if g.wait.Load() == 0 {
		return nil
	}
	return g.settle(0)
}

// settleNow is for records behind which TLS has let the time of writes pass,
// for nothing was to follow its last alert.
func (g *Gather) settleNow(next int32) error {
	g.Conn.SetWriteDeadline(time.Now().Add(partTime))
	return g.settle(next)
}

// settle writes what waits and has what is written from now on wait for next.
func (g *Gather) settle(next int32) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	late := g.late
	g.late = nil
	g.wait.Store(next)
	if len(late) == 0 {
		return nil
	}
	_, err := g.Conn.Write(late)
	return err
}

// writeLate is Write while something is to wait. It is called with mu held.
func (g *Gather) writeLate(p []byte) (int, error) {
	if g.late == nil {
		g.late = make([]byte, 0, max(firstLate, len(p)))
	}
	g.late = append(g.late, p...)
	if g.wait.Load() == untilRead && len(g.late) <= maxLate {
		return len(p), nil
	}
	late := g.late
	g.late = nil
	if g.wait.Load() == untilWrite {
		g.wait.Store(0)
	}
	_, err := g.Conn.Write(late)
	return len(p), err
}

// Close writes what waits and closes the connection.
func (g *Gather) Close() error {
	if g.wait.Load() != 0 {
		g.settleNow(0)
	}
	return g.Conn.Close()
}
