package gateway

import "time"

// readWithin gives the next frame its time. A head that has begun has the time
// of a head, however many frames it comes in. A client that sends frames which
// ask for nothing is idle all the same: that is looked at whenever the deadline
// has to be moved.
func (c *h2Conn) readWithin(d time.Duration) error {
	now := time.Now()
	if c.head.open {
		d = c.headBy.Sub(now)
	}
	if left := c.readBy.Sub(now); left < d-d/4 || left > d {
		c.readBy = now.Add(d)
		c.tls.SetReadDeadline(c.readBy)
		if err := c.unused(now, c.g.limits.idle); err != nil {
			return err
		}
	}
	if c.leaving.Load() {
		c.tls.SetReadDeadline(past)
	}
	return nil
}

// unused ends a connection on which nothing was asked for so long.
func (c *h2Conn) unused(now time.Time, limit time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) == 0 && !c.head.open && now.Sub(c.busy) >= limit {
		return h2Bad(h2NoError, "idle")
	}
	return nil
}

// silence ends a connection without requests after a while; while there are
// some the client is asked whether it is still there.
func (c *h2Conn) silence() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.payload = nil
	switch {
	case c.err != nil:
		return c.err
	case c.leftLocked() != nil:
		return errLeft
	case c.pinged:
		return h2Bad(h2NoError, "the client does not answer")
	case len(c.streams) > 0:
		c.busy, c.pinged = time.Now(), true
		c.out = append(appendFrame(c.out, 8, h2Ping, 0, 0), "cmgalive"...)
		c.flushLater()
	case time.Since(c.busy) >= c.g.limits.idle*9/10:
		return h2Bad(h2NoError, "idle")
	}
	return nil
}

// foul counts a frame that asks for nothing.
func (c *h2Conn) foul() error {
	now := time.Now()
	if now.After(c.foulEnd) {
		c.fouls, c.foulEnd = 0, now.Add(foulTime)
	}
	if c.fouls++; c.fouls > h2Fouls {
		return h2Bad(h2Calm, "too many frames that ask for nothing")
	}
	return nil
}
