package bits

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// fileSize is what the cut upload moves: CMG_LONG=1 makes it a gibibyte.
func fileSize() int64 {
	if os.Getenv("CMG_LONG") != "" {
		return 1 << 30
	}
	return 64 << 20
}

// pattern is a file of any size without its bytes: each depends on where it
// stands.
type pattern int64

func (p pattern) ReadAt(b []byte, at int64) (int, error) {
	if at >= int64(p) {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), int64(p)-at))
	for i := range n {
		x := uint64(at+int64(i)) * 0x9E3779B97F4A7C15
		b[i] = byte(x>>56) ^ byte(x>>32)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// A cutter is a TCP proxy that cuts every connection when so many bytes in all
// have passed towards the server.
type cutter struct {
	ln      net.Listener
	to      string
	passed  atomic.Int64
	cuts    atomic.Int64
	onCut   func()
	mu      sync.Mutex
	offsets []int64
	all     sync.WaitGroup
}

func newCutter(t *testing.T, to string, offsets []int64, onCut func()) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{ln: ln, to: to, offsets: offsets, onCut: onCut}
	c.all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			c.all.Go(func() { c.pass(conn) })
		}
	})
	t.Cleanup(func() { ln.Close(); c.all.Wait() })
	return c
}

func (c *cutter) pass(client net.Conn) {
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		client.Close()
		return
	}
	var back sync.WaitGroup
	back.Go(func() { io.Copy(client, server); client.Close() })
	buf, cut := make([]byte, 32<<10), false
	for {
		n, err := client.Read(buf)
		if err == nil {
			_, err = server.Write(buf[:n])
		}
		if cut = err == nil && c.cut(int64(n)); err != nil || cut {
			break
		}
	}
	client.Close()
	server.Close()
	back.Wait()
	if cut {
		c.onCut()
	}
}

func (c *cutter) cut(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.passed.Add(n); len(c.offsets) == 0 || c.passed.Load() < c.offsets[0] {
		return false
	}
	c.offsets = c.offsets[1:]
	c.cuts.Add(1)
	return true
}

// TestCuts uploads a file whose connection is cut at ten random places, at
// half of which the server is another process afterwards. No more is sent
// again than what the cuts lost.
func TestCuts(t *testing.T) {
	p := newPlace(t)
	size := fileSize()
	var offsets []int64
	for i := range int64(10) {
		offsets = append(offsets, size/11*(i+1)-rand.Int64N(size/22))
	}
	var n atomic.Int64
	host, _, _ := strings.Cut(strings.TrimPrefix(p.url, "http://"), "/")
	c := newCutter(t, host, offsets, func() {
		if n.Add(1)%2 == 0 {
			p.restart()
		}
	})
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	client := Client{Do: (&http.Client{Transport: tr}).Do, Wait: time.Millisecond}
	var sessions []string
	source := Source{URL: "http://" + c.ln.Addr().String() + "/CCM_Incoming/{1}", Size: size, ReaderAt: pattern(size),
		Begun: func(s string) error { sessions = append(sessions, s); return nil }}
	if err := client.Upload(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(pattern(size), 0, size)); err != nil {
		t.Fatal(err)
	}
	if len(sessions) != 1 || c.cuts.Load() != 10 {
		t.Fatalf("%d sessions, %d cuts", len(sessions), c.cuts.Load())
	}
	u := p.delivered[key(sessions[0])]
	if u.Size != size || u.SHA256 != cmg.Digest(h.Sum(nil)) {
		t.Fatalf("delivered %+v", u)
	}
	f, err := os.Open(u.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	again := sha256.New()
	if _, err := io.Copy(again, f); err != nil || !bytes.Equal(again.Sum(nil), h.Sum(nil)) {
		t.Fatalf("the file on disk is another one: %v", err)
	}
	if extra := c.passed.Load() - size; extra > 10*(5<<20) {
		t.Errorf("%d bytes were sent for %d", c.passed.Load(), size)
	}
}

// TestResume goes on with the session of an earlier process.
func TestResume(t *testing.T) {
	p := newPlace(t)
	file := noise(5000)
	s := p.begin()
	wants(t, p.fragment(s, 0, file[:3000], 5000), 200, "3000", "")
	var seen []int64
	client := Client{Do: p.client.Do, Fragment: 1000, Wait: time.Millisecond, Progress: func(n, _ int64) { seen = append(seen, n) }}
	source := Source{URL: p.url, Size: 5000, ReaderAt: bytes.NewReader(file), Session: s, Begun: func(string) error { t.Error("a new session"); return nil }}
	if err := client.Upload(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	p.got(s, "", file)
	if fmt.Sprint(seen) != "[3000 4000 5000]" {
		t.Errorf("progress %v", seen)
	}
	if err := client.Upload(t.Context(), source); err == nil {
		t.Error("a closed session takes a fragment")
	}
	began := ""
	source.Session, source.Begun = "{gone}", func(s string) error { began = s; return nil }
	if err := client.Upload(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	p.got(began, "", file)
	source.Session, source.Size, source.ReaderAt = "", 0, bytes.NewReader(nil)
	if err := client.Upload(t.Context(), source); err != nil {
		t.Fatal(err)
	}
	p.got(began, "", nil)
}

// TestSmallerFragments halves what is too much for the server.
func TestSmallerFragments(t *testing.T) {
	p := newPlace(t, func(c *Config) { c.MaxFragment = 10_000 })
	file := noise(100_000)
	began := ""
	client := Client{Do: p.client.Do, Wait: time.Millisecond}
	if err := client.Upload(t.Context(), Source{URL: p.url, Size: 100_000, ReaderAt: bytes.NewReader(file), Begun: func(s string) error { began = s; return nil }}); err != nil {
		t.Fatal(err)
	}
	p.got(began, "", file)
}

// failing is a file whose end cannot be read.
type failing struct{}

func (failing) ReadAt(b []byte, at int64) (int, error) {
	if at > 0 {
		return 0, errors.New("bad sector")
	}
	return len(b), nil
}

func TestClientGivesUp(t *testing.T) {
	p := newPlace(t, func(c *Config) { c.MaxSize = 100 })
	client := Client{Do: p.client.Do, Fragment: 50, Tries: 3, Wait: time.Microsecond, Longest: time.Microsecond}
	var f *Failure
	err := client.Upload(t.Context(), Source{URL: p.url, Size: 101, ReaderAt: bytes.NewReader(noise(101))})
	if !errors.As(err, &f) || f.Result != ResultTooLarge || f.Code != "CMGMP_Upload_Too_Large" {
		t.Errorf("too large: %v", err)
	}
	if err := client.Upload(t.Context(), Source{URL: p.url, Size: 100, ReaderAt: failing{}}); err == nil || !strings.Contains(err.Error(), "bad sector") {
		t.Errorf("unreadable file: %v", err)
	}
	p.mu.Lock()
	p.fail = cmg.ErrUnavailable
	p.mu.Unlock()
	err = client.Upload(t.Context(), Source{URL: p.url, Size: 10, ReaderAt: bytes.NewReader(noise(10))})
	if !errors.As(err, &f) || f.Status != 503 || f.Context != ContextApplication || p.calls != 3 {
		t.Errorf("nobody takes it: %v after %d calls", err, p.calls)
	}
	forgetful := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(HeaderPacketType) == string(CreateSession) {
			w.Header().Set(HeaderSession, "{x}")
			return
		}
		w.Header().Set(HeaderError, "0x8020001f")
		w.WriteHeader(500)
	}))
	defer forgetful.Close()
	err = client.Upload(t.Context(), Source{URL: forgetful.URL, Size: 10, ReaderAt: bytes.NewReader(noise(10))})
	if !errors.As(err, &f) || f.Result != ResultSessionNotFound {
		t.Errorf("a server without memory: %v", err)
	}
	lying := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(HeaderSession, "{x}")
		w.Header().Set(HeaderReceived, "0")
	}))
	defer lying.Close()
	if err := client.Upload(t.Context(), Source{URL: lying.URL, Size: 10, ReaderAt: bytes.NewReader(noise(10))}); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("a server that takes nothing: %v", err)
	}
}
