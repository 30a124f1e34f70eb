package connectionpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg/channel"
)

// A wait is a request that waits for its server without a worker: with a
// small goroutine that reads one byte of an HTTP/1.1 connection, or with
// nothing but its entry in an HTTP/2 connection.
type wait struct {
	p      *Point
	st     *channel.Stream
	m      *mapping
	bill   bill
	seat   seat // at the server; of whoever takes w up
	id     string
	method string
	line   string // the request's beginning, as the log reads it

	// HTTP/2 only: what it takes to send the request again.
	head  []byte // compact
	body  []byte
	tries int
	conn  *h2Conn
	sid   uint32
	batch uint64    // of the connection's writes that holds it
	reply *h2Answer // once an answer has begun; guarded by the connection's mu
}

// handOver makes the wait of a request that this relay's worker leaves.
func (r *relay) handOver(st *channel.Stream, m *mapping) *wait {
	r.handed = true
	w := &wait{p: r.p, st: st, m: m, bill: r.bill, seat: r.seat, id: r.id, method: string(r.method), line: logLine(r.out)}
	r.bill, r.seat = bill{shard: r.shard}, seat{}
	return w
}

// logLine keeps of a request's text what requestLine reads from it.
func logLine(text []byte) string {
	method, path, trace := requestLine(text)
	if trace != "" {
		trace = "traceparent: " + trace + "\r\n"
	}
	return method + " " + path + " HTTP/1.1\r\n" + trace + "\r\n"
}

// takeUp makes a relay that goes on with w.
func (w *wait) takeUp() *relay {
	return &relay{p: w.p, bill: w.bill, seat: w.seat, id: w.id, method: []byte(w.method), out: []byte(w.line), tries: w.tries}
}

// over ends a request: its accounts, its place at the server and its stream.
func (p *Point) over(r *relay, st *channel.Stream, err error) {
	st.Close()
	r.leave()
	r.account(err)
	if err != nil {
		p.failed.Add(1)
	}
	p.active.Add(-1)
}

// park leaves a request that waits on an HTTP/1.1 connection to a goroutine
// of its own, whose stack is small, and gives the request's buffers back.
func (r *relay) park(st *channel.Stream, m *mapping, c *conn) {
	c.rd.Release()
	st.Next() // the whole request was taken: this gives its buffer back
	w := r.handOver(st, m)
	w.p.parked.Add(1)
	w.p.workers.Go(func() { w.await(c) })
}

// await holds no buffer while it reads: its frame stays small, all else is
// done beyond it.
func (w *wait) await(c *conn) {
	err := c.rd.Wait()
	w.p.parked.Add(-1)
	w.goOn(c, err)
}

// goOn passes the answer on that has begun to arrive.
func (w *wait) goOn(c *conn, err error) {
	r := w.takeUp()
	t := w.m.target
	if err == nil {
		err = c.rd.Response(&r.res, r.method)
	}
	if err == nil {
		r.heard()
		c.within(w.p.live.Load().cfg.AnswerTime)
		err = r.answer(w.st, c)
	} else {
		err = fmt.Errorf("read from %s: %w", t.address, err)
	}
	err = r.finish(w.st, t, c, nil, err)
	w.st.Notify(nil)
	w.p.over(r, w.st, err)
}

// parkAfter is how long a worker waits for an answer before the request is
// left to wait without it.
const parkAfter = 100 * time.Millisecond

// A lookout ends reads that wait for longer than parkAfter, so that their
// workers learn it. To look at all of them a few times a second costs less
// than a timer for each.
type lookout struct {
	mu     sync.Mutex
	relays map[*relay]struct{}
}

func (l *lookout) add(r *relay) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.relays == nil {
		l.relays = map[*relay]struct{}{}
	}
	l.relays[r] = struct{}{}
}

func (l *lookout) remove(r *relay) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.relays, r)
}

// run looks until ctx ends.
func (l *lookout) run(ctx context.Context) {
	tick := time.NewTicker(parkAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			l.mu.Lock()
			for r := range l.relays {
				r.reading.wake(now)
			}
			l.mu.Unlock()
		}
	}
}

// A reading is a relay's read of an answer's head.
type reading struct {
	since atomic.Int64 // when the request began, Unix nanoseconds; 0: nobody reads, or it was ended
	on    *conn
	mu    sync.Mutex // held while the read is ended
}

func (g *reading) begin(c *conn, at time.Time) {
	g.on = c
	g.since.Store(at.UnixNano())
}

// end says whether the read was ended because it took long. Nobody touches
// the connection any more then.
func (g *reading) end() (long bool) {
	if g.since.Swap(0) != 0 {
		return false
	}
	g.mu.Lock() // whoever ended it is done with it
	defer g.mu.Unlock()
	return true
}

func (g *reading) wake(now time.Time) {
	at := g.since.Load()
	if at == 0 || now.UnixNano()-at < int64(parkAfter) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.since.CompareAndSwap(at, 0) {
		g.on.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// response reads the answer's head. long says that the request waits for
// longer than a worker should.
func (r *relay) response(c *conn) (long bool, err error) {
	r.reading.begin(c, r.begun)
	err = c.rd.Response(&r.res, r.method)
	if !r.reading.end() {
		return false, err
	}
	c.by = time.Time{} // the lookout has set another deadline
	c.within(r.p.live.Load().cfg.AnswerTime)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, err
	}
	if c.rd.Buffered() == 0 {
		return true, nil
	}
	return false, c.rd.Response(&r.res, r.method) // it has begun to arrive
}
