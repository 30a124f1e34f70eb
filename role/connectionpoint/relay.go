package connectionpoint

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/meter"
)

// spareWorkers is how many workers wait for requests; more come and go.
const spareWorkers = 256

// handle gives a stream to a worker. A session's reader calls it: it must
// not wait.
func (p *Point) handle(j job) {
	n := p.active.Add(1)
	if n > int64(p.cfg.MaxRequests) {
		p.active.Add(-1)
		p.refused.Add(1)
		j.st.Reset(channel.CodeRefused, "the connection point has as many requests as it takes")
		return
	}
	raise(&p.traffic.most, n)
	select {
	case p.jobs <- j:
	default:
		p.workers.Go(func() { p.work(j) })
	}
}

// work serves streams one after the other. A worker's memory and stack are
// used again.
func (p *Point) work(j job) {
	r := &relay{p: p, bill: bill{shard: meter.Pick()}}
	p.lookout.add(r)
	defer p.lookout.remove(r)
	for ok := true; ok; {
		p.requests.Add(1)
		r.begun = time.Now()
		if err := r.serve(j); !r.handed {
			p.over(r, j.st, err)
		}
		r.release()
		if p.idle.Add(1) > spareWorkers {
			p.idle.Add(-1)
			return
		}
		j, ok = <-p.jobs
		p.idle.Add(-1)
	}
}

// A relay passes one request after the other to a server and the answer
// back.
type relay struct {
	p       *Point
	req     h1.Request
	res     h1.Response
	out     []byte // text towards the server
	head    []byte // compact head towards the gateway
	method  []byte
	id      string
	length  int64
	upgrade []byte // protocols that the client offers to go on with; its memory is used again
	tries   int    // how often the request was sent over HTTP/2 already
	handed  bool   // the request goes on without this relay: see wait
	seat           // the request's at its server
	reading
	bill
}

func (r *relay) release() {
	if cap(r.out) > 64<<10 {
		r.out = nil
	}
	r.id, r.tries, r.handed = "", 0, false
}

// serve answers one stream, or hands it over. Its error is for the log: the
// gateway was told.
func (r *relay) serve(j job) error {
	st := j.st
	h, err := st.Head()
	if err != nil {
		return nil // the gateway took it back
	}
	if err := r.req.ParseCompact(h); err != nil {
		st.Reset(channel.CodeProtocol, err.Error())
		return err
	}
	r.id = string(r.req.Get(h1.RequestID))
	if r.isReport() {
		return r.takeReport(st)
	}
	t := r.p.maps.table.Load()
	var m *mapping
	if t != nil {
		m = t.match(r.req.Path)
	}
	if m == nil {
		err := fmt.Errorf("nothing is mapped at %s", r.req.Path)
		st.Reset(channel.CodeUnreachable, err.Error())
		return err
	}
	r.method = append(r.method[:0], r.req.Method...)
	r.length = r.req.Length
	r.upgrade = append(r.upgrade[:0], r.req.Upgrade...)
	r.charge(m.rows[j.place])
	r.out = h1.AppendRequest(r.out[:0], &r.req, r.targetOf(m), []byte(m.target.host))
	return r.through(st, m, h)
}

// targetOf puts the target's base in the prefix's place.
func (r *relay) targetOf(m *mapping) []byte {
	rest := r.req.Target[len(m.prefix):]
	if len(m.base) == 0 && (len(rest) == 0 || rest[0] == '?') {
		return append([]byte("/"), rest...)
	}
	return append([]byte(m.base), rest...)
}

// exchange sends the request and passes the answer on.
func (r *relay) exchange(st *channel.Stream, m *mapping, head []byte) error {
	body, whole := st.First()
	whole = whole || len(r.upgrade) > 0 // what follows is not HTTP's
	if r.length != h1.Chunked && int64(len(body)) > r.length {
		return r.broken(st, nil, errMoreBody)
	}
	if whole = whole && r.length != h1.Chunked; whole && int64(len(body)) < r.length {
		return r.broken(st, nil, errLessBody)
	}
	if whole && len(r.upgrade) == 0 {
		return r.send(st, m, head, body)
	}
	return r.overH1(st, m, body, whole)
}

// send sends a request whose body is whole.
func (r *relay) send(st *channel.Stream, m *mapping, head, body []byte) error {
	if m.waits && m.target.h2 != nil {
		var sent bool
		var err error
		if body, sent, err = r.overH2(st, m, head, body); sent {
			return err
		}
	}
	return r.overH1(st, m, body, true)
}

// overH1 sends the request over HTTP/1.1. A connection that the server had
// closed while it was idle is replaced by a new one, if the server cannot
// have acted on the request.
func (r *relay) overH1(st *channel.Stream, m *mapping, body []byte, whole bool) error {
	t := m.target
	for stale := false; ; stale = true {
		c, err := r.connect(st, t, stale)
		if err != nil {
			if st.Err() != nil {
				return nil // the gateway took it back: that is why
			}
			st.Abort(channel.CodeUnreachable, err.Error())
			return err
		}
		again, err := r.once(st, m, c, body, whole)
		if !again {
			return err
		}
	}
}

// What a gateway never sends: the server would wait for the rest, or take it
// for the next request.
var (
	errMoreBody = errors.New("more body than the head says")
	errLessBody = errors.New("less body than the head says")
)

// once tries one connection. again says that it was stale and another may be
// tried.
func (r *relay) once(st *channel.Stream, m *mapping, c *conn, body []byte, whole bool) (again bool, err error) {
	t := m.target
	st.Notify(func() { // a gateway that takes the request back ends what we wait for
		if st.Err() != nil {
			c.raw.Close()
		}
	})
	defer func() {
		if !r.handed { // else it stays until the answer is there
			st.Notify(nil)
		}
	}()
	if !safe(r.method) {
		st.Started(string(r.method) == "PUT" || string(r.method) == "DELETE") // for others it makes no difference
	}
	n := len(r.out)
	if r.length == h1.Chunked && len(body) > 0 {
		r.out = h1.AppendChunk(r.out, body)
	} else {
		r.out = append(r.out, body...)
	}
	c.within(r.p.live.Load().cfg.AnswerTime)
	_, err = c.Write(r.out)
	r.out = r.out[:n]
	if err != nil { // the server has not all of it, and cannot have acted on it
		r.count(c)
		c.raw.Close()
		if c.used && st.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return true, nil
		}
		return false, r.broken(st, c, fmt.Errorf("write to %s: %w", t.address, err))
	}
	var sender chan error
	if !whole {
		sender = make(chan error, 1)
		c.unbounded()                                                 // the time begins to run when all is sent
		go func() { sender <- r.sendBody(st, c, int64(len(body))) }() // waited for in finish
	}
	switch {
	case sender != nil || len(r.upgrade) > 0:
		err = c.rd.ResponseTo(&r.res, r.method, r.upgrade)
	case m.waits && !c.used: // it is not stale
		r.park(st, m, c)
		return false, nil
	default:
		var long bool
		if long, err = r.response(c); long {
			r.park(st, m, c)
			return false, nil
		}
	}
	if err != nil && sender == nil && c.used && safe(r.method) && st.Err() == nil && closed(c, err) {
		r.count(c)
		c.raw.Close()
		return true, nil
	}
	if err == nil {
		r.heard()
	}
	if err == nil && r.res.Status == http.StatusSwitchingProtocols {
		r.leave() // it stays for as long as the client likes
		err = r.carry(st, c)
	} else if err == nil {
		err = r.answer(st, c)
	} else {
		err = fmt.Errorf("read from %s: %w", t.address, err)
	}
	return false, r.finish(st, t, c, sender, err)
}

// sendEnd is what the last piece of a request may take to be sent when its
// answer is there already: a quick server is quicker than our own return.
const sendEnd = 100 * time.Millisecond

// finish waits for the sender, keeps the connection if it is of more use,
// and tells the gateway of a failure.
func (r *relay) finish(st *channel.Stream, t *target, c *conn, sender chan error, err error) error {
	if sender != nil {
		wait := time.Duration(0)
		if err == nil && st.Ended() {
			wait = sendEnd
		}
		select {
		case sent := <-sender:
			r.res.Close = r.res.Close || sent != nil
		case <-time.After(wait): // answered before it has all of the request
			r.res.Close = true
			if err != nil {
				st.Abort(code(err), err.Error())
			}
			c.raw.Close()
			<-sender
		}
	}
	r.count(c)
	if err != nil {
		return r.broken(st, c, err)
	}
	if r.res.Close || st.Err() != nil {
		c.raw.Close()
		return nil
	}
	if sender != nil {
		c.unbounded() // the sender has set another deadline
	}
	t.put(c)
	return nil
}

// sendBody sends the rest of a request's body as it arrives. The time for the
// answer begins to run at its end.
func (r *relay) sendBody(st *channel.Stream, c *conn, sent int64) error {
	defer func() { c.raw.SetReadDeadline(time.Now().Add(r.p.live.Load().cfg.AnswerTime)) }()
	length := r.length
	var chunk []byte
	for {
		p, err := st.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if sent += int64(len(p)); length != h1.Chunked && sent > length {
			c.raw.Close()
			return errMoreBody
		}
		if length == h1.Chunked {
			if len(p) == 0 {
				continue
			}
			chunk = h1.AppendChunk(chunk[:0], p)
			p = chunk
		}
		c.raw.SetWriteDeadline(time.Now().Add(r.p.live.Load().cfg.AnswerTime))
		if _, err := c.Write(p); err != nil {
			return err
		}
	}
	if length == h1.Chunked {
		_, err := io.WriteString(c, h1.LastChunk)
		return err
	}
	if sent < length {
		c.raw.Close()
		return errLessBody
	}
	return nil
}

// answer passes the answer's head and body on.
func (r *relay) answer(st *channel.Stream, c *conn) error {
	r.status = r.res.Status
	reason(&r.res)
	r.head = r.res.AppendCompact(r.head[:0])
	if h1.NoBody(r.method, r.res.Status) || r.res.Length == 0 {
		return st.Respond(r.head, nil, true)
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	body := c.rd.Body(r.res.Length)
	if n := r.res.Length; n > 0 && n <= channel.MaxInline {
		if _, err := io.ReadFull(&body, (*buf)[:n]); err != nil {
			return fmt.Errorf("read body: %w", err)
		}
		return st.Respond(r.head, (*buf)[:n], true)
	}
	if err := st.Respond(r.head, nil, false); err != nil {
		return err
	}
	for {
		c.within(r.p.live.Load().cfg.AnswerTime)
		n, err := body.Read(*buf)
		switch {
		case err == io.EOF || err == nil && body.Done():
			return st.WriteEnd((*buf)[:n])
		case err != nil:
			return fmt.Errorf("read body: %w", err)
		}
		if _, err := st.Write((*buf)[:n]); err != nil {
			return err
		}
	}
}

// buffers are for pieces of an answer's body.
var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}
