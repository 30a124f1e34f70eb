package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/meter"
)

// timeLimits are those of a client and its requests.
type timeLimits struct {
	idle   time.Duration // between two requests
	head   time.Duration // from a head's first byte to its last
	body   time.Duration // without a byte of a body
	write  time.Duration // for one write
	tunnel time.Duration // without a byte either way, when the connection is no more HTTP's
	park   time.Duration // a request that waits longer holds no buffers
	linger time.Duration // after a refusal, for what the client still sends
	point  time.Duration // for a connection point that a request could be sent to
	settle time.Duration // in a drain, for who is connected to ask once more and be told
	report time.Duration // between two reports of refusals

	recheck time.Duration // between two looks at who has a tunnel
}

func usual() timeLimits {
	return timeLimits{idle: 2 * time.Minute, head: 20 * time.Second, body: time.Minute, write: time.Minute, tunnel: 10 * time.Minute,
		park: 20 * time.Millisecond, linger: 500 * time.Millisecond, point: 2 * time.Second, settle: 2 * time.Second, report: time.Second, recheck: 30 * time.Second}
}

// keepUnused is how much of a body that nobody wanted is read so that the
// connection can be kept.
const keepUnused = 64 << 10

// A client is one HTTP/1.1 connection.
type client struct {
	g    *Gateway
	tls  *tls.Conn
	wire *channel.Gather
	in   meteredSource // of what rd reads
	paid int64         // of in, by requests that are over
	rd   *h1.Reader
	x    exchange
	req  h1.Request
	body h1.Body
	cut  bool   // the body could not be read to its end
	out  []byte // of the answer's head; its memory is used again

	framing h1.Framing
	chunked bool
	last    bool // the answer is whole, and nothing follows it
	timer   *time.Timer
	readBy  time.Time // the deadline of reads, as set last; zero: not known
	writeBy time.Time // of writes

	conns *sync.WaitGroup // of the goroutines that serve clients
	waits *channel.Stream // of the parked request; nil: none is

	idle   atomic.Bool
	ending atomic.Bool
	handed bool // the connection went to a channel

	// A stream that has something to say ends a read of the connection, if
	// one is waited for: never one of a later request.
	park     sync.Mutex
	parked   bool         // a read may be ended
	unwanted bool         // of a body: it was
	mayEnd   bool         // the parked request may be sent again
	since    atomic.Int64 // when the request was parked, Unix nanoseconds; 0: it is not, or it was ended
}

var past = time.Unix(1, 0)

func newClient(g *Gateway, t *tls.Conn, wire *channel.Gather, state *tls.ConnectionState, conns *sync.WaitGroup) *client {
	c := &client{g: g, tls: t, wire: wire, conns: conns, in: meteredSource{src: t}}
	c.rd = h1.NewReader(&c.in)
	c.rd.Slow = func() { c.setReadBy(time.Now().Add(g.limits.head)) }
	host, _, _ := net.SplitHostPort(t.RemoteAddr().String())
	c.x = exchange{g: g, req: &c.req, remote: host, out: c, bill: bill{shard: meter.Pick()}, evidence: auth.Evidence{Certificates: state.PeerCertificates}}
	return c
}

// serve answers requests until the connection ends.
func (c *client) serve(ctx context.Context) {
	if !c.g.clients.add(c) {
		c.close()
		return
	}
	c.loop(ctx, true)
}

// loop answers requests until the connection ends, or a request is parked
// and goes on without this goroutine.
func (c *client) loop(ctx context.Context, again bool) {
	for again {
		again = c.next(ctx)
	}
	if c.waits != nil {
		c.conns.Go(func() { c.stay(ctx) })
		return
	}
	c.g.accounts.none.tally(c.x.bill.shard, noPoint, 0, 0).Add(0, c.in.n-c.paid, 0) // what became no request
	c.g.clients.remove(c)
	c.close()
}

// end closes the connection whatever it is doing.
func (c *client) end() {
	c.x.abandon()
	c.wire.Conn.(*slotConn).abort()
}

// endIfIdle ends a connection that waits for its next request; one that is
// busy ends after its answer.
func (c *client) endIfIdle() {
	c.ending.Store(true)
	if c.idle.Load() {
		c.tls.SetReadDeadline(past)
	}
}

// next answers one request, and says whether the connection can be used
// again.
func (c *client) next(ctx context.Context) bool {
	c.rd.Release()
	if c.rd.Buffered() == 0 {
		c.x.forget()
		c.out = small(c.out)
		c.readWithin(c.g.limits.idle)
		c.idle.Store(true)
		if c.ending.Load() {
			return false
		}
		err := c.rd.Wait()
		c.idle.Store(false)
		if err != nil {
			return false
		}
	} else { // it came early: the deadline is what the last request left
		c.setReadBy(time.Now().Add(c.g.limits.head))
	}
	if err := c.rd.Request(&c.req); err != nil {
		c.refuseHead(err)
		return false
	}
	c.framing = h1.Framing{HTTP10: c.req.HTTP10, Close: c.req.Close}
	if c.req.WebSocket && isChannelPath(c.req.Path) {
		c.becomeChannel()
		return false
	}
	c.framing.Method = append(c.framing.Method[:0], c.req.Method...)
	c.body, c.cut = c.rd.Body(c.req.Length), false
	x := &c.x
	if a := c.req.Get(h1.Authorization); string(a) != x.evidence.Authorization {
		x.evidence.Authorization = string(a)
	}
	x.body = nil
	if c.req.Length != 0 {
		x.body = clientBody{c}
	}
	return c.ended(x.run(ctx))
}

// ended is what follows a request, and says whether the connection can be
// used again. Nothing follows one that is parked.
func (c *client) ended(err error) (again bool) {
	if err == errParked {
		return false
	}
	again = err == nil && c.finish()
	c.x.account(c.taken())
	if err != nil {
		c.end()
	}
	return again
}

// readWithin gives reads a deadline between d and a quarter more from now. To
// set one costs more than to see that the last one still serves.
func (c *client) readWithin(d time.Duration) {
	now := time.Now()
	if left := c.readBy.Sub(now); left < d || left > d+d/4 {
		c.setReadBy(now.Add(d + d/4))
	}
}

func (c *client) setReadBy(t time.Time) {
	c.readBy = t
	c.tls.SetReadDeadline(t)
}

// finish reads what is left of a body that nobody wanted. Where that is much
// or unknown the connection ends, after a moment in which the client can
// read the answer before it meets a reset.
func (c *client) finish() bool {
	if c.body.Done() {
		return !c.framing.Close
	}
	if !c.framing.Close && !c.unread() {
		if _, err := io.Copy(io.Discard, clientBody{c}); err == nil {
			return true
		}
		return false
	}
	c.linger()
	return false
}

func (c *client) linger() { linger(c.tls, &c.in, c.g.limits.linger) }

// linger gives a client a moment to read what was written last, before what
// it still sends meets a reset. in is where what it sends is read.
func linger(t *tls.Conn, in io.Reader, d time.Duration) {
	t.CloseWrite()
	t.SetReadDeadline(time.Now().Add(d))
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	for {
		if _, err := in.Read(*buf); err != nil {
			return
		}
	}
}

// refuseHead answers a head that cannot be read, if there is anybody to
// answer.
func (c *client) refuseHead(err error) {
	var bad *h1.Error
	switch {
	case errors.As(err, &bad):
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.ending.Load():
		bad = &h1.Error{Status: 408, Why: "the head did not arrive in time"}
	default:
		return
	}
	c.req.Reset()
	c.framing = h1.Framing{Close: true}
	c.x.begin("", nil)
	if c.x.refuse(badHead(bad)) == nil {
		c.linger()
	}
	c.x.account(c.taken())
}

// badHead makes the refusal of a head that cannot be read, of HTTP/1.1 or of
// HTTP/2.
func badHead(bad *h1.Error) *cmg.Refusal {
	code := "CMGService_Bad_Request"
	switch bad.Status {
	case 408:
		code = "CMGService_Head_Timeout"
	case 414:
		code = "CMGService_Target_Too_Long"
	case 417:
		code = "CMGService_Expectation_Failed"
	case 431:
		code = "CMGService_Head_Too_Large"
	case 501:
		code = "CMGService_Method_Not_Served"
	case 505:
		code = "CMGService_Version_Not_Served"
	}
	return cmg.Refuse(bad.Status, code, bad.Why, nil)
}

// clientBody reads the request's body, and bounds how long it may take.
type clientBody struct{ c *client }

func (b clientBody) Read(p []byte) (int, error) {
	b.c.setReadBy(time.Now().Add(b.c.g.limits.body))
	b.c.park.Lock()
	stop := b.c.unwanted
	b.c.park.Unlock()
	if stop {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := b.c.body.Read(p)
	for err == nil && n < len(p) && !b.c.body.Done() && b.c.wire.HasRecord() { // few large pieces cost less
		var more int
		more, err = b.c.body.Read(p[n:])
		n += more
	}
	b.c.cut = b.c.cut || err != nil && err != io.EOF
	return n, err
}

// unread says that a body is there whose end is too far away, or cannot be
// found any more: the connection ends instead.
func (c *client) unread() bool {
	return !c.body.Done() && (c.cut || c.req.Length < 0 || c.req.Length > keepUnused || c.req.Expect)
}

func (c *client) watch(st *channel.Stream) (unwatch func()) {
	c.setParked(true)
	narrow := c.wire.Widen()
	st.Notify(func() {
		c.park.Lock()
		defer c.park.Unlock()
		if c.parked && st.Unwanted() {
			c.unwanted = true
			c.tls.SetReadDeadline(past)
		}
	})
	return func() {
		st.Notify(nil)
		c.setParked(false)
		narrow()
		c.readBy = time.Time{} // the stream may have changed it
	}
}

func (c *client) proceed() error {
	if !c.req.Expect || c.rd.Buffered() > 0 {
		return nil
	}
	c.req.Expect = false
	return c.write([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
}

func (c *client) answer(r *h1.Response, first []byte, end bool) error {
	switch { // whatever ends the connection behind this answer: say so
	case c.unread():
		c.framing.Close = true
	case len(c.req.Upgrade) > 0 && c.rd.Buffered() > 0: // perhaps of a protocol that was not taken
		c.framing.Close = true
	case r.Length < 0 && !end && c.framing.HTTP10:
		c.framing.Close = true
	case c.ending.Load() || c.g.draining.Load() || c.g.memory.level() >= memoryTight:
		c.framing.Close = true
	}
	c.last = end && c.framing.Close
	if r.Length < 0 && end {
		r.Length = int64(len(first))
	}
	c.out, c.chunked = h1.AppendResponse(grown(c.out, len(first)+1<<10), r, c.framing)
	if c.chunked {
		return c.piece(first, end)
	}
	c.out = append(c.out, first...)
	return c.flush()
}

func (c *client) piece(p []byte, end bool) error {
	if !c.chunked && len(c.out) == 0 && len(p) > 0 {
		return c.write(p)
	}
	switch {
	case c.chunked && len(p) > 0:
		c.out = h1.AppendChunk(c.out, p)
	default:
		c.out = append(c.out, p...)
	}
	if c.chunked && end {
		c.out = append(c.out, h1.LastChunk...)
	}
	return c.flush()
}

func (c *client) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if c.last && len(c.out) <= oneRecord {
		c.wire.Delay() // for the alert behind it
	}
	err := c.write(c.out)
	if !c.chunked {
		c.out = small(c.out)
	}
	c.out = c.out[:0]
	return err
}

func (c *client) write(b []byte) error {
	c.x.give(len(b))
	limit, now := c.g.limits.write, time.Now()
	if c.writeBy.Sub(now) < limit {
		c.writeBy = now.Add(limit + limit/4)
		c.tls.SetWriteDeadline(c.writeBy)
	}
	return c.wire.Flush(c.tls, b)
}
