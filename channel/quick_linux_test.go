package channel

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// quickPair gives two ends of a TCP connection, both quick.
func quickPair(t *testing.T) (a, b *quickConn) {
	x, y := pair(t, false)
	a, b = Quick(x).(*quickConn), Quick(y).(*quickConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestQuickCarries sends more than the sockets hold, in both directions at
// once, to readers that come late.
func TestQuickCarries(t *testing.T) {
	a, b := quickPair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	var wg sync.WaitGroup
	for _, c := range []*quickConn{a, b} {
		wg.Go(func() {
			if n, err := c.Write(sent); n != len(sent) || err != nil {
				t.Errorf("wrote %d, %v", n, err)
			}
			c.CloseWrite()
		})
	}
	for _, c := range []*quickConn{a, b} {
		wg.Go(func() {
			got, err := io.ReadAll(struct{ io.Reader }{c})
			if err != nil || !bytes.Equal(got, sent) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}

// TestQuickEnds has reads and writes end as those of the net package do.
func TestQuickEnds(t *testing.T) {
	a, b := quickPair(t)
	one := make([]byte, 1)

	a.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := a.Read(one); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read beyond its deadline: %v", err)
	}
	if n, err := a.Read(nil); n != 0 || err != nil {
		t.Errorf("an empty read: %d, %v", n, err)
	}
	a.SetReadDeadline(time.Time{})
	b.Write([]byte("x"))
	if n, err := a.Read(one); n != 1 || err != nil {
		t.Errorf("a read behind its deadline: %d, %v", n, err)
	}

	a.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := a.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write that nobody reads: %v", err)
	}

	waits := make(chan error)
	go func() {
		_, err := b.Write(make([]byte, 64<<20))
		waits <- err
	}()
	b.Close()
	if err := <-waits; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write whose own end is closed: %v", err)
	}
	a.SetDeadline(time.Now().Add(5 * time.Second))
	_, err := io.Copy(io.Discard, struct{ io.Reader }{a})
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a read whose other end is closed: %v", err)
	}
	for err = nil; err == nil; {
		_, err = a.Write(one)
	}
	var op *net.OpError
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Op != "write" {
		t.Errorf("a write whose other end is closed: %v", err)
	}
}
