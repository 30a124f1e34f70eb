package gateway

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/opencmg/cmg/h1"
)

// TestH2CookieBomb has a client name one long cookie once and mean it again
// with each of many bytes: what is kept of a head is bounded unpacked.
func TestH2CookieBomb(t *testing.T) {
	r, _ := start(t, echo)
	p := r.h2Dial()
	block := p.block(h2Get("/any/x", "cookie", strings.Repeat("c", 3900))...)
	again := p.block("cookie", strings.Repeat("c", 3900)) // one byte: it stands in the table
	if len(again) != 1 {
		t.Fatalf("the field takes %d bytes again, want 1", len(again))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p.do(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true}))
	piece := []byte(strings.Repeat(string(again), 16<<10))
	for i := range 7 {
		p.do(p.WriteContinuation(1, i == 6, piece))
	}
	if status, body := p.answer(1); status != "431" {
		t.Errorf("%s %s, want 431", status, body)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64*h1.MaxHead {
		t.Errorf("a head of 112 KiB had %d MiB allocated", n>>20)
	}
}

// TestH2UploadMemory has a client send faster than the inside takes: what is
// held is bounded by the window, however long the body is.
func TestH2UploadMemory(t *testing.T) {
	const size = 24 << 20
	c := &h2Conn{streams: map[uint32]*h2Stream{}, lastID: 1, recv: h2ConnWindow, writing: true}
	c.room.L = &c.mu
	st := c.newStream(1)
	c.streams[1] = st
	piece, into, most := make([]byte, h2MaxFrame), make([]byte, h2MaxFrame), 0
	for sent, taken := 0, 0; sent < size; sent += len(piece) {
		piece[0] = byte(sent >> 14)
		if err := c.takeData(&h2Frame{kind: h2Data, id: 1, payload: piece}); err != nil {
			t.Fatal(err)
		}
		most = max(most, cap(st.buf))
		if sent > h2StreamWindow/2 { // from now on as much is taken as comes, and something is always left
			if n, err := st.Read(into); n != len(into) || err != nil || into[0] != byte(taken>>14) {
				t.Fatalf("%d bytes at %d, %v", n, taken, err)
			}
			taken += len(into)
		}
		c.out = c.out[:0]
	}
	if most > 4*h2StreamWindow {
		t.Errorf("%d KiB were held of a body, the window is %d KiB", most>>10, h2StreamWindow>>10)
	}
}

// TestH2Idle has a client ask for nothing but to be kept: its connection ends
// as one that is silent does.
func TestH2Idle(t *testing.T) {
	for name, send := range map[string]func(p *h2Peer) error{
		"PING":                     func(p *h2Peer) error { return p.WritePing(false, [8]byte{}) },
		"a window":                 func(p *h2Peer) error { return p.WriteWindowUpdate(0, 1) },
		"a kind that nobody knows": func(p *h2Peer) error { return p.WriteRawFrame(0x7f, 0, 0, nil) },
		"a head that does not end": func(p *h2Peer) error { return p.WriteRawFrame(http2.FrameContinuation, 0, 1, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := start(t, echo, func(g *Gateway) { g.limits.idle, g.limits.head = 200*time.Millisecond, 200*time.Millisecond })
			p := r.h2Dial()
			p.t = t
			if strings.Contains(name, "head") {
				p.do(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(":method", "GET")}))
			}
			go func() {
				for send(p) == nil {
					time.Sleep(20 * time.Millisecond)
				}
			}()
			for {
				if _, err := p.ReadFrame(); err != nil {
					if strings.Contains(err.Error(), "timeout") {
						t.Fatal("the connection is kept")
					}
					return
				}
			}
		})
	}
}

// TestH2AllStreams has a client keep as many streams open as it may, and open
// one anew as soon as one has ended: none is refused.
func TestH2AllStreams(t *testing.T) {
	r, _ := start(t, func(q *request) { q.answer(200, nil) })
	p := r.h2Dial()
	id := uint32(1)
	for range h2Streams {
		p.do(p.ask(id, false, h2Get("/any/x")...))
		id += 2
	}
	for left := 20 * h2Streams; left > 0; {
		p.until("an answer", func(f http2.Frame) bool {
			if x, ok := f.(*http2.RSTStreamFrame); ok {
				t.Fatalf("stream %d: %v", x.StreamID, x.ErrCode)
			}
			h, ok := f.(*http2.MetaHeadersFrame)
			return ok && h.StreamEnded()
		})
		left--
		p.do(p.ask(id, false, h2Get("/any/x")...))
		id += 2
	}
}
