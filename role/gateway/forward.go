package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// keepBody is how much of a request's body is kept for a second try.
const keepBody = 64 << 10

var pieces = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// maxTries bounds how many connections a request is tried on.
const maxTries = 8

// forward sends the request down a channel and its answer to the client. A
// request whose channel is lost is sent again elsewhere if it is certain, or
// harmless, that the inside sees it twice: see mayRepeat.
func (x *exchange) forward(ctx context.Context) error {
	if err := x.readFirst(); err != nil {
		return err
	}
	x.attempts = attempts{deadline: time.Now().Add(x.g.limits.point)}
	return x.attempt(ctx)
}

// attempts are how often a request was sent already.
type attempts struct {
	tried    []string // names of connection points
	last     error
	deadline time.Time
	repeats  int
}

// attempt sends the request until it is answered or cannot be sent again.
func (x *exchange) attempt(ctx context.Context) error {
	a := &x.attempts
	for {
		pt, s := x.site.points.pick(a.tried)
		switch {
		case a.last != nil && !lost(a.last) && (s == nil || slices.Contains(a.tried, pt.name)), len(a.tried) == maxTries:
			return x.failure(a.last) // every connection point has said no
		case s == nil:
			if x.site.points.wait(ctx, a.deadline, cap(x.head)+cap(x.first)) {
				continue
			}
			return cmg.Refuse(503, "CMGService_NoConnectionPoint", "no connection point is connected to this gateway", a.last)
		}
		st, err := s.Open(x.inwardHead(s), x.inline(), x.whole && len(x.first) <= channel.MaxInline && len(x.upgrade) == 0)
		if err == nil {
			pt.requests.Add(1)
			x.bill.point = pt
			if x.stream.Store(st); x.gone.Load() {
				x.abandon()
			}
			if x.site.points.least {
				x.share = pt.load.take()
			}
			if err = x.follow(ctx, st); err == errParked {
				return err // its share goes on: see resume
			}
			x.share.end(false)
			x.stream.Store(nil)
			st.Close()
		}
		if again, err := x.verdict(pt, err); !again {
			return err
		}
	}
}

// verdict says whether a request that was sent to pt is to be sent again. If
// not, the error is what became of it.
func (x *exchange) verdict(pt *point, err error) (again bool, _ error) {
	var se *channel.StreamError
	switch {
	case err == nil || x.begun || !errors.As(err, &se):
		return false, err
	case x.gone.Load():
		return false, errors.Join(errGone, err)
	}
	a := &x.attempts
	a.last, a.tried, a.deadline = err, append(a.tried, pt.name), time.Now().Add(x.g.limits.point)
	if !se.Untouched {
		a.repeats++
	}
	if a.repeats > 1 || !x.mayRepeat(se) {
		return false, x.failure(err)
	}
	x.g.counts.repeated.Add(1)
	x.g.log.Info("sending a request again", "request", x.id, "err", err, "untouched", se.Untouched)
	return true, nil
}

func lost(err error) bool {
	var se *channel.StreamError
	return errors.As(err, &se) && se.Code == channel.CodeLost
}

// mayRepeat says whether a request whose stream ended so, before its answer
// began, may be sent again. The connection point tells when it begins to
// hand a request on; what it told before the connection was lost may be lost
// too.
//
//	                     GET, HEAD, OPTIONS, PROPFIND   PUT, DELETE      all others
//	certainly untouched  yes                            yes              yes
//	lost, not started    yes                            yes              if the route is idempotent
//	lost, started        once                           if idempotent    if idempotent
//	target failed        no                             no               no
//
// A body of which more was read than is kept cannot be sent twice.
func (x *exchange) mayRepeat(e *channel.StreamError) bool {
	if x.streamed {
		return false
	}
	switch {
	case e.Untouched:
		return true
	case e.Code != channel.CodeLost:
		return false
	case x.route.Idempotent:
		return true
	}
	switch x.method {
	case "GET", "HEAD", "OPTIONS", "PROPFIND":
		return true
	case "PUT", "DELETE":
		return !e.Started
	}
	return false
}

// failure makes the refusal for a request that cannot be sent again.
func (x *exchange) failure(err error) error {
	var e *channel.StreamError
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case channel.CodeLost:
		if e.Untouched {
			return cmg.Refuse(503, "CMGService_NoConnectionPoint", "no channel took the request", err)
		}
		return cmg.Refuse(502, "CMGService_Channel_Lost", "the channel was lost and the request may have been handed on: it is not safe to send it again", err)
	case channel.CodeUnreachable:
		return cmg.Refuse(502, "CMGConnector_Unreachable", "the connection point cannot reach the server behind this path", err)
	case channel.CodeTimeout:
		return cmg.Refuse(504, "CMGConnector_Timeout", "the server behind this path did not answer in time", err)
	case channel.CodeRefused:
		return cmg.Refuse(503, "CMGConnector_Unavailable", "the connection point takes no more requests at the moment", err)
	}
	return cmg.Refuse(502, "CMGConnector_Failed", "the server behind this path broke off", err)
}

// readFirst reads a body of up to keepBody bytes whole, so that it can be
// sent in few frames, and again.
func (x *exchange) readFirst() error {
	x.first, x.whole = x.first[:0], true
	if x.body == nil {
		return nil
	}
	if err := x.out.proceed(); err != nil {
		return errors.Join(errGone, err)
	}
	if x.req.Length > keepBody {
		x.whole = false
		return nil
	}
	limit := min(x.route.MaxBody, keepBody)
	x.first = grown(x.first, max(int(x.req.Length), keepScratch))
	for {
		if len(x.first) == cap(x.first) {
			x.first = append(x.first, 0)[:len(x.first)]
		}
		n, err := x.body.Read(x.first[len(x.first):cap(x.first)])
		x.first = x.first[:len(x.first)+n]
		switch {
		case err == io.EOF:
			return x.checkLength(len(x.first))
		case err != nil:
			return x.bodyError(err)
		case int64(len(x.first)) == x.req.Length:
			return x.checkLength(len(x.first))
		case int64(len(x.first)) > limit: // of unknown length, and long
			x.whole = false
			return x.checkLength(len(x.first))
		}
	}
}

func (x *exchange) checkLength(n int) error {
	if int64(n) > x.route.MaxBody {
		return x.tooLong(nil)
	}
	return nil
}

// inline is the piece of body that goes with the head.
func (x *exchange) inline() []byte {
	if len(x.first) > channel.MaxInline {
		return nil
	}
	return x.first
}

// follow sends the rest of the body, waits for the answer and passes it on.
func (x *exchange) follow(ctx context.Context, st *channel.Stream) error {
	if err := x.sendBody(st); err != nil {
		return err
	}
	if err := x.out.wait(ctx, st); err != errParked {
		return x.receive(st, err)
	}
	return errParked
}

// receive passes the answer on, once it is there; err says that the client
// has not waited for it.
func (x *exchange) receive(st *channel.Stream, err error) error {
	if err != nil {
		st.Reset(channel.CodeCancelled, "the client has gone")
		if r := new(cmg.Refusal); errors.As(err, &r) {
			return err // the client is there, and is told
		}
		return errors.Join(errGone, err)
	}
	h, err := st.Head()
	if err != nil {
		return err
	}
	x.share.end(true)
	if err := x.res.ParseCompact(h); err != nil || x.res.Status < 200 && (x.res.Status != 101 || len(x.upgrade) == 0) {
		return cmg.Refuse(502, "CMGConnector_Failed", "the connection point sent an answer that is not HTTP", err)
	}
	x.res.Drop(h1.RequestID) // a server's echo
	x.res.AddKnown(h1.RequestID, x.idBytes)
	if x.res.Status == 101 {
		return x.switchOver(st)
	}
	p, end := st.First()
	return x.copyAnswer(st, p, end)
}

// errLength ends an answer whose body is not as long as its head says: the
// client would take the next answer's bytes for this one's.
var errLength = errors.New("the connection point sent a body of another length than the head says")

func (x *exchange) copyAnswer(st *channel.Stream, p []byte, end bool) error {
	length := x.res.Length
	if h1.NoBody([]byte(x.method), x.res.Status) {
		p, end, length = nil, true, 0
	}
	sent := int64(len(p))
	fits := func() bool { return length < 0 || sent == length || sent < length && !end }
	if !fits() {
		return cmg.Refuse(502, "CMGConnector_Failed", "the connection point sent an answer that is not HTTP", errLength)
	}
	x.begun = true
	if err := x.out.answer(&x.res, p, end); err != nil {
		return errors.Join(errGone, err)
	}
	var quiet leaver
	if length < 0 {
		quiet, _ = x.out.(leaver)
	}
	for !end {
		if quiet != nil {
			if err := quiet.await(st); err != nil {
				return errors.Join(errGone, err)
			}
		}
		p, err := st.Next()
		switch {
		case err == io.EOF:
			end = true
		case err != nil:
			return err
		default:
			end = st.Ended()
		}
		if sent += int64(len(p)); !fits() {
			return errLength
		}
		if x.g.budget.cuts(x.route.exempt) {
			return errBudget
		}
		if err := x.out.piece(p, end); err != nil {
			return errors.Join(errGone, err)
		}
	}
	return nil
}

// sendBody sends what did not go with the head. An inside that has answered
// already wants no more of it.
func (x *exchange) sendBody(st *channel.Stream) error {
	if x.whole && len(x.first) <= channel.MaxInline {
		return nil
	}
	total := int64(len(x.first))
	if len(x.first) > channel.MaxInline {
		if x.whole {
			return unlessStopped(st.WriteEnd(x.first))
		}
		if _, err := st.Write(x.first); err != nil {
			return unlessStopped(err)
		}
	}
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	defer x.out.watch(st)()
	for {
		x.streamed = true
		n, err := x.body.Read(*buf)
		if total += int64(n); total > x.route.MaxBody {
			st.Reset(channel.CodeCancelled, "the body is too long")
			return x.tooLong(nil)
		}
		if err != nil && err != io.EOF {
			if st.Unwanted() {
				return nil // the stream has an answer, or says why it has none
			}
			st.Reset(channel.CodeCancelled, "the client broke off")
			return x.bodyError(err)
		}
		if err == io.EOF || total == x.req.Length {
			return unlessStopped(st.WriteEnd((*buf)[:n]))
		}
		if _, werr := st.Write((*buf)[:n]); werr != nil {
			return unlessStopped(werr)
		}
	}
}

func unlessStopped(err error) error {
	if channel.Stopped(err) {
		return nil
	}
	return err
}

// bodyError tells a client that breaks off from one that is too slow or
// breaks the rules.
func (x *exchange) bodyError(err error) error {
	var bad *h1.Error
	var r *cmg.Refusal
	var timeout net.Error
	switch {
	case errors.As(err, &r):
		return err
	case errors.As(err, &bad):
		return cmg.Refuse(bad.Status, "CMGService_Bad_Request", bad.Why, nil)
	case errors.As(err, &timeout) && timeout.Timeout():
		return cmg.Refuse(408, "CMGService_Body_Timeout", "the body did not arrive in time", nil)
	}
	return errors.Join(errGone, err)
}
