package gateway

import (
	"bytes"
	"context"
	"errors"
	"os"
	"time"

	"github.com/opencmg/cmg/channel"
)

// errParked says that a request waits for its answer without the goroutine
// that brought it: client.stay goes on with it.
var errParked = errors.New("the request is parked")

// wait blocks until the stream has its answer. A request that waits long is
// parked: a fresh goroutine then reads the client's connection, with a small
// stack and no buffer of ours, so that a client that goes away is noticed;
// the answer ends that read.
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
			return c.leave(st)
		}
	}
	c.timer.Stop()
	return nil
}

// leave parks the request, unless memory is short.
func (c *client) leave(st *channel.Stream) error {
	if c.g.memory.level() >= memoryTight && c.x.harmless() {
		return errMemory()
	}
	c.slim()
	if err := c.wire.Settle(); err != nil {
		return err
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
	c.waits = st
	return errParked
}

// stay reads for as long as the request is parked. What follows has frames
// of its own: a stack of 4 KiB is enough until then.
func (c *client) stay(ctx context.Context) {
	err := c.rd.Wait()
	c.resume(ctx, err)
}

// resume goes on with the request, and with those behind it.
func (c *client) resume(ctx context.Context, err error) {
	st := c.waits
	c.waits = nil
	err = c.x.resume(ctx, st, c.unparked(st, err))
	c.loop(ctx, c.ended(err))
}

// resume goes on with a request that was parked on st. err is that of wait.
func (x *exchange) resume(ctx context.Context, st *channel.Stream, err error) error {
	err = x.receive(st, err)
	x.share.end(false)
	x.stream.Store(nil)
	st.Close()
	again, err := x.verdict(x.bill.point, err)
	if again {
		err = x.attempt(ctx)
	}
	return x.settle(x.leave(err))
}

// unparked says why the read of a parked request's connection ended: nil,
// because the answer is there.
func (c *client) unparked(st *channel.Stream, err error) error {
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

// slim gives up what can be made again: a request that waits is to cost
// little for as long as it does.
func (c *client) slim() {
	c.out, c.timer = nil, nil
	c.req.Fields = nil // views into a buffer that is given back; all that is sent inward is in x.head
	c.x.slim()
}

// slim gives up what the answer does not need: the next request makes it
// again.
func (x *exchange) slim() {
	x.signed, x.told, x.address, x.kept = "", nil, nil, keptProof{}
	if len(x.upgrade) == 0 { // else a tunnel's caller is proven by it again: see recheck
		x.evidence.Authorization = ""
	}
	x.head = bytes.Clone(x.head) // of just its size
	if x.first != nil {
		body := bytes.Clone(x.first)
		giveBack(x.first)
		x.first = body
	}
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
