package channel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// counted counts the writes that reach the network.
type counted struct {
	net.Conn
	writes atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func selfSigned(t testing.TB) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"gw"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// sockets gives both ends of a WebSocket over TLS over TCP.
func sockets(t testing.TB) (inside, outside net.Conn, wire *counted) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cert := selfSigned(t)
	type accepted struct {
		c   net.Conn
		err error
	}
	got := make(chan accepted, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- accepted{nil, err}
			return
		}
		under := tls.Server(NewGather(c, 0), &tls.Config{Certificates: []tls.Certificate{cert}})
		h, err := readHead(under)
		if err != nil {
			got <- accepted{nil, err}
			return
		}
		s, err := AcceptWebSocket(under, "gw", h)
		got <- accepted{s, err}
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	wire = &counted{Conn: c}
	under := tls.Client(NewGather(wire, 0), &tls.Config{InsecureSkipVerify: true})
	inside, err = DialWebSocket(t.Context(), under, "gw", "/x")
	if err != nil {
		t.Fatal(err)
	}
	a := <-got
	if a.err != nil {
		t.Fatal(a.err)
	}
	t.Cleanup(func() { inside.Close(); a.c.Close() })
	return inside, a.c, wire
}

// readHead reads a request's head byte by byte, so that nothing behind it is
// taken.
func readHead(c net.Conn) (http.Header, error) {
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		var b [1]byte
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return nil, err
		}
		head = append(head, b[0])
	}
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return nil, err
	}
	return r.Header, nil
}

// TestWebSocketCarriesBatches: the bytes arrive as they were, and what is
// flushed at once stays one write to the network, through both TLS layers.
func TestWebSocketCarriesBatches(t *testing.T) {
	inside, outside, wire := sockets(t)
	cert := selfSigned(t)
	wireIn := NewGather(inside, 17<<10)
	in := tls.Client(wireIn, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	out := tls.Server(NewGather(outside, 17<<10), &tls.Config{Certificates: []tls.Certificate{cert}})
	done := make(chan error, 1)
	sent := make([]byte, 100<<10)
	rand.Read(sent)
	got := make([]byte, len(sent))
	go func() {
		_, err := io.ReadFull(out, got)
		if err == nil {
			_, err = out.Write(got[:5])
		}
		done <- err
	}()
	if err := in.Handshake(); err != nil {
		t.Fatal(err)
	}
	before := wire.writes.Load()
	if err := wireIn.Flush(in, sent); err != nil {
		t.Fatal(err)
	}
	if n := wire.writes.Load() - before; n != 1 {
		t.Errorf("one batch of %d bytes took %d writes, want 1", len(sent), n)
	}
	var back [5]byte
	if _, err := io.ReadFull(in, back[:]); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, sent) || !bytes.Equal(back[:], sent[:5]) {
		t.Error("what arrived is not what was sent")
	}
}

// TestWebSocketDeadlines: a read that waits ends in time, and so does a write
// to a peer that takes nothing.
func TestWebSocketDeadlines(t *testing.T) {
	inside, _, _ := sockets(t)
	inside.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := inside.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v, want a timeout", err)
	}
	inside, _, _ = sockets(t)
	inside.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	var err error
	for range 1000 {
		if _, err = inside.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v, want a timeout", err)
	}
}

// TestWebSocketCloseWakes: closing ends a read that waits, at both ends.
func TestWebSocketCloseWakes(t *testing.T) {
	inside, outside, _ := sockets(t)
	ended := make(chan error, 2)
	for _, c := range []net.Conn{inside, outside} {
		go func() {
			_, err := c.Read(make([]byte, 1))
			ended <- err
		}()
	}
	inside.Close()
	for range 2 {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a read of a closed WebSocket gave something")
			}
		case <-time.After(5 * time.Second):
			t.Fatal("a read goes on after close")
		}
	}
}

// TestWebSocketRefused: another answer than 101 is told with what it says.
func TestWebSocketRefused(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() {
		if _, err := readHead(far); err == nil {
			io.WriteString(far, "HTTP/1.1 426 Upgrade Required\r\nVia: 1.1 box\r\nContent-Length: 3\r\n\r\nno!")
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err := DialWebSocket(ctx, near, "gw", "/x")
	var r *WebSocketRefused
	if !errors.As(err, &r) || r.Status != 426 || r.Reason != "Upgrade Required" || r.Via != "1.1 box" || r.Text != "no!" {
		t.Errorf("error %#v", err)
	}
}
