package connectionpoint

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/opencmg/cmg/channel"
)

// carry makes a connection to a server that answered 101 one of the protocol
// it chose, and the stream one of bytes, until either ends. There is no time
// limit here: the gateway ends a stream on which nothing passes, and what
// ends the stream closes the connection.
func (r *relay) carry(st *channel.Stream, c *conn) error {
	r.status = r.res.Status
	r.res.Close = true
	st.Duplex()
	c.by = time.Time{}
	c.raw.SetDeadline(time.Time{})
	r.head = r.res.AppendCompact(r.head[:0])
	if err := st.Respond(r.head, nil, false); err != nil {
		return err
	}
	inward, deaf := make(chan error, 1), make(chan struct{})
	go func() { inward <- toServer(st, c, deaf) }() // waited for below
	out := toClient(st, c)
	if out != nil { // whoever is left is not to wait for the other
		st.Abort(code(out), out.Error())
		c.raw.Close()
	}
	select {
	case in := <-inward:
		return errors.Join(in, out)
	case <-deaf:
	}
	select { // what the server said last is on its way, and RESET would overtake it
	case in := <-inward:
		return errors.Join(in, out)
	case <-time.After(lastWords):
		st.Abort(channel.CodeFailed, "the server takes no more")
		return errors.Join(<-inward, out)
	}
}

// lastWords is what the end of an answer may take to be sent when the server
// has gone.
const lastWords = time.Second

// toServer carries what the client sends, until it sends no more. Once the
// server takes no more, deaf is closed, and the rest is dropped: what the
// server has said still counts.
func toServer(st *channel.Stream, c *conn, deaf chan<- struct{}) (lost error) {
	for {
		p, err := st.Next()
		switch {
		case err == io.EOF && lost == nil:
			return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
		case err == io.EOF:
			return lost
		case err != nil:
			c.raw.Close()
			return errors.Join(lost, err)
		}
		if lost == nil {
			if _, err := c.Write(p); err != nil {
				lost = fmt.Errorf("write to the server: %w", err)
				close(deaf)
			}
		}
	}
}

// smallBuffers are for tunnels through which little passes.
var smallBuffers = sync.Pool{New: func() any { b := make([]byte, 4<<10); return &b }}

// toClient carries what the server sends, until it sends no more.
func toClient(st *channel.Stream, c *conn) error {
	bufs := &smallBuffers
	buf := bufs.Get().(*[]byte)
	defer func() { bufs.Put(buf) }()
	for {
		n, err := c.rd.Read(*buf)
		if n > 0 {
			if _, err := st.Write((*buf)[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return st.WriteEnd(nil)
		case err != nil:
			return fmt.Errorf("read from the server: %w", err)
		}
		c.rd.Release() // of what came with the 101
		want := &smallBuffers
		if n == len(*buf) || n > 4<<10 {
			want = &buffers
		}
		if want != bufs {
			bufs.Put(buf)
			bufs = want
			buf = bufs.Get().(*[]byte)
		}
	}
}
