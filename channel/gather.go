package channel

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
)

// A Gather lies between a TCP connection and the tls.Conn on top of it. It
// sends the records of one Flush in one system call, where crypto/tls makes
// one for each 16 KiB, and reads many records at once.
type Gather struct {
	net.Conn
	in *bufio.Reader

	mu   sync.Mutex
	hold bool
	out  *[]byte
	late []byte // see Delay

	wait atomic.Int32 // what late waits for
}

const (
	oneRecord  = 16 << 10
	gatherSize = 256 << 10
)

var gatherBufs = sync.Pool{New: func() any { b := make([]byte, 0, gatherSize+oneRecord+1024); return &b }}

// NewWire wraps a TCP connection that is to carry a channel. Reads go through
// a buffer of readSize bytes.
func NewWire(c net.Conn, readSize int) *Gather { return NewGather(wire(c), readSize) }

// NewGather wraps c. Reads go through a buffer of readSize bytes; 0 is none.
func NewGather(c net.Conn, readSize int) *Gather {
	g := &Gather{Conn: c}
	if readSize > 0 {
		g.in = bufio.NewReaderSize(c, readSize)
	}
	return g
}

func (g *Gather) Read(p []byte) (int, error) {
	if g.wait.Load() == untilRead {
		if err := g.settleNow(untilRead); err != nil {
			return 0, err
		}
	}
	if g.in == nil {
		return g.Conn.Read(p)
	}
	return g.in.Read(p)
}

func (g *Gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.wait.Load() != 0 {
		return g.writeLate(p)
	}
	if !g.hold {
		return g.Conn.Write(p)
	}
	*g.out = append(*g.out, p...)
	if len(*g.out) >= gatherSize {
		_, err := g.Conn.Write(*g.out)
		*g.out = (*g.out)[:0]
		return len(p), err
	}
	return len(p), nil
}

// Flush writes the parts through t, which lies on top of g. Calls must not
// overlap.
func (g *Gather) Flush(t *tls.Conn, parts ...[]byte) (err error) {
	n, last := 0, 0
	for i, p := range parts {
		if n += len(p); len(p) > 0 {
			last = i
		}
	}
	if n <= oneRecord && n == len(parts[last]) {
		_, err := t.Write(parts[last])
		return err
	}
	out := gatherBufs.Get().(*[]byte)
	g.mu.Lock()
	g.hold, g.out = true, out
	g.mu.Unlock()
	for _, p := range parts {
		if len(p) > 0 && err == nil {
			_, err = t.Write(p)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(*out) > 0 {
		if _, e := g.Conn.Write(*out); err == nil {
			err = e
		}
		*out = (*out)[:0]
	}
	g.hold, g.out = false, nil
	gatherBufs.Put(out)
	return err
}

// Buffer has reads go through a buffer of readSize bytes from now on. It must
// not be called while somebody reads.
func (g *Gather) Buffer(readSize int) {
	if g.in == nil {
		g.in = bufio.NewReaderSize(g.Conn, readSize)
	}
}

var wideBufs = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, wideSize) }}

// wideSize holds four TLS records.
const wideSize = 64 << 10

// Widen has reads go through a large borrowed buffer, for as long as much is
// read; narrow gives it back. Neither must be called while somebody reads.
func (g *Gather) Widen() (narrow func()) {
	if g.in != nil {
		return func() {}
	}
	g.in = wideBufs.Get().(*bufio.Reader)
	g.in.Reset(g.Conn)
	return func() {
		if g.in.Buffered() > 0 {
			return // the next request: the buffer stays with the connection
		}
		g.in.Reset(nil)
		wideBufs.Put(g.in)
		g.in = nil
	}
}

// HasRecord says that a whole TLS record has been read from the connection
// which TLS has not asked for yet.
func (g *Gather) HasRecord() bool {
	if g.in == nil || g.in.Buffered() < recordHeader {
		return false
	}
	h, _ := g.in.Peek(recordHeader)
	return g.in.Buffered() >= recordHeader+int(h[3])<<8+int(h[4])
}

// recordHeader is the length of a TLS record's header, whose last two bytes
// are the length of what follows (RFC 8446, section 5.1).
const recordHeader = 5

// CloseNow closes the TCP connection under it without a TLS alert.
func (g *Gather) CloseNow() error { return g.Conn.Close() }
