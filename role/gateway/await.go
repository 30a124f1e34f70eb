package gateway

import (
	"errors"
	"os"
	"time"

	"github.com/opencmg/cmg/channel"
)

// A leaver notices that its client leaves while an answer of unknown length,
// such as an event stream, has nothing to say. Over HTTP/2 the
// connection's reader does: see h2Stream.drop.
type leaver interface {
	// await blocks until st has a piece or its end. Its error is that the
	// client has gone.
	await(st *channel.Stream) error
}

// await reads the client's connection after a moment in which nothing came,
// with no buffer of ours held; a piece ends that read.
func (c *client) await(st *channel.Stream) error {
	if !st.Rest() {
		return nil
	}
	if c.timer == nil {
		c.timer = time.NewTimer(c.g.limits.park)
	} else {
		c.timer.Reset(c.g.limits.park)
	}
	for !st.HasPiece() {
		select {
		case <-st.Ready():
		case <-c.timer.C:
			if c.rd.Buffered() > 0 || !c.body.Done() {
				return nil // the client talks on: it has not gone
			}
			return c.awaitParked(st)
		}
	}
	c.timer.Stop()
	return nil
}

func (c *client) awaitParked(st *channel.Stream) error {
	if !c.chunked { // else its memory is needed again at once
		c.out = small(c.out)
	}
	c.setReadBy(time.Time{})
	c.setParked(true)
	st.Notify(func() {
		c.park.Lock()
		defer c.park.Unlock()
		if c.parked && st.HasPiece() {
			c.tls.SetReadDeadline(past)
		}
	})
	c.rd.Release()
	err := c.rd.Wait()
	st.Notify(nil)
	c.setParked(false)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) && st.HasPiece() {
		return nil // the next request came before this one's end, or there is a piece
	}
	return err
}
