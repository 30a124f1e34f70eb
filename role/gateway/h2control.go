package gateway

import (
	"encoding/binary"
	"errors"
	"slices"
)

func dependsOn(p []byte) uint32 { return binary.BigEndian.Uint32(p) & h2MaxID }

func (c *h2Conn) takePriority(f *h2Frame) error {
	switch {
	case f.id == 0:
		return h2Bad(h2Protocol, "PRIORITY of no stream")
	case len(f.payload) != 5:
		return h2BadStream(f.id, h2FrameSize, "PRIORITY has 5 bytes")
	case dependsOn(f.payload) == f.id:
		return h2BadStream(f.id, h2Protocol, "a stream that waits for itself")
	}
	return c.foul()
}

func (c *h2Conn) takeReset(f *h2Frame) error {
	if len(f.payload) != 4 {
		return h2Bad(h2FrameSize, "RST_STREAM has 4 bytes")
	}
	c.mu.Lock()
	if f.id == 0 || f.id > c.lastID {
		c.mu.Unlock()
		return h2Bad(h2Protocol, "RST_STREAM of no stream")
	}
	if st := c.streams[f.id]; st != nil {
		st.drop(errGone)
	}
	c.mu.Unlock()
	return c.foul()
}

func (c *h2Conn) takeSettings(f *h2Frame) error {
	p := f.payload
	switch {
	case f.id != 0:
		return h2Bad(h2Protocol, "SETTINGS of a stream")
	case f.has(h2Ack) && len(p) > 0, len(p)%6 != 0:
		return h2Bad(h2FrameSize, "SETTINGS of another length")
	case f.has(h2Ack):
		return nil
	case len(p) > 6*h2MaxSettings: // each may move the windows of all streams
		return h2Bad(h2Calm, "more settings than anybody needs")
	}
	c.mu.Lock()
	for ; len(p) > 0; p = p[6:] {
		if err := c.set(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			c.mu.Unlock()
			return err
		}
	}
	c.settled = true
	c.out = appendFrame(c.out, 0, h2Settings, h2Ack, 0)
	c.flushLater()
	c.mu.Unlock()
	return c.foul()
}

// set takes one setting (RFC 9113, section 6.5.2). It is called with mu held.
func (c *h2Conn) set(name uint16, value uint32) error {
	switch name {
	case 1: // HEADER_TABLE_SIZE: we use none
		c.resize = true
	case 2: // ENABLE_PUSH
		if value > 1 {
			return h2Bad(h2Protocol, "ENABLE_PUSH is 0 or 1")
		}
	case 4: // INITIAL_WINDOW_SIZE
		if value > h2MaxWindow {
			return h2Bad(h2FlowControl, "INITIAL_WINDOW_SIZE is too large")
		}
		more := int64(value) - c.initial
		c.initial = int64(value)
		for _, st := range c.streams {
			if st.send += more; st.send > h2MaxWindow {
				return h2Bad(h2FlowControl, "a window is too large")
			}
			signal(st.room)
		}
	case 5: // MAX_FRAME_SIZE
		if value < h2MaxFrame || value >= 1<<24 {
			return h2Bad(h2Protocol, "MAX_FRAME_SIZE is out of bounds")
		}
	}
	return nil
}

func (c *h2Conn) takePing(f *h2Frame) error {
	switch {
	case f.id != 0:
		return h2Bad(h2Protocol, "PING of a stream")
	case len(f.payload) != 8:
		return h2Bad(h2FrameSize, "PING has 8 bytes")
	}
	c.mu.Lock()
	if f.has(h2Ack) {
		defer c.mu.Unlock()
		if c.going == h2Leaves && string(f.payload) == h2Leaving {
			c.going = h2LastOne
			c.goAway(c.lastID, h2NoError)
			c.flushLater()
			return c.leftLocked()
		}
		return nil
	}
	c.out = append(appendFrame(c.out, 8, h2Ping, h2Ack, 0), f.payload...)
	c.flushLater()
	c.mu.Unlock()
	return c.foul()
}

// errLeft ends a connection whose requests are all answered, in a drain.
var errLeft = errors.New("drained")

// leftLocked is called with mu held.
func (c *h2Conn) leftLocked() error {
	if c.going == h2LastOne && len(c.streams) == 0 {
		return errLeft
	}
	return nil
}

func (c *h2Conn) takeWindow(f *h2Frame) error {
	if len(f.payload) != 4 {
		return h2Bad(h2FrameSize, "WINDOW_UPDATE has 4 bytes")
	}
	n := int64(dependsOn(f.payload)) // a number of 31 bits as well
	c.mu.Lock()
	defer c.mu.Unlock()
	switch st := c.streams[f.id]; {
	case f.id > c.lastID:
		return h2Bad(h2Protocol, "WINDOW_UPDATE of no stream")
	case n == 0 && f.id == 0:
		return h2Bad(h2Protocol, "a WINDOW_UPDATE of nothing")
	case n == 0:
		return h2BadStream(f.id, h2Protocol, "a WINDOW_UPDATE of nothing")
	case f.id == 0:
		if c.send += n; c.send > h2MaxWindow {
			return h2Bad(h2FlowControl, "the window is too large")
		}
		for _, st := range c.streams {
			signal(st.room)
		}
	case st != nil:
		if st.send += n; st.send > h2MaxWindow {
			return h2BadStream(f.id, h2FlowControl, "the window is too large")
		}
		signal(st.room)
	}
	return nil
}

// takeData takes a piece of a request's body.
func (c *h2Conn) takeData(f *h2Frame) error {
	p, err := f.unpad()
	if err != nil {
		return err
	}
	if f.id == 0 {
		return h2Bad(h2Protocol, "DATA of no stream")
	}
	if len(p) == 0 && !f.has(h2EndStream) {
		if err := c.foul(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.id > c.lastID {
		return h2Bad(h2Protocol, "DATA of a stream that was not opened")
	}
	n := int64(len(f.payload))
	if c.recv -= n; c.recv < 0 {
		return h2Bad(h2FlowControl, "more body than the window")
	}
	st := c.streams[f.id]
	if st == nil || st.recvEnd || st.over != nil {
		c.repay(nil, n)
		if c.wasReset(f.id) {
			return nil
		}
		return h2BadStream(f.id, h2StreamClosed, "DATA of a stream that has ended")
	}
	if st.recv -= n; st.recv < 0 {
		c.repay(nil, n)
		return h2BadStream(f.id, h2FlowControl, "more body than the window")
	}
	c.repay(st, n-int64(len(p))) // padding
	st.keep(p)
	st.got += int64(len(p))
	if st.declared >= 0 && st.got > st.declared {
		return h2BadStream(f.id, h2Protocol, "a body is longer than its head says")
	}
	if f.has(h2EndStream) {
		return st.endLocked()
	}
	signal(st.wake)
	return nil
}

// endBody ends a body by trailers.
func (c *h2Conn) endBody(st *h2Stream) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return st.endLocked()
}

// repay gives credit for n bytes of a stream's body; of none: of the
// connection's only. It is called with mu held.
func (c *h2Conn) repay(st *h2Stream, n int64) {
	if c.owed += n; c.owed >= h2ConnWindow/8 {
		c.out = appendNumber(c.out, h2Window, 0, uint32(c.owed))
		c.recv += c.owed
		c.owed = 0
		c.flushLater()
	}
	if st == nil || st.recvEnd || st.over != nil {
		return
	}
	if st.owed += n; st.owed >= h2StreamWindow/8 {
		c.out = appendNumber(c.out, h2Window, st.id, uint32(st.owed))
		st.recv += st.owed
		st.owed = 0
		c.flushLater()
	}
}

// wasReset says whether a stream was ended by us not long ago: the client may
// not have known. It is called with mu held.
func (c *h2Conn) wasReset(id uint32) bool { return slices.Contains(c.resets[:], id) }

// reset tells the client that a stream has ended. It is called with mu held.
func (c *h2Conn) reset(id uint32, code h2Code) {
	c.resets[c.resetAt%len(c.resets)] = id
	c.resetAt++
	c.out = appendNumber(c.out, h2Reset, id, uint32(code))
}

// breakStream ends a stream that broke the rules.
func (c *h2Conn) breakStream(fault *h2Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset(fault.stream, fault.code)
	if st := c.streams[fault.stream]; st != nil {
		st.told = true
		st.drop(fault)
	}
	c.flushLater()
}
