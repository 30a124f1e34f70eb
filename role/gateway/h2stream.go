package gateway

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/meter"
)

// An h2Stream is one request and its answer. A connection uses it again.
type h2Stream struct {
	c   *h2Conn
	id  uint32
	x   exchange
	req h1.Request
	in  int64 // bytes of the request

	text   []byte // what req's slices look into
	bad    error  // why the head cannot be served
	expect bool   // the client waits for 100 Continue

	// Under the connection's mu.
	send     int64  // bytes of body that the client takes
	recv     int64  // bytes of body that may still arrive
	owed     int64  // taken, and not told the client yet
	buf      []byte // body that arrived, from off on not read yet
	off      int
	got      int64
	declared int64 // by Content-Length; -1: not
	recvEnd  bool
	over     error           // the client or the connection ended the stream
	told     bool            // it was told that the stream has ended
	watching *channel.Stream // see watch
	cut      bool            // no more of the body is wanted
	sentEnd  bool            // the answer's end is on its way
	done     bool            // see h2Conn.done

	wake chan struct{} // something arrived for Read
	room chan struct{} // there may be room to send
}

// maxFree is how many streams a connection keeps to use again.
const maxFree = 8

// newStream is called with mu held.
func (c *h2Conn) newStream(id uint32) *h2Stream {
	var st *h2Stream
	if n := len(c.free); n > 0 {
		st = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		st = &h2Stream{c: c, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
		st.x = exchange{g: c.g, req: &st.req, remote: c.remote, out: st, bill: bill{shard: meter.Pick()}, evidence: c.evidence}
	}
	st.id, st.in, st.bad, st.expect, st.text = id, 0, nil, false, st.text[:0]
	st.send, st.recv, st.owed, st.buf, st.off, st.got, st.declared = c.initial, h2StreamWindow, 0, st.buf[:0], 0, 0, -1
	st.recvEnd, st.over, st.told, st.watching, st.cut, st.sentEnd, st.done = false, nil, false, nil, false, false, false
	quiet(st.wake)
	quiet(st.room)
	st.req.Reset()
	st.x.gone.Store(false)
	return st
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func quiet(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// copy keeps s as long as the request lasts. What was copied before stays
// where it is when more room has to be made.
func (st *h2Stream) copy(s string) []byte {
	if cap(st.text)-len(st.text) < len(s) {
		st.text = make([]byte, 0, max(1<<10, len(s)))
	}
	n := len(st.text)
	st.text = append(st.text, s...)
	return st.text[n:len(st.text):len(st.text)]
}

// serve answers the request.
func (st *h2Stream) serve() {
	x := &st.x
	st.in = int64(requestText(&st.req))
	var err error
	if bad := new(h1.Error); errors.As(st.bad, &bad) {
		x.begin(methodName(st.req.Method), st.req.Path)
		err = x.refuse(badH2(string(st.req.Method), bad))
	} else {
		if a := st.req.Get(h1.Authorization); string(a) != x.evidence.Authorization {
			x.evidence.Authorization = string(a)
		}
		if x.body = nil; st.req.Length != 0 {
			x.body = st
		}
		err = x.run(context.Background()) // a client that goes ends it by abandon
	}
	if err == nil {
		st.swallow()
	}
	x.account(st.in)
	st.finish(err)
}

// swallow takes the rest of a body that nobody wanted, if it is short and
// comes soon: some clients lose an answer behind which their stream is reset,
// and what breaks the rules is still told so.
func (st *h2Stream) swallow() {
	c := st.c
	late := time.Now().Add(c.g.limits.linger)
	c.mu.Lock()
	for n := 0; !st.recvEnd && st.over == nil && c.err == nil && n <= keepUnused; {
		if left := len(st.buf) - st.off; left > 0 {
			st.buf, st.off = st.buf[:0], 0
			st.in += int64(left)
			n += left
			c.repay(st, int64(left))
			continue
		}
		c.mu.Unlock()
		ok := waitFor(st.wake, time.Until(late))
		c.mu.Lock()
		if !ok {
			break
		}
	}
	c.mu.Unlock()
}

// finish tells the client what is not said yet, and gives the stream back.
func (st *h2Stream) finish(err error) {
	c := st.c
	c.mu.Lock()
	delete(c.streams, st.id)
	if st.done {
		c.done--
	}
	switch {
	case st.told || st.over != nil || c.err != nil:
	case err != nil:
		c.reset(st.id, h2Internal)
	case !st.recvEnd: // the answer is whole, and no more of the body is wanted
		c.reset(st.id, h2NoError)
	}
	c.repay(nil, int64(len(st.buf)-st.off))
	if c.busy = time.Now(); c.leftLocked() != nil {
		c.leaving.Store(true)
		c.tls.SetReadDeadline(past)
	}
	st.x.forget()
	st.text, st.buf = small(st.text), small(st.buf)
	if len(c.free) < maxFree {
		c.free = append(c.free, st)
	}
	c.flush()
}

// drop ends the stream, which the client has left or must. It is called with
// mu held.
func (st *h2Stream) drop(err error) {
	if st.over == nil {
		st.over = err
		st.x.abandon()
		signal(st.wake)
		signal(st.room)
	}
}

// keep appends a piece of body. What was read makes room as soon as it is half
// of what is held: a client that is always ahead of who reads would have the
// whole body held otherwise. It is called with mu held.
func (st *h2Stream) keep(p []byte) {
	if cap(st.buf)-len(st.buf) < len(p) && st.off >= len(st.buf)/2 {
		st.buf, st.off = st.buf[:copy(st.buf, st.buf[st.off:])], 0
	}
	st.buf = append(st.buf, p...)
}

// endLocked ends the request's body. It is called with mu held.
func (st *h2Stream) endLocked() error {
	if st.declared >= 0 && st.got != st.declared {
		return h2BadStream(st.id, h2Protocol, "a body is shorter than its head says")
	}
	st.recvEnd = true
	st.settle()
	signal(st.wake)
	return nil
}

// settle notes that the stream is over for the client, which may open another
// in its place before finish has run. It is called with mu held.
func (st *h2Stream) settle() {
	if st.sentEnd && st.recvEnd && !st.done {
		st.done = true
		st.c.done++
	}
}

// Read reads the request's body, and bounds how long it may take.
func (st *h2Stream) Read(p []byte) (int, error) {
	c := st.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case st.off < len(st.buf):
			n := copy(p, st.buf[st.off:])
			if st.off += n; st.off == len(st.buf) {
				st.buf, st.off = st.buf[:0], 0
			}
			st.in += int64(n)
			c.repay(st, int64(n))
			return n, nil
		case st.over != nil:
			return 0, st.over
		case st.recvEnd:
			return 0, errEnd
		case st.cut:
			return 0, os.ErrDeadlineExceeded
		}
		c.mu.Unlock()
		ok := waitFor(st.wake, c.g.limits.body)
		c.mu.Lock()
		if !ok {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// waitFor waits for a signal, for so long.
func waitFor(c chan struct{}, limit time.Duration) bool {
	select {
	case <-c:
		return true
	default:
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-c:
		return true
	case <-t.C:
		return false
	}
}

func (st *h2Stream) watch(cs *channel.Stream) (unwatch func()) {
	set := func(s *channel.Stream) {
		st.c.mu.Lock()
		defer st.c.mu.Unlock()
		st.watching, st.cut = s, false
	}
	set(cs)
	cs.Notify(func() {
		st.c.mu.Lock()
		defer st.c.mu.Unlock()
		if st.watching == cs && cs.Unwanted() { // else st may answer another request by now
			st.cut = true
			signal(st.wake)
		}
	})
	return func() {
		cs.Notify(nil)
		set(nil)
	}
}

// wait blocks until the stream has its answer: one whose client goes ends.
func (st *h2Stream) wait(_ context.Context, cs *channel.Stream) error {
	for !cs.HasHead() {
		<-cs.Ready()
	}
	return nil
}
