package channel

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync"
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
}

const (
	oneRecord  = 16 << 10
	gatherSize = 256 << 10
)

var gatherBufs = sync.Pool{New: func() any { b := make([]byte, 0, gatherSize+oneRecord+1024); return &b }}

// NewGather wraps c. Reads go through a buffer of readSize bytes; 0 is none.
func NewGather(c net.Conn, readSize int) *Gather {
	g := &Gather{Conn: c}
	if readSize > 0 {
		g.in = bufio.NewReaderSize(c, readSize)
	}
	return g
}

func (g *Gather) Read(p []byte) (int, error) {
	if g.in == nil {
		return g.Conn.Read(p)
	}
	return g.in.Read(p)
}

func (g *Gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
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

// Flush writes b through t, which lies on top of g. Calls must not overlap.
func (g *Gather) Flush(t *tls.Conn, b []byte) error {
	if len(b) <= oneRecord {
		_, err := t.Write(b)
		return err
	}
	out := gatherBufs.Get().(*[]byte)
	g.mu.Lock()
	g.hold, g.out = true, out
	g.mu.Unlock()
	_, err := t.Write(b)
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

// CloseNow closes the TCP connection under it without a TLS alert.
func (g *Gather) CloseNow() error { return g.Conn.Close() }
