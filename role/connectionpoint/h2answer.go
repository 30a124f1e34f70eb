package connectionpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// overH2 leaves a request with a whole body to wait on an HTTP/2 connection.
// Where the server speaks none, sent is false, and keep takes the body's
// place: the channel's buffer was given back.
func (r *relay) overH2(st *channel.Stream, m *mapping, head, body []byte) (keep []byte, sent bool, err error) {
	if !m.target.h2.speaks() {
		return body, false, nil
	}
	w := &wait{p: r.p, st: st, m: m, bill: r.bill, seat: r.seat, id: r.id, method: string(r.method), line: logLine(r.out),
		head: bytes.Clone(head), body: bytes.Clone(body), tries: r.tries + 1}
	if err := r.req.ParseCompact(w.head); err != nil {
		return nil, true, r.broken(st, nil, err) // never: it was read before
	}
	st.Next() // the whole request was taken: this gives its buffer back
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	st.Notify(func() { // nobody waits for it any more
		if st.Err() != nil {
			cancel()
		}
	})
	if !safe(r.method) && r.tries == 0 {
		st.Started(string(r.method) == "PUT" || string(r.method) == "DELETE") // as over HTTP/1.1
	}
	r.p.parked.Add(1)
	if err = m.target.h2.send(ctx, w, &r.req, r.targetOf(m)); err == nil {
		r.handed, r.bill, r.seat = true, bill{shard: r.shard}, seat{}
		st.Notify(w.cancelled)
		return nil, true, nil
	}
	r.p.parked.Add(-1)
	st.Notify(nil)
	switch {
	case errors.Is(err, errNoH2):
		return w.body, false, nil
	case st.Err() != nil:
		return nil, true, nil // the gateway took it back: that is why
	}
	st.Abort(channel.CodeUnreachable, err.Error())
	return nil, true, err
}

// cancelled ends the wait once the gateway takes the request back. A
// session's reader calls it.
func (w *wait) cancelled() {
	if err := w.st.Err(); err != nil && w.conn.cancel(w, err) {
		w.p.parked.Add(-1)
		w.p.over(w.takeUp(), w.st, nil)
	}
}

// expire ends the wait of a request that has waited for too long.
func (w *wait) expire(c *h2Conn) {
	if c.cancel(w, os.ErrDeadlineExceeded) {
		w.failed(fmt.Errorf("read from %s: %w", w.m.target.address, os.ErrDeadlineExceeded))
	}
}

func (w *wait) failed(err error) {
	w.p.parked.Add(-1)
	r := w.takeUp()
	w.p.over(r, w.st, r.broken(w.st, nil, err))
}

// lost goes on with a request that its connection has lost before its answer
// began. again says that it may be sent again.
func (w *wait) lost(why error, again bool) {
	if !again {
		w.failed(fmt.Errorf("read from %s: %w", w.m.target.address, why))
		return
	}
	w.p.parked.Add(-1)
	w.m.target.h2.tasks.Go(func() {
		r := w.takeUp()
		err := r.resend(w, why)
		if !r.handed {
			w.p.over(r, w.st, err)
		}
	})
}

// resend sends a request again that no server has acted on, or that is
// harmless.
func (r *relay) resend(w *wait, why error) error {
	if r.tries >= h2Tries {
		w.st.Abort(channel.CodeUnreachable, why.Error())
		return fmt.Errorf("sent %d times: %w", r.tries, why)
	}
	if err := r.req.ParseCompact(w.head); err != nil {
		return r.broken(w.st, nil, err) // never: it was read before
	}
	r.length = r.req.Length
	r.out = h1.AppendRequest(r.out[:0], &r.req, r.targetOf(w.m), []byte(w.m.target.host))
	return r.send(w.st, w.m, w.head, w.body)
}

// An h2Answer is an answer that arrives. All but res is guarded by its
// connection's mu.
type h2Answer struct {
	res      h1.Response
	buf      []byte // of the body, not taken yet
	held     int    // credit of the server that buf and its padding took
	received int64
	ended    bool
	err      error
	wake     chan struct{}
}

func (a *h2Answer) ring() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// add takes a piece of body; false: it is more than the server may send.
func (a *h2Answer) add(p []byte, cost int) bool {
	if a.held += cost; a.held > h2Window {
		return false
	}
	a.received += int64(cost)
	a.buf = append(a.buf, p...)
	a.ring()
	return true
}

func (a *h2Answer) finish() {
	a.ended = true
	a.ring()
}

func (a *h2Answer) fail(err error) {
	if !a.ended && a.err == nil {
		a.err = err
	}
	a.ring()
}

// more gives the body's next piece, and whether it is the last. It waits for
// one, at most for limit, unless now is set.
func (c *h2Conn) more(w *wait, limit time.Duration, now bool) (p []byte, end bool, err error) {
	a := w.reply
	for {
		c.mu.Lock()
		p, end, err = a.buf, a.ended, a.err
		if err == nil && (len(p) > 0 || end || now) {
			a.buf = nil
			var full error
			if a.held > 0 && !end && c.err == nil {
				c.out.WriteWindowUpdate(w.sid, uint32(a.held))
				full = c.flush()
			}
			a.held = 0
			c.mu.Unlock()
			return p, end, full
		}
		c.mu.Unlock()
		if err != nil {
			return nil, false, err
		}
		timer := time.NewTimer(limit)
		select {
		case <-a.wake:
			timer.Stop()
		case <-timer.C:
			return nil, false, os.ErrDeadlineExceeded
		}
	}
}

// pass passes the answer on that has begun to arrive.
func (w *wait) pass(c *h2Conn) {
	r := w.takeUp()
	err := r.answerH2(w, c)
	if c.cancel(w, errUnwanted) { // never: its answer has begun
		err = errUnwanted
	}
	c.mu.Lock()
	r.received += w.reply.received
	c.mu.Unlock()
	if err != nil {
		err = r.broken(w.st, nil, err)
	}
	w.st.Notify(nil)
	w.p.over(r, w.st, err)
}

var (
	errUnwanted   = errors.New("nobody reads the answer any more")
	errBodyLength = errors.New("read body: it is not as long as its head says")
)

// answerH2 is relay.answer for HTTP/2.
func (r *relay) answerH2(w *wait, c *h2Conn) error {
	r.heard()
	limit := r.p.live.Load().cfg.AnswerTime
	body, end, err := c.more(w, limit, true)
	if err != nil {
		return err
	}
	r.res = w.reply.res
	r.status = r.res.Status
	none := h1.NoBody(r.method, r.status)
	if none && string(r.method) != "HEAD" {
		r.res.Length = 0
	}
	length := r.res.Length
	reason(&r.res)
	r.head = r.res.AppendCompact(r.head[:0])
	if none || length == 0 {
		return w.st.Respond(r.head, nil, true)
	}
	for !end && length > 0 && length <= channel.MaxInline && int64(len(body)) <= length {
		var p []byte
		if p, end, err = c.more(w, limit, false); err != nil {
			return fmt.Errorf("read body: %w", err)
		}
		body = append(body, p...)
	}
	total := int64(len(body))
	wrong := func() bool { return length >= 0 && (total > length || end && total < length) }
	if wrong() {
		return errBodyLength
	}
	if end && total <= channel.MaxInline {
		return w.st.Respond(r.head, body, true)
	}
	if err := w.st.Respond(r.head, nil, false); err != nil {
		return err
	}
	for !end {
		if len(body) > 0 {
			if _, err := w.st.Write(body); err != nil {
				return err
			}
		}
		if body, end, err = c.more(w, limit, false); err != nil {
			return fmt.Errorf("read body: %w", err)
		}
		if total += int64(len(body)); wrong() {
			return errBodyLength
		}
	}
	return w.st.WriteEnd(body)
}
