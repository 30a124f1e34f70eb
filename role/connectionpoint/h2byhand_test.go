package connectionpoint

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/opencmg/cmg/channel"
)

// An h2Wire is a connection to an HTTP/2 server that a test writes by hand.
type h2Wire struct {
	*http2.Framer
	conn net.Conn
	n    int64 // of the connection, from 1
	h2   bool  // else HTTP/1.1
}

// next gives the stream of the next request, behind its body.
func (w *h2Wire) next() (id uint32, err error) {
	for {
		f, err := w.ReadFrame()
		if err != nil {
			return 0, err
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			w.WriteSettingsAck()
		}
		if h := f.Header(); (h.Type == http2.FrameHeaders || h.Type == http2.FrameData) && h.Flags.Has(http2.FlagDataEndStream) {
			return h.StreamID, nil
		}
	}
}

// head answers; fields are pairs.
func (w *h2Wire) head(id uint32, end bool, fields ...string) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndHeaders: true, EndStream: end})
}

func (w *h2Wire) reset(id uint32, code http2.ErrCode) { w.WriteRSTStream(id, code) }

// h2ByHand runs such a server, which takes one request for a beginning.
func h2ByHand(t testing.TB, f func(w *h2Wire, id uint32)) (address string) {
	ln := must[net.Listener](t)(tls.Listen("tcp", "127.0.0.1:0", getSite(t).inner.Server()))
	var running sync.WaitGroup
	var n atomic.Int64
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				w := &h2Wire{Framer: http2.NewFramer(c, c), conn: c, n: n.Add(1)}
				if c.(*tls.Conn).Handshake() != nil {
					return
				}
				if w.h2 = c.(*tls.Conn).ConnectionState().NegotiatedProtocol == "h2"; !w.h2 {
					f(w, 0)
					return
				}
				if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				w.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 10}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 20 << 10})
				if id, err := w.next(); err == nil {
					f(w, id)
					for err == nil { // until the client closes
						_, err = w.next()
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		running.Wait()
	})
	return "https://" + ln.Addr().String()
}

// TestWhatAServerMayDo has a server do what makes a request go wrong: what it
// cannot have acted on, and what is harmless, is sent again; nothing else is.
func TestWhatAServerMayDo(t *testing.T) {
	t.Parallel()
	fine := func(w *h2Wire, id uint32) { w.head(id, true, ":status", "204") }
	first := func(f func(w *h2Wire, id uint32)) func(*h2Wire, uint32) {
		return func(w *h2Wire, id uint32) {
			if w.n > 1 {
				fine(w, id)
				return
			}
			f(w, id)
		}
	}
	for name, c := range map[string]struct {
		method string
		status int
		code   channel.Code // if status is 0
		serve  func(w *h2Wire, id uint32)
	}{
		"refused": {"POST", 204, 0, func(w *h2Wire, id uint32) {
			w.reset(id, http2.ErrCodeRefusedStream)
			if id, err := w.next(); err == nil {
				fine(w, id)
			}
		}},
		"refused for ever": {"POST", 0, channel.CodeUnreachable, func(w *h2Wire, id uint32) {
			for err := error(nil); err == nil; id, err = w.next() {
				w.reset(id, http2.ErrCodeRefusedStream)
			}
		}},
		"goes away before": {"POST", 204, 0, first(func(w *h2Wire, id uint32) { w.WriteGoAway(0, http2.ErrCodeNo, nil) })},
		"goes away behind": {"POST", 204, 0, func(w *h2Wire, id uint32) { w.WriteGoAway(id, http2.ErrCodeNo, nil); fine(w, id) }},
		"reset":            {"GET", 0, channel.CodeFailed, func(w *h2Wire, id uint32) { w.reset(id, http2.ErrCodeInternal) }},
		"closes, GET":      {"GET", 204, 0, first(func(w *h2Wire, _ uint32) { w.conn.Close() })},
		"closes, POST":     {"POST", 0, channel.CodeFailed, first(func(w *h2Wire, _ uint32) { w.conn.Close() })},
		"closes for ever":  {"GET", 0, channel.CodeUnreachable, func(w *h2Wire, _ uint32) { w.conn.Close() }},
		"garbage":          {"POST", 0, channel.CodeFailed, func(w *h2Wire, _ uint32) { io.WriteString(w.conn, "HTTP/1.1 400 Bad Request\r\n\r\n") }},
		"wants HTTP/1.1": {"POST", 200, 0, func(w *h2Wire, id uint32) {
			if !w.h2 {
				w.conn.Read(make([]byte, 64<<10))
				io.WriteString(w.conn, empty)
				return
			}
			w.reset(id, http2.ErrCodeHTTP11Required)
		}},
		"interim": {"POST", 204, 0, func(w *h2Wire, id uint32) {
			w.head(id, false, ":status", "103", "link", "x")
			fine(w, id)
		}},
		"asks for an answer": {"POST", 204, 0, func(w *h2Wire, id uint32) {
			w.WritePing(false, [8]byte{7})
			if f, err := w.ReadFrame(); err == nil && f.Header().Type == http2.FramePing && f.Header().Flags.Has(http2.FlagPingAck) {
				fine(w, id)
			}
		}},
		"trailers": {"POST", 200, 0, func(w *h2Wire, id uint32) {
			w.head(id, false, ":status", "200")
			w.WriteData(id, false, []byte("x"))
			w.head(id, true, "x-sum", "1")
		}},
		"no status":        {"POST", 0, channel.CodeFailed, func(w *h2Wire, id uint32) { w.head(id, true, "x", "y") }},
		"a status of four": {"POST", 0, channel.CodeFailed, func(w *h2Wire, id uint32) { w.head(id, true, ":status", "2000") }},
		"two lengths": {"POST", 0, channel.CodeFailed, func(w *h2Wire, id uint32) {
			w.head(id, true, ":status", "200", "content-length", "1", "content-length", "2")
		}},
		"a length with sign": {"POST", 0, channel.CodeFailed, func(w *h2Wire, id uint32) { w.head(id, true, ":status", "200", "content-length", "+1") }},
		"too short": {"POST", 0, channel.CodeFailed, func(w *h2Wire, id uint32) {
			w.head(id, false, ":status", "200", "content-length", "3")
			w.WriteData(id, true, []byte("x"))
		}},
		"too long": {"POST", 0, channel.CodeFailed, func(w *h2Wire, id uint32) {
			w.head(id, false, ":status", "200", "content-length", "3")
			w.WriteData(id, true, []byte("four"))
		}},
		"a push": {"POST", 0, channel.CodeFailed, func(w *h2Wire, id uint32) {
			w.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: []byte{0x88}, EndHeaders: true})
		}},
		"a body first": {"POST", 0, channel.CodeFailed, func(w *h2Wire, id uint32) { w.WriteData(id, true, []byte("x")) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, r := start(t, "/bgb", h2ByHand(t, c.serve))
			a := g.do(c.method, "/bgb/x", []byte(map[string]string{"POST": "body"}[c.method]))
			if c.status == 0 {
				failure(t, name, a, c.code)
			} else if a.status != c.status || a.err != nil {
				t.Errorf("%+v", a)
			}
			eventually(t, "nothing is under way", func() bool { return r.p.active.Load() == 0 && r.p.parked.Load() == 0 })
		})
	}
}

// TestCreditOfAnAnswer: a server that sends more than it may is cut off, and
// holds up no other request.
func TestCreditOfAnAnswer(t *testing.T) {
	t.Parallel()
	g, r := start(t, "/bgb", h2ByHand(t, func(w *h2Wire, id uint32) {
		other, err := w.next()
		if err != nil {
			return
		}
		w.head(id, false, ":status", "200")
		for range 64 { // 1 MiB that nobody reads
			w.WriteData(id, false, make([]byte, 16<<10))
		}
		w.head(other, true, ":status", "204")
	}))
	slow := g.begin("GET", "/bgb/slow", 0, nil, true)
	eventually(t, "it has a connection", func() bool { return r.firstH2() != nil })
	if a := g.do("GET", "/bgb/other", nil); a.status != 204 {
		t.Errorf("%+v", a)
	}
	a := finish(slow)
	if a.err == nil || len(a.body) > 256<<10 {
		t.Errorf("%d bytes, %v", len(a.body), a.err)
	}
}

// TestSilentServer: one that answers no PING is given up.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	g, r := start(t, "/bgb", h2ByHand(t, func(*h2Wire, uint32) {}))
	st := g.begin("POST", "/bgb/x", 4, []byte("body"), true)
	eventually(t, "it waits", func() bool { return r.p.parked.Load() == 1 })
	tend := func(in time.Duration) {
		for _, u := range r.p.live.Load().pool.all {
			u.h2.tend(time.Now().Add(in), time.Hour)
		}
	}
	eventually(t, "it is given up", func() bool {
		tend(h2Silent + time.Second)
		tend(h2Silent + h2PingTime + 2*time.Second)
		return r.p.parked.Load() == 0
	})
	failure(t, "a silent server", finish(st), channel.CodeFailed)
}
