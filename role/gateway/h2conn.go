package gateway

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// What a client may do. A stream's window is held in memory by whoever does
// not read it, a connection's bounds all of them.
const (
	h2Streams      = 250
	h2StreamWindow = 1 << 20
	h2ConnWindow   = 4 << 20
	h2MaxSettings  = 64   // in one frame
	h2Fouls        = 2000 // frames in foulTime that have us work and ask for nothing
	foulTime       = 10 * time.Second
	pingAfter      = 30 * time.Second // of silence while requests are under way
	h2ReadBuffer   = 4 << 10
)

// An h2Conn is one HTTP/2 connection. One goroutine at a time reads it: while
// there is one request only, that which answers it, so that nobody has to be
// woken. Whoever is about to wait for long hands the reading over.
type h2Conn struct {
	f        *h2Front
	g        *Gateway
	tls      *tls.Conn
	wire     *channel.Gather
	br       *bufio.Reader
	remote   string
	evidence auth.Evidence

	// Reader only.
	payload []byte
	dec     *hpack.Decoder
	head    h2Head
	readBy  time.Time
	headBy  time.Time // when an open head has to be whole
	pinged  bool      // nothing came since
	settled bool      // the client's first settings came
	fouls   int
	foulEnd time.Time
	resets  [16]uint32 // streams that were reset by us last
	resetAt int

	patience *time.Timer // after it a request does without the reading

	mu      sync.Mutex
	room    sync.Cond // of mu: out was taken, or err is set
	inline  *h2Stream // whose goroutine would read on; nil: another one reads
	streams map[uint32]*h2Stream
	done    int // of streams: both ends are over, and finish is still to come
	free    []*h2Stream
	lastID  uint32
	out     []byte // frames to be written
	spare   []byte
	writing bool
	writeBy time.Time
	err     error       // the connection is over
	busy    time.Time   // when a request was seen last
	send    int64       // bytes of bodies that the client takes
	initial int64       // the same of a new stream
	frame   int         // largest that the client takes
	resize  bool        // the next head tells that no table is used
	recv    int64       // bytes of bodies that may still arrive
	owed    int64       // taken, and not told the client yet
	going   int         // how far a drain is
	leaving atomic.Bool // the reader is to look whether anything is left to do
	date    httpDate
}

// The steps of a drain.
const (
	h2Stays   = iota
	h2Leaves  // the client was told, and that streams under way still count
	h2LastOne // no new stream is taken
)

func newH2Conn(f *h2Front, t *tls.Conn, wire *channel.Gather, state *tls.ConnectionState) *h2Conn {
	c := &h2Conn{f: f, g: f.g, tls: t, wire: wire, br: bufio.NewReaderSize(t, h2ReadBuffer), evidence: auth.Evidence{Certificates: state.PeerCertificates},
		streams: map[uint32]*h2Stream{}, send: h2FirstWindow, initial: h2FirstWindow, frame: h2MaxFrame, recv: h2ConnWindow}
	c.remote, _, _ = net.SplitHostPort(t.RemoteAddr().String())
	c.room.L = &c.mu
	c.dec = hpack.NewDecoder(4<<10, c.head.add)
	c.dec.SetMaxStringLength(maxBlock) // beyond h1.MaxHead add refuses, with a reason
	c.patience = time.AfterFunc(time.Hour, c.handOver)
	c.patience.Stop()
	return c
}

// begin greets the client and reads.
func (c *h2Conn) begin() {
	c.mu.Lock()
	for _, s := range [][2]uint32{{3, h2Streams}, {4, h2StreamWindow}, {6, 2 * h1.MaxHead}} {
		if len(c.out) == 0 {
			c.out = appendFrame(c.out, 3*6, h2Settings, 0, 0)
		}
		c.out = binary.BigEndian.AppendUint16(c.out, uint16(s[0]))
		c.out = binary.BigEndian.AppendUint32(c.out, s[1])
	}
	c.out = appendNumber(c.out, h2Window, 0, h2ConnWindow-h2FirstWindow)
	c.flush()
	c.busy = time.Now()
	c.tls.SetReadDeadline(c.busy.Add(c.g.limits.head))
	b := make([]byte, len(h2Preface))
	if _, err := io.ReadFull(c.br, b); err != nil || string(b) != h2Preface {
		c.end(h2Bad(h2Protocol, "not the beginning of HTTP/2"))
		return
	}
	c.read()
}

// read takes frames until the connection ends, or another goroutine reads.
func (c *h2Conn) read() {
	for {
		st, err := c.next()
		if fault := new(h2Fault); errors.As(err, &fault) && fault.stream != 0 {
			c.breakStream(fault)
			err = c.foul()
		}
		if err != nil {
			c.end(err)
			return
		}
		if st != nil && !c.start(st) {
			return
		}
	}
}

// start has a request answered, and says whether the caller reads on.
func (c *h2Conn) start(st *h2Stream) bool {
	if c.br.Buffered() > 0 || !st.recvEnd || !c.alone() {
		c.f.running.Go(st.serve)
		return true
	}
	c.mu.Lock()
	c.inline = st
	c.mu.Unlock()
	c.patience.Reset(c.g.limits.park)
	st.serve()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inline != st {
		return false
	}
	c.inline = nil
	c.patience.Stop()
	return true
}

func (c *h2Conn) alone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams) == 1
}

// handOver has a new goroutine read, if the one that did answers a request.
func (c *h2Conn) handOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inline != nil {
		c.inline = nil
		c.f.running.Go(c.read)
	}
}

// next reads one frame and does what it asks for. A request to be answered is
// what it gives.
func (c *h2Conn) next() (*h2Stream, error) {
	f, err := c.readFrame()
	if err != nil || f == nil {
		return nil, err
	}
	if c.head.open && (f.kind != h2Continuation || f.id != c.head.id) || !c.head.open && f.kind == h2Continuation {
		return nil, h2Bad(h2Protocol, "a head that is not whole")
	}
	if !c.settled && f.kind != h2Settings {
		return nil, h2Bad(h2Protocol, "no settings at first")
	}
	switch f.kind {
	case h2Headers, h2Continuation:
		return c.takeHead(f)
	case h2Data:
		return nil, c.takeData(f)
	case h2Priority:
		return nil, c.takePriority(f)
	case h2Reset:
		return nil, c.takeReset(f)
	case h2Settings:
		return nil, c.takeSettings(f)
	case h2Ping:
		return nil, c.takePing(f)
	case h2Window:
		return nil, c.takeWindow(f)
	case h2GoAway:
		if f.id != 0 {
			return nil, h2Bad(h2Protocol, "GOAWAY on a stream")
		}
	case h2Push:
		return nil, h2Bad(h2Protocol, "a client pushes nothing")
	}
	return nil, nil // kinds that nobody knows are skipped
}

// readFrame waits for a frame. nil: nothing came, and the connection stays.
func (c *h2Conn) readFrame() (*h2Frame, error) {
	if c.br.Buffered() < h2FrameHeader {
		if err := c.readWithin(min(pingAfter, c.g.limits.idle)); err != nil {
			return nil, err
		}
	}
	b, err := c.br.Peek(h2FrameHeader)
	if errors.Is(err, os.ErrDeadlineExceeded) && len(b) == 0 && !c.head.open {
		return nil, c.silence()
	}
	if err != nil {
		return nil, err
	}
	c.pinged = false
	f := &c.head.frame
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	f.kind, f.flags, f.id = b[3], b[4], binary.BigEndian.Uint32(b[5:])&h2MaxID
	if n > h2MaxFrame {
		return nil, h2Bad(h2FrameSize, "a frame is too large")
	}
	c.br.Discard(h2FrameHeader) // cannot fail: just peeked
	if n <= h2ReadBuffer-h2FrameHeader {
		if f.payload, err = c.br.Peek(n); err == nil {
			c.br.Discard(n) // the view stays good until the next read
		}
		return f, err
	}
	if cap(c.payload) < n {
		c.payload = make([]byte, n)
	}
	f.payload = c.payload[:n]
	_, err = io.ReadFull(c.br, f.payload)
	return f, err
}

// drain asks the client to open no more streams: at first those count that it
// has opened meanwhile, and once it has answered, no more.
func (c *h2Conn) drain() {
	c.mu.Lock()
	c.leave()
	c.flush()
}

// leave is called with mu held.
func (c *h2Conn) leave() {
	if c.going == h2Stays && c.err == nil {
		c.going = h2Leaves
		c.goAway(h2MaxID, h2NoError)
		c.out = append(appendFrame(c.out, 8, h2Ping, 0, 0), h2Leaving...)
	}
}

const h2Leaving = "cmgleave"

// goAway is called with mu held.
func (c *h2Conn) goAway(last uint32, code h2Code) {
	c.out = binary.BigEndian.AppendUint32(appendFrame(c.out, 8, h2GoAway, 0, 0), last)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
}

// abort ends the connection at once.
func (c *h2Conn) abort() {
	c.fail(errGone)
	c.wire.Conn.(*slotConn).abort()
}

// end tells the client why and closes the connection. Only the reader calls
// it: the last thing it does.
func (c *h2Conn) end(err error) {
	var fault *h2Fault
	if errors.As(err, &fault) {
		c.mu.Lock()
		c.goAway(c.lastID, fault.code)
		c.flush()
		c.mu.Lock()
		for c.writing {
			c.room.Wait()
		}
		c.mu.Unlock()
		c.g.log.Debug("http/2 connection ended", "from", c.remote, "why", fault.why)
	}
	c.fail(err)
	if fault != nil && fault.code != h2NoError {
		linger(c.tls, c.tls, c.g.limits.linger)
	}
	c.patience.Stop()
	c.f.forget(c)
	c.tls.Close()
}

// fail ends all requests.
func (c *h2Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failLocked(err)
}

func (c *h2Conn) failLocked(err error) {
	if c.err == nil {
		c.err = err
	}
	for _, st := range c.streams {
		st.drop(err)
	}
	c.room.Broadcast()
}
