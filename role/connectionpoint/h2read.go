package connectionpoint

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/net/http2"

	"github.com/opencmg/cmg/h1"
)

// read takes frames until the connection ends. It waits for nothing but the
// connection.
func (c *h2Conn) read() error {
	for {
		f, err := c.in.ReadFrame()
		var bad http2.StreamError
		switch {
		case errors.As(err, &bad):
			err = c.reset(bad.StreamID, bad.Code, fmt.Errorf("a broken frame: %w", err), true)
		case err == io.EOF:
			return errors.New("the server closed the connection")
		case err != nil:
			return fmt.Errorf("read: %w", err)
		default:
			err = c.takeFrame(f)
		}
		if err != nil {
			return err
		}
	}
}

// takeFrame handles one frame. An error ends the connection.
func (c *h2Conn) takeFrame(f http2.Frame) error {
	c.mu.Lock()
	c.heard, c.pinged = time.Now(), time.Time{}
	c.mu.Unlock()
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		return c.takeHead(f)
	case *http2.DataFrame:
		return c.takeData(f)
	case *http2.RSTStreamFrame:
		return c.reset(f.StreamID, f.ErrCode, fmt.Errorf("the server reset the request: %v", f.ErrCode), false)
	case *http2.GoAwayFrame:
		return c.takeGoAway(f)
	case *http2.SettingsFrame:
		if !f.IsAck() {
			c.settings(f)
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.out.WritePing(true, f.Data)
			return c.flush()
		}
	case *http2.WindowUpdateFrame:
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.StreamID == 0 { // bodies are sent at once: no stream waits for its own
			if c.window += int64(f.Increment); c.window > 1<<31-1 {
				return errors.New("a window of more than 2^31-1 bytes")
			}
		}
	case *http2.PushPromiseFrame:
		return errors.New("a push, which was forbidden")
	}
	return nil
}

// settings takes what the server says of itself.
func (c *h2Conn) settings(f *http2.SettingsFrame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
		c.limit = int(min(v, h2Streams))
	}
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
		c.each = int64(v)
	}
	if v, ok := f.Value(http2.SettingMaxFrameSize); ok {
		c.frame = int(min(v, 1<<20))
	}
	if v, ok := f.Value(http2.SettingHeaderTableSize); ok {
		c.enc.SetMaxDynamicTableSizeLimit(v)
	}
	c.out.WriteSettingsAck()
	c.flush()
}

// takeHead takes an answer's head, or its trailers, which are dropped.
func (c *h2Conn) takeHead(f *http2.MetaHeadersFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.streams[f.StreamID]
	if w == nil {
		return nil // it was taken back
	}
	status, err := strconv.Atoi(f.PseudoValue("status"))
	switch {
	case w.reply != nil && f.StreamEnded():
		w.reply.finish()
		c.take(w)
		return nil
	case w.reply != nil:
		return errors.New("a head within a body")
	case err == nil && status >= 100 && status < 200 && status != 101 && !f.StreamEnded():
		return nil // an interim answer
	}
	a := &h2Answer{wake: make(chan struct{}, 1), received: int64(f.Length)}
	if err == nil && f.Truncated {
		err = errors.New("a head of more than 64 KiB")
	}
	if err == nil {
		err = a.read(f, status)
	}
	if err != nil {
		c.out.WriteRSTStream(f.StreamID, http2.ErrCodeProtocol)
		a.fail(fmt.Errorf("read head: %w", err))
	}
	if f.StreamEnded() {
		a.finish()
	}
	if err != nil || f.StreamEnded() {
		c.take(w)
	}
	w.reply = a
	w.p.parked.Add(-1)
	c.pool.tasks.Go(func() { w.pass(c) })
	return c.flush()
}

// read makes the answer's head. Called once, before anybody else knows a.
func (a *h2Answer) read(f *http2.MetaHeadersFrame, status int) error {
	if err := a.res.Begin(status, h1.Chunked); err != nil {
		return err
	}
	for _, v := range f.RegularFields() {
		if v.Name == "content-length" {
			n, err := strconv.ParseInt(v.Value, 10, 63)
			if err != nil || n < 0 || v.Value[0] == '+' || a.res.Length != h1.Chunked && a.res.Length != n {
				return errors.New("Content-Length is not one number")
			}
			a.res.Length = n
			continue
		}
		if err := a.res.AddPeer(v.Name, v.Value); err != nil {
			return err
		}
	}
	if a.res.Length == h1.Chunked && f.StreamEnded() {
		a.res.Length = 0
	}
	return nil
}

// takeData takes a piece of an answer's body. What it takes of the
// connection's credit is given back at once: an answer that is read slowly
// holds up no other.
func (c *h2Conn) takeData(f *http2.DataFrame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owed += f.Length; c.owed >= 128<<10 {
		c.out.WriteWindowUpdate(0, c.owed)
		c.owed = 0
	}
	w := c.streams[f.StreamID]
	if w == nil {
		return c.flush()
	}
	a := w.reply
	if a == nil {
		return errors.New("a body before its head")
	}
	if !a.add(f.Data(), int(f.Length)) {
		c.take(w)
		c.out.WriteRSTStream(f.StreamID, http2.ErrCodeFlowControl)
		a.fail(errors.New("the server sends more than it may"))
		return c.flush()
	}
	if f.StreamEnded() {
		a.finish()
		c.take(w)
	}
	return c.flush()
}

// reset ends a stream that the server gave up, or that has to be (tell).
func (c *h2Conn) reset(id uint32, code http2.ErrCode, why error, tell bool) error {
	c.mu.Lock()
	w := c.streams[id]
	var err error
	if tell {
		c.out.WriteRSTStream(id, code)
		err = c.flush()
	}
	if w == nil {
		c.mu.Unlock()
		return err
	}
	c.take(w)
	a := w.reply
	if a != nil {
		a.fail(why)
	}
	c.mu.Unlock()
	if a != nil {
		return err
	}
	if code == http2.ErrCodeHTTP11Required {
		c.pool.avoid()
	}
	w.lost(why, !tell && (code == http2.ErrCodeRefusedStream || code == http2.ErrCodeHTTP11Required))
	return err
}

// takeGoAway takes no more streams, and sends those again that the server
// says it will not look at.
func (c *h2Conn) takeGoAway(f *http2.GoAwayFrame) error {
	c.mu.Lock()
	c.away = true
	var never []*wait
	for id, w := range c.streams {
		if id > f.LastStreamID {
			never = append(never, w)
		}
	}
	for _, w := range never {
		c.take(w)
		if w.reply != nil {
			w.reply.fail(errors.New("the server goes away"))
		}
	}
	empty := len(c.streams) == 0
	c.mu.Unlock()
	for _, w := range never {
		if w.reply == nil {
			w.lost(errors.New("the server goes away"), true)
		}
	}
	if empty {
		return errors.New("the server went away")
	}
	return nil
}
