package managementpoint

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
)

const (
	notifyLogIn = 30 * time.Second // from a connection's beginning until it is known who it is
	notifyWrite = 30 * time.Second // for one reply
	notifyLate  = time.Minute      // after a confirmation is due: the connection is dead
)

// listenNotify opens the listener of client notification over TCP; nil where
// there is none.
func (p *Point) listenNotify(ctx context.Context) (net.Listener, error) {
	if p.cfg.NotifyListen == "" {
		return nil, nil
	}
	return p.cfg.Sockets.Listen(ctx, "notify", p.cfg.NotifyListen, nil)
}

// serveNotify serves client notification over TCP with TLS (PROTOCOL 2.4)
// until ctx ends, and closes ln.
func (p *Point) serveNotify(ctx context.Context, ln net.Listener) error {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	var conns sync.WaitGroup
	defer conns.Wait()
	defer ln.Close()
	settings := auth.Following(p.tls())
	var open atomic.Int64
	for {
		c, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept notification: %w", err)
		case err != nil: // no file left, or a client that went at once
			p.cfg.Log.Warn("accept notification", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if open.Add(1) > int64(p.live.Load().cfg.NotifyClients) {
			open.Add(-1)
			c.Close()
			continue
		}
		conns.Go(func() {
			defer open.Add(-1)
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			if err := p.listen(ctx, tls.Server(c, settings)); err != nil && ctx.Err() == nil {
				p.cfg.Log.Info("notification ended", "addr", c.RemoteAddr().String(), "err", err)
			}
		})
	}
}

// A notifyConn is one client's connection. All of it is one goroutine; roused
// is what others may touch, and the deadline for reading.
type notifyConn struct {
	*tls.Conn
	frame  frame
	roused atomic.Bool
}

// listen serves one connection until its client leaves it: err says why it
// was ended before.
func (p *Point) listen(ctx context.Context, tc *tls.Conn) error {
	c := &notifyConn{Conn: tc}
	c.SetDeadline(time.Now().Add(notifyLogIn))
	if err := c.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("shake hands: %w", err)
	}
	d, err := p.logIn(ctx, c)
	if err != nil {
		var no *cmg.Refusal
		if errors.As(err, &no) {
			p.count.refused(err)
			err = errors.Join(err, c.reply(ccm.NotifyReply{Time: p.cfg.Now(), Refusal: no.Code}))
		}
		return err
	}
	w := &poll{on: func() {
		c.roused.Store(true)
		c.SetReadDeadline(time.Unix(1, 0))
	}}
	if err := p.hub.enter(d, w, p.live.Load().cfg.NotifyClients); err != nil {
		return errors.Join(err, c.reply(ccm.NotifyReply{Time: p.cfg.Now(), Refusal: errCrowded.Code}))
	}
	defer p.hub.leave(d, w)
	confirm := true // the LogIn, and then every request, is answered also where there is nothing to tell
	for {
		live := p.live.Load()
		c.SetReadDeadline(time.Now().Add(live.cfg.NotifyInterval + notifyLate))
		if c.roused.Swap(false) || confirm {
			over, err := p.tell(c, d, w, confirm)
			if over || err != nil {
				return err
			}
			confirm = false
		}
		text, err := c.frame.read(c, ccm.MaxNotifyRequest)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && c.roused.Load():
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read: %w", err)
		}
		q, err := ccm.ReadNotifyRequest(text)
		if err == nil && q.Device != "" && q.Device != d {
			err = errMismatch
		}
		if err == nil {
			_, err = p.device(ctx, d) // it may have been blocked
		}
		if err == nil {
			err = p.hub.meet(ctx, d, q.Answers)
		}
		if err != nil {
			return err
		}
		if q.Type == ccm.NotifyLogOut {
			p.hub.leave(d, w)
			p.hub.gone(d)
			return nil
		}
		confirm = true
	}
}

// logIn reads the first request, which has to prove the device.
func (p *Point) logIn(ctx context.Context, c *notifyConn) (cmg.DeviceID, error) {
	text, err := c.frame.read(c, ccm.MaxNotifyRequest)
	if err != nil {
		return "", fmt.Errorf("read log-in: %w", err)
	}
	q, err := ccm.ReadNotifyRequest(text)
	if err == nil && q.Type != ccm.NotifyLogIn {
		err = fmt.Errorf("a connection begins with LogIn, not %s: %w", q.Type, cmg.ErrInvalid)
	}
	if err != nil {
		return "", cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "the first request cannot be read", err)
	}
	id, err := p.signedListener(ctx, q.Token, q.Signature)
	if err == nil && q.Device != "" && q.Device != id {
		err = errMismatch
	}
	if err != nil {
		return "", err
	}
	p.count.request("BGB over TCP")
	return id, p.hub.meet(ctx, id, q.Answers)
}

// tell writes what is due, and with confirm a reply also where nothing is.
// over says that another connection took this one's place.
func (p *Point) tell(c *notifyConn, d cmg.DeviceID, w *poll, confirm bool) (over bool, err error) {
	for {
		tasks, replaced := p.hub.due(d, w)
		if len(tasks) == 0 && !replaced && !confirm {
			return false, nil
		}
		err := c.reply(ccm.NotifyReply{Time: p.cfg.Now(), Wait: p.live.Load().cfg.NotifyInterval, Replaced: replaced, Tasks: tasks})
		if replaced || err != nil {
			return true, err
		}
		if len(tasks) > 0 {
			w.sent = tasks[len(tasks)-1].PushID
		}
		confirm = false
	}
}

func (c *notifyConn) reply(r ccm.NotifyReply) error {
	c.SetWriteDeadline(time.Now().Add(notifyWrite))
	if _, err := c.Write(appendFrame(nil, r.XML())); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// appendFrame writes a message as it goes over TCP: its length in four bytes,
// the most significant first, and its text.
func appendFrame(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
}

// A frame is a message of which a part may have come.
type frame struct {
	head [4]byte
	body []byte // nil: the head is not whole
	n    int    // of whichever is being read
}

// read goes on reading a frame of at most most bytes. After a deadline it may
// be called again. The end of r is io.EOF only between two frames.
func (f *frame) read(r io.Reader, most int) (string, error) {
	if f.body == nil {
		if err := f.fill(r, f.head[:]); err != nil {
			return "", err
		}
		n := binary.BigEndian.Uint32(f.head[:])
		if n == 0 || n > uint32(most) {
			return "", fmt.Errorf("frame of %d bytes: %w", n, cmg.ErrTooLarge)
		}
		f.body, f.n = make([]byte, n), 0
	}
	if err := f.fill(r, f.body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	text := string(f.body)
	*f = frame{}
	return text, nil
}

func (f *frame) fill(r io.Reader, b []byte) error {
	for f.n < len(b) {
		n, err := r.Read(b[f.n:])
		f.n += n
		if err != nil && f.n < len(b) {
			if errors.Is(err, io.EOF) && f.n > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}
