package gateway

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/opencmg/cmg/channel"
)

// wait blocks until the stream has its answer. A request that waits long is
// parked: this goroutine then reads the client's connection, with no buffer
// of ours held, so that a client that goes away is noticed; the answer ends
// that read.
func (c *client) wait(ctx context.Context, st *channel.Stream) error {
	if c.timer == nil {
		c.timer = time.NewTimer(c.g.limits.park)
	} else {
		c.timer.Reset(c.g.limits.park)
	}
	for !st.HasHead() {
		select {
		case <-st.Ready():
		case <-ctx.Done():
			return ctx.Err()
		case <-c.timer.C:
			if c.rd.Buffered() > 0 || !c.body.Done() {
				<-st.Ready() // the client talks on: it has not gone
				continue
			}
			return c.parkUntil(st)
		}
	}
	c.timer.Stop()
	return nil
}

func (c *client) parkUntil(st *channel.Stream) error {
	if c.g.memory.level() >= memoryTight && c.x.harmless() {
		return errMemory()
	}
	if cap(c.out) > 0 {
		c.out = nil
	}
	c.setReadBy(time.Time{})
	c.mayEnd = c.x.harmless()
	c.since.Store(time.Now().UnixNano())
	c.setParked(true)
	st.Notify(func() {
		c.park.Lock()
		defer c.park.Unlock()
		if c.parked {
			c.tls.SetReadDeadline(past)
		}
	})
	c.rd.Release()
	c.g.counts.parked.Add(1)
	err := c.rd.Wait()
	c.g.counts.parked.Add(-1)
	st.Notify(nil)
	c.setParked(false)
	unparked := c.since.Swap(0) == 0
	switch {
	case err == nil: // the next request, before this one's answer
		for !st.HasHead() {
			<-st.Ready()
		}
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && st.HasHead():
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && unparked:
		return errMemory()
	}
	return err
}

func (c *client) setParked(on bool) {
	c.park.Lock()
	defer c.park.Unlock()
	c.parked, c.unwanted = on, false
}

// unpark ends a request that waits, if it still does and may be sent again:
// its client is told so.
func (c *client) unpark() bool {
	c.park.Lock()
	defer c.park.Unlock()
	if !c.parked || !c.mayEnd || c.since.Swap(0) == 0 {
		return false
	}
	c.tls.SetReadDeadline(past)
	return true
}
