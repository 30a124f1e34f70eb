package gateway

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An h2Wire is a client's connection of HTTP/2 on which a test writes the
// frames it likes.
type h2Wire struct {
	t testing.TB
	*tls.Conn
	out  bytes.Buffer // not yet sent
	over chan struct{}

	mu     sync.Mutex
	resets map[uint32]uint32 // stream: code
	data   map[uint32][]byte // stream: body of its answer
	heads  map[uint32]bool
	away   []uint32 // codes of GOAWAY
}

func (r *running) dialH2() *h2Wire {
	w := r.dialDeafH2()
	w.over = make(chan struct{})
	go w.read()
	r.t.Cleanup(func() {
		w.NetConn().Close()
		within(r.t, "the connection is read to its end", w.over)
	})
	return w
}

// dialDeafH2 makes a connection that nobody reads.
func (r *running) dialDeafH2() *h2Wire {
	r.t.Helper()
	c := must[*tls.Conn](r.t)(tls.Dial("tcp", r.clients, r.settings(&r.site.device, "h2")))
	w := &h2Wire{t: r.t, Conn: c, resets: map[uint32]uint32{}, data: map[uint32][]byte{}, heads: map[uint32]bool{}}
	c.SetDeadline(time.Now().Add(3 * patience))
	w.out.WriteString("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	w.frame(h2Settings, 0, 0, nil)
	r.t.Cleanup(func() { c.NetConn().Close() })
	return w
}

func (w *h2Wire) frame(kind, flags byte, stream uint32, p []byte) {
	h := []byte{byte(len(p) >> 16), byte(len(p) >> 8), byte(len(p)), kind, flags}
	w.out.Write(append(binary.BigEndian.AppendUint32(h, stream), p...))
}

// flush sends what was written. Its error is that the gateway has hung up.
func (w *h2Wire) flush() error {
	_, err := w.out.WriteTo(w.Conn)
	return err
}

func (w *h2Wire) read() {
	defer close(w.over)
	var h [9]byte
	for {
		if _, err := io.ReadFull(w, h[:]); err != nil {
			return
		}
		p := make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
		if _, err := io.ReadFull(w, p); err != nil {
			return
		}
		id := binary.BigEndian.Uint32(h[5:])
		w.mu.Lock()
		switch h[3] {
		case h2Headers:
			w.heads[id] = true
		case h2Data:
			w.data[id] = append(w.data[id], p...)
		case h2Reset:
			w.resets[id] = binary.BigEndian.Uint32(p)
		case h2GoAway:
			w.away = append(w.away, binary.BigEndian.Uint32(p[4:]))
		}
		w.mu.Unlock()
	}
}

func (w *h2Wire) look(f func() bool) func() bool {
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return f()
	}
}

// pack is a field that is not indexed (RFC 7541, section 6.2.2), or with flag
// 0x40 one that is put into the table.
func pack(b []byte, flag byte, name, value string) []byte {
	b = append(b, flag)
	for _, s := range []string{name, value} {
		n := len(s)
		if n < 127 {
			b = append(b, byte(n))
		} else {
			b = append(b, 127)
			b = binary.AppendUvarint(b, uint64(n-127))
		}
		b = append(b, s...)
	}
	return b
}

func packedHead(method, path string, more ...string) []byte {
	var b []byte
	for _, f := range [][2]string{{":method", method}, {":scheme", "https"}, {":authority", "gw.cmg.test"}, {":path", path}} {
		b = pack(b, 0, f[0], f[1])
	}
	for i := 0; i+1 < len(more); i += 2 {
		b = pack(b, 0, more[i], more[i+1])
	}
	return b
}

// honestMeanwhile wants an honest client to be served.
func (r *running) honestMeanwhile() {
	r.t.Helper()
	for _, h2 := range []bool{false, true} {
		if resp, _ := do(r.t, r.client(&r.site.device, h2), r.request("GET", "/any/honest", nil)); resp.StatusCode != 200 {
			r.t.Errorf("an honest client is answered %s", resp.Status)
		}
	}
}

// TestRapidReset opens streams and resets them at once, as in CVE-2023-44487:
// no more go inward at a time than a connection may have open.
func TestRapidReset(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	r, _ := start(t, func(q *request) {
		if q.field("user-agent") != "attacker" {
			q.answer(200, nil)
			return
		}
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		q.st.First()
		q.st.Next() // until it is taken back
		for q.st.Err() == nil {
			<-q.st.Ready()
		}
	})
	w := r.dialH2()
	head := packedHead("GET", "/any/x", "user-agent", "attacker")
	for id := uint32(1); id < 40_000; id += 2 {
		w.frame(h2Headers, h2EndStream|h2EndHeaders, id, head)
		w.frame(h2Reset, 0, id, []byte{0, 0, 0, 8})
		if w.out.Len() > 32<<10 && w.flush() != nil {
			break
		}
	}
	w.flush()
	r.honestMeanwhile()
	w.NetConn().Close()
	eventually(t, "nothing is left of it", func() bool { return now.Load() == 0 && r.gw.counts.inFlight.Load() == 0 })
	if n := most.Load(); n > 250 {
		t.Errorf("%d requests were inward at once on one connection", n)
	}
}

// TestFloods: what a connection of HTTP/2 can be flooded with ends it, or
// costs no more than it brings.
func TestFloods(t *testing.T) {
	t.Parallel()
	sixteen := make([]byte, 16<<10)
	var bomb []byte
	bomb = append(bomb, packedHead("GET", "/any/x")...)
	bomb = pack(bomb, 0x40, "x-bomb", strings.Repeat("a", 4000))
	bomb = append(bomb, bytes.Repeat([]byte{0x80 | 62}, 10_000)...) // 40 MB of fields in 14 KB
	for name, f := range map[string]func(w *h2Wire) error{
		"continuation": func(w *h2Wire) error {
			w.frame(h2Headers, h2EndStream, 1, packedHead("GET", "/any/x"))
			for n := 0; n < 64<<20; n += len(sixteen) {
				w.frame(h2Continuation, 0, 1, pack(nil, 0, "x", strings.Repeat("a", 16<<10-16)))
				if err := w.flush(); err != nil {
					return err
				}
			}
			return nil
		},
		"empty continuation": func(w *h2Wire) error {
			w.frame(h2Headers, h2EndStream, 1, packedHead("GET", "/any/x"))
			for range 200 {
				for range 10_000 {
					w.frame(h2Continuation, 0, 1, pack(nil, 0, "x", "y"))
				}
				if err := w.flush(); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, in := start(t, echo)
			w := r.dialH2()
			if err := f(w); err == nil {
				within(t, "the connection ends", w.over)
			}
			if n := in.streams.Load(); n != 0 {
				t.Errorf("%d requests went inward", n)
			}
			r.honestMeanwhile()
		})
	}
	t.Run("hpack bomb", func(t *testing.T) {
		t.Parallel()
		r, in := start(t, echo)
		w := r.dialH2()
		w.frame(h2Headers, h2EndStream|h2EndHeaders, 1, bomb)
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is answered, reset or ended", w.look(func() bool { return w.heads[1] || len(w.away) > 0 || w.resets[1] != 0 }))
		if n := in.streams.Load(); n != 0 {
			t.Errorf("%d requests went inward", n)
		}
		r.honestMeanwhile()
	})
	t.Run("tiny data", func(t *testing.T) {
		t.Parallel()
		r, _ := start(t, echo)
		w := r.dialH2()
		w.frame(h2Headers, h2EndHeaders, 1, packedHead("POST", "/any/x"))
		for range 20_000 {
			w.frame(h2Data, 0, 1, []byte{'x'})
			w.frame(h2Data, 0, 1, nil)
			if w.out.Len() > 32<<10 {
				if err := w.flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.frame(h2Data, h2EndStream, 1, nil)
		w.flush()
		eventually(t, "all of it arrived, or it was refused", w.look(func() bool { return len(w.data[1]) == 20_000 || len(w.away) > 0 || w.resets[1] != 0 }))
		r.honestMeanwhile()
	})
}

// TestUnreadAnswers: who asks for answers and reads none is hung up on, or
// read no further, or costs the gateway one answer at a time:
// acknowledgements of settings are one, however many came.
func TestUnreadAnswers(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct {
		kind  byte
		p     []byte
		limit int // thousands of frames
		ends  bool
	}{"settings": {h2Settings, []byte{0, 4, 0, 0, 255, 255}, 100, false}, "pings": {h2Ping, make([]byte, 8), 2000, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, _ := start(t, echo)
			w := r.dialDeafH2()
			w.SetDeadline(time.Now().Add(patience / 2))
			var err error
			for n := 0; n < f.limit && err == nil; n++ {
				for range 1000 {
					w.frame(f.kind, 0, 0, f.p)
				}
				err = w.flush()
			}
			if f.ends && err == nil { // it may read on for a moment, so that its GOAWAY arrives
				if _, err := io.Copy(io.Discard, w.Conn); errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the gateway took all of it, and goes on")
				}
			}
			r.honestMeanwhile()
		})
	}
}

// TestConnectOverHTTP2: tunnels are not offered over HTTP/2, and asking for
// one says so.
func TestConnectOverHTTP2(t *testing.T) {
	t.Parallel()
	r, in := start(t, echo)
	w := r.dialH2()
	var connect []byte
	for _, f := range [][2]string{{":method", "CONNECT"}, {":authority", "mp:443"}} {
		connect = pack(connect, 0, f[0], f[1])
	}
	w.frame(h2Headers, h2EndStream|h2EndHeaders, 1, connect)
	w.frame(h2Headers, h2EndHeaders, 3, append(pack(nil, 0, ":protocol", "websocket"), packedHead("CONNECT", "/any/ws")...))
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "CONNECT is refused with its code", w.look(func() bool { return strings.Contains(string(w.data[1]), "CMGService_Upgrade_Over_HTTP2") }))
	eventually(t, "a WebSocket that nobody offered is reset", w.look(func() bool {
		return w.resets[3] == 1 || strings.Contains(string(w.data[3]), "CMGService_Upgrade_Over_HTTP2")
	}))
	if n := in.streams.Load(); n != 0 {
		t.Errorf("%d requests went inward", n)
	}
}

// TestChunkExtensions: chunks of one byte, each with an extension that is
// within its limit, are refused for what all of them come to.
func TestChunkExtensions(t *testing.T) {
	t.Parallel()
	r, in := start(t, echo)
	w := r.dial(&r.site.device)
	go func() {
		io.WriteString(w, "POST /any/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat("1;"+strings.Repeat("e", 200)+"\r\nx\r\n", 1000)+"0\r\n\r\n")
	}()
	resp, _ := w.read("POST")
	if resp.StatusCode != http.StatusBadRequest || !resp.Close {
		t.Errorf("%s, close %v", resp.Status, resp.Close)
	}
	if n := in.streams.Load(); n != 0 {
		t.Errorf("%d requests went inward", n)
	}
}
