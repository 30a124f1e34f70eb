package connectionpoint

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// Limits of one HTTP/2 connection.
const (
	h2Streams  = 1000     // requests at once, if the server takes as many
	h2Window   = 64 << 10 // bytes of one answer that may be here unread: RFC 9113's initial value, but for one
	h2Pending  = 1 << 20  // bytes unwritten above which no request is added
	h2Flooded  = 8 << 20  // above which the connection is given up
	h2Silent   = 30 * time.Second
	h2PingTime = 15 * time.Second
	h2Write    = 10 * time.Second
	h2Tries    = 3
)

var (
	errH2Closed  = errors.New("the connection point closes")
	errH2Dead    = errors.New("the server was silent for too long")
	errH2Flooded = errors.New("the server does not read what it asks for")
)

// An h2Conn is one HTTP/2 connection (RFC 9113) as a client. A request on it
// that waits costs its entry in streams: no goroutine and no buffer. Frames
// and field compression are golang.org/x/net's; streams, credit and retries
// are kept here, because that module's own client keeps a goroutine with
// several buffers for each.
type h2Conn struct {
	pool *h2Pool
	raw  net.Conn
	conn *tls.Conn
	in   *http2.Framer // the reader's

	mu      sync.Mutex
	out     *http2.Framer // writes to pending
	pending bytes.Buffer
	spare   []byte
	batch   uint64        // writes begun
	wake    chan struct{} // for the writer; closed at the end
	block   bytes.Buffer
	enc     *hpack.Encoder
	streams map[uint32]*wait
	next    uint32 // stream id
	limit   int    // streams at once
	window  int64  // bytes of body that may be sent
	each    int64  // of these, on a new stream
	frame   int    // bytes of one frame's payload, at most
	owed    uint32 // bytes received and not yet refunded to the connection
	away    bool   // no new streams
	err     error  // why it ended
	heard   time.Time
	pinged  time.Time // zero: no PING is out
	idle    time.Time // when it fell idle
}

// newH2Conn makes the first exchange on a connection whose TLS is up.
func newH2Conn(p *h2Pool, conn *tls.Conn, raw net.Conn) (*h2Conn, error) {
	now := time.Now()
	c := &h2Conn{pool: p, conn: conn, raw: raw, wake: make(chan struct{}, 1), streams: map[uint32]*wait{},
		next: 1, limit: 100, window: 65535, each: 65535, frame: 16 << 10, heard: now, idle: now}
	c.in = http2.NewFramer(nil, bufio.NewReaderSize(conn, 16<<10))
	c.in.SetMaxReadFrameSize(16 << 10)
	c.in.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.in.MaxHeaderListSize = h1.MaxHead
	c.in.SetReuseFrames()
	c.out = http2.NewFramer(&c.pending, nil)
	c.enc = hpack.NewEncoder(&c.block)
	c.pending.WriteString(http2.ClientPreface)
	c.out.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}, http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: h1.MaxHead})
	c.out.WriteWindowUpdate(0, 1<<20) // what was received is refunded at once
	raw.SetDeadline(now.Add(upstreamDial))
	if _, err := conn.Write(c.pending.Bytes()); err != nil {
		return nil, err
	}
	c.pending.Reset()
	f, err := c.in.ReadFrame()
	if err != nil {
		return nil, err
	}
	s, ok := f.(*http2.SettingsFrame)
	if !ok || s.IsAck() {
		return nil, errors.New("the server does not begin with its settings")
	}
	raw.SetDeadline(time.Time{})
	c.settings(s)
	return c, nil
}

// run reads until the connection ends, and returns when its writer has too.
func (c *h2Conn) run() {
	var writer sync.WaitGroup
	writer.Go(c.write)
	err := c.read()
	c.close(err)
	writer.Wait()
}

// write writes what is pending until the connection ends.
func (c *h2Conn) write() {
	for range c.wake {
		for {
			c.mu.Lock()
			if c.pending.Len() == 0 {
				c.mu.Unlock()
				break
			}
			b := c.pending.Bytes()
			c.pending = *bytes.NewBuffer(c.spare[:0])
			c.spare = nil
			c.batch++
			c.mu.Unlock()
			c.raw.SetWriteDeadline(time.Now().Add(h2Write))
			_, err := c.conn.Write(b)
			c.mu.Lock()
			if cap(b) <= 64<<10 {
				c.spare = b
			}
			c.mu.Unlock()
			if err != nil {
				c.close(fmt.Errorf("write: %w", err))
				break
			}
		}
	}
}

// flush has the writer write. It is called with mu held, and gives an error
// for the connection to be closed with once mu is not held any more.
func (c *h2Conn) flush() error {
	if c.err != nil {
		return nil
	}
	select {
	case c.wake <- struct{}{}:
	default:
	}
	if c.pending.Len() > h2Flooded {
		return errH2Flooded
	}
	return nil
}

// fitsH2 says that a request's body can be sent whole at once.
func fitsH2(w *wait) bool { return len(w.body) <= channel.MaxInline }

// open sends the request if there is room for it on the connection. From
// then on w belongs to it. never says that the server takes no such request on
// any connection: no stream, or not so much body at once. It is called with
// the pool's mu held.
func (c *h2Conn) open(w *wait, q *h1.Request, path []byte) (sent, never bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int64(len(w.body))
	if c.err != nil || c.away || len(c.streams) >= c.limit || c.pending.Len() > h2Pending || n > c.window || n > c.each || c.next >= 1<<31 {
		return false, c.err == nil && !c.away && (n > c.each || c.limit == 0)
	}
	w.sid, w.batch, w.conn = c.next, c.batch, c
	c.next += 2
	c.window -= n
	c.streams[w.sid] = w
	before := c.pending.Len()
	c.head(w, q, path)
	for body := w.body; len(body) > 0; {
		piece := body[:min(len(body), c.frame)]
		body = body[len(piece):]
		c.out.WriteData(w.sid, len(body) == 0, piece)
	}
	w.bill.sent += int64(c.pending.Len() - before)
	c.flush() // it was below h2Pending
	return true, false
}

// head writes a request's head. Whatever proves somebody is not kept in the
// table of the field compression.
func (c *h2Conn) head(w *wait, q *h1.Request, path []byte) {
	c.block.Reset()
	put := func(name, value string, secret bool) {
		c.enc.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: secret}) // a bytes.Buffer takes all
	}
	put(":method", w.method, false)
	put(":scheme", "https", false)
	put(":authority", c.pool.t.host, false)
	put(":path", string(path), false)
	for i := range q.Fields {
		f := &q.Fields[i]
		name := strings.ToLower(string(f.Name))
		put(name, string(f.Value), f.ID == h1.Authorization || f.ID == h1.Caller || name == "cookie" || strings.HasPrefix(name, "client"))
	}
	if len(w.body) > 0 || !safe([]byte(w.method)) {
		put("content-length", strconv.Itoa(len(w.body)), false)
	}
	block := c.block.Bytes()
	first := block[:min(len(block), c.frame)]
	block = block[len(first):]
	c.out.WriteHeaders(http2.HeadersFrameParam{StreamID: w.sid, BlockFragment: first, EndStream: len(w.body) == 0, EndHeaders: len(block) == 0})
	for len(block) > 0 {
		piece := block[:min(len(block), c.frame)]
		block = block[len(piece):]
		c.out.WriteContinuation(w.sid, len(block) == 0, piece)
	}
}

// take takes w out of the connection, and says whether it was there: who
// takes it ends it. It is called with mu held.
func (c *h2Conn) take(w *wait) bool {
	if c.streams[w.sid] != w {
		return false
	}
	delete(c.streams, w.sid)
	if len(c.streams) == 0 {
		c.idle = time.Now()
	}
	return true
}

// cancel resets a stream that nobody waits for any more, and says whether it
// was there and its answer had not begun: the caller has to end it then.
func (c *h2Conn) cancel(w *wait, why error) (ended bool) {
	c.mu.Lock()
	there := c.take(w)
	var err error
	if there && c.err == nil {
		c.out.WriteRSTStream(w.sid, http2.ErrCodeCancel)
		err = c.flush()
	}
	a := w.reply
	if a != nil {
		a.fail(why)
	}
	c.mu.Unlock()
	if err != nil {
		c.close(err)
	}
	return there && a == nil
}

// close ends the connection. Requests that it cannot have brought to the
// server, and those that are harmless twice, are sent again.
func (c *h2Conn) close(why error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = why
	var lost []*wait
	for _, w := range c.streams {
		if w.reply != nil {
			w.reply.fail(why)
			continue
		}
		lost = append(lost, w)
	}
	clear(c.streams)
	batch := c.batch
	again := make([]bool, len(lost))
	for i, w := range lost {
		again[i] = w.batch == batch || safe([]byte(w.method))
	}
	close(c.wake)
	c.mu.Unlock()
	c.raw.Close()
	c.pool.forget(c)
	if len(lost) > 0 {
		lost[0].p.log.Warn("an HTTP/2 connection was lost", "target", c.pool.t.address, "requests", len(lost), "err", why)
	}
	slices.SortFunc(lost, func(a, b *wait) int { return int(a.sid) - int(b.sid) })
	for i, w := range lost {
		w.lost(why, again[i])
	}
}

// tend closes a connection that is idle or dead, and ends requests that wait
// for too long.
func (c *h2Conn) tend(now time.Time, answerTime time.Duration) {
	c.mu.Lock()
	var why error
	switch {
	case len(c.streams) == 0 && (c.away || now.Sub(c.idle) > keepIdle):
		why = errors.New("idle")
	case !c.pinged.IsZero() && now.Sub(c.pinged) > h2PingTime:
		why = errH2Dead
	case c.pinged.IsZero() && now.Sub(c.heard) > h2Silent:
		c.pinged = now
		c.out.WritePing(false, [8]byte{})
		why = c.flush()
	}
	var late []*wait
	for _, w := range c.streams {
		if w.reply == nil && now.Sub(w.bill.begun) > answerTime {
			late = append(late, w)
		}
	}
	c.mu.Unlock()
	if why != nil {
		c.close(why)
		return
	}
	for _, w := range late {
		w.expire(c)
	}
}
