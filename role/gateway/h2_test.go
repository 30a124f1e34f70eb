package gateway

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// An h2Peer is a client that writes what frames a test likes.
type h2Peer struct {
	*http2.Framer
	t    testing.TB
	conn *tls.Conn
	enc  *hpack.Encoder
	head bytes.Buffer
}

// h2Dial greets the gateway; settings are the client's.
func (r *running) h2Dial(settings ...http2.Setting) *h2Peer {
	r.t.Helper()
	c := must[*tls.Conn](r.t)(tls.Dial("tcp", r.clients, r.settings(&r.site.device, "h2")))
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	p := &h2Peer{Framer: http2.NewFramer(c, c), t: r.t, conn: c}
	p.enc = hpack.NewEncoder(&p.head)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.AllowIllegalWrites = true
	p.do(errOf(io.WriteString(c, http2.ClientPreface)), p.WriteSettings(settings...))
	return p
}

func errOf(_ int, err error) error { return err }

func (p *h2Peer) do(errs ...error) {
	p.t.Helper()
	if err := errors.Join(errs...); err != nil {
		p.t.Fatal(err)
	}
}

// block packs fields, name by value.
func (p *h2Peer) block(fields ...string) []byte {
	p.head.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return slices.Clone(p.head.Bytes())
}

func h2Get(path string, more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "https", ":path", path, ":authority", "gw.cmg.test"}, more...)
}

// ask sends a head that ends its stream, unless open.
func (p *h2Peer) ask(id uint32, open bool, fields ...string) error {
	return p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(fields...), EndHeaders: true, EndStream: !open})
}

// until reads frames up to one that f takes.
func (p *h2Peer) until(what string, f func(http2.Frame) bool) {
	p.t.Helper()
	for {
		got, err := p.ReadFrame()
		if err != nil {
			p.t.Fatalf("%s: %v", what, err)
		}
		if f(got) {
			return
		}
	}
}

// answer gives the status and the body of a stream's answer.
func (p *h2Peer) answer(id uint32) (status string, body string) {
	p.t.Helper()
	p.until("the answer", func(f http2.Frame) bool {
		if f.Header().StreamID != id {
			return false
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			status = f.PseudoValue("status")
			return f.StreamEnded()
		case *http2.DataFrame:
			body += string(f.Data())
			return f.StreamEnded()
		}
		return false
	})
	return status, body
}

// TestH2Faults breaks the rules of RFC 9113 one by one: what is wrong with a
// stream ends the stream, and the connection goes on.
func TestH2Faults(t *testing.T) {
	r, _ := start(t, echo)
	frame := func(kind http2.FrameType, flags http2.Flags, id uint32, payload string) func(*h2Peer) error {
		return func(p *h2Peer) error { return p.WriteRawFrame(kind, flags, id, []byte(payload)) }
	}
	head := func(open bool, fields ...string) func(*h2Peer) error {
		return func(p *h2Peer) error { return p.ask(1, open, fields...) }
	}
	both := func(all ...func(*h2Peer) error) func(*h2Peer) error {
		return func(p *h2Peer) (err error) {
			for _, f := range all {
				err = errors.Join(err, f(p))
			}
			return err
		}
	}
	open := head(true, h2Get("/any/x", "content-length", "3")...)
	whole := head(false, h2Get("/any/x")...)
	for _, tt := range []struct {
		name   string
		send   func(*h2Peer) error
		stream bool
		code   http2.ErrCode
	}{
		{"a frame too large", frame(http2.FrameData, 0, 1, strings.Repeat("x", 16385)), false, http2.ErrCodeFrameSize},
		{"DATA of no stream", frame(http2.FrameData, 0, 0, "x"), false, http2.ErrCodeProtocol},
		{"DATA of an idle stream", frame(http2.FrameData, 0, 7, "x"), false, http2.ErrCodeProtocol},
		{"DATA behind the end", both(whole, frame(http2.FrameData, 0, 1, "x")), true, http2.ErrCodeStreamClosed},
		{"padding over its frame", both(open, frame(http2.FrameData, 0x8, 1, "\x05abc")), false, http2.ErrCodeProtocol},
		{"a body too long", both(open, frame(http2.FrameData, 0, 1, "abcd")), true, http2.ErrCodeProtocol},
		{"a body too short", both(open, frame(http2.FrameData, 0x1, 1, "ab")), true, http2.ErrCodeProtocol},
		{"a head with an even number", frame(http2.FrameHeaders, 0x5, 2, ""), false, http2.ErrCodeProtocol},
		{"a head that cannot be unpacked", frame(http2.FrameHeaders, 0x5, 1, "\xff\xff\xff\xff\xff"), false, http2.ErrCodeCompression},
		{"a head cut short", frame(http2.FrameHeaders, 0x5, 1, "\x00\x05ab"), false, http2.ErrCodeCompression},
		{"another frame within a head", both(frame(http2.FrameHeaders, 0x1, 1, "\x82"), frame(http2.FramePing, 0, 0, "12345678")), false, http2.ErrCodeProtocol},
		{"a continuation of nothing", frame(http2.FrameContinuation, 0x4, 1, ""), false, http2.ErrCodeProtocol},
		{"a stream that waits for itself", frame(http2.FramePriority, 0, 1, "\x00\x00\x00\x01\x00"), true, http2.ErrCodeProtocol},
		{"PRIORITY too short", frame(http2.FramePriority, 0, 1, "\x00"), true, http2.ErrCodeFrameSize},
		{"RST_STREAM of an idle stream", frame(http2.FrameRSTStream, 0, 1, "\x00\x00\x00\x00"), false, http2.ErrCodeProtocol},
		{"RST_STREAM too short", both(open, frame(http2.FrameRSTStream, 0, 1, "\x00")), false, http2.ErrCodeFrameSize},
		{"SETTINGS of a stream", frame(http2.FrameSettings, 0, 1, ""), false, http2.ErrCodeProtocol},
		{"SETTINGS too short", frame(http2.FrameSettings, 0, 0, "\x00\x01"), false, http2.ErrCodeFrameSize},
		{"an answer to SETTINGS that says something", frame(http2.FrameSettings, 0x1, 0, "123456"), false, http2.ErrCodeFrameSize},
		{"settings without end", frame(http2.FrameSettings, 0, 0, strings.Repeat("\x00\x04\x00\x00\x00\x00", 65)), false, http2.ErrCodeEnhanceYourCalm},
		{"ENABLE_PUSH of 2", frame(http2.FrameSettings, 0, 0, "\x00\x02\x00\x00\x00\x02"), false, http2.ErrCodeProtocol},
		{"a window too large from the start", frame(http2.FrameSettings, 0, 0, "\x00\x04\x80\x00\x00\x00"), false, http2.ErrCodeFlowControl},
		{"frames too small", frame(http2.FrameSettings, 0, 0, "\x00\x05\x00\x00\x00\x00"), false, http2.ErrCodeProtocol},
		{"PING too short", frame(http2.FramePing, 0, 0, "1"), false, http2.ErrCodeFrameSize},
		{"PING of a stream", frame(http2.FramePing, 0, 1, "12345678"), false, http2.ErrCodeProtocol},
		{"GOAWAY of a stream", frame(http2.FrameGoAway, 0, 1, "12345678"), false, http2.ErrCodeProtocol},
		{"a push", frame(http2.FramePushPromise, 0x4, 1, "\x00\x00\x00\x02"), false, http2.ErrCodeProtocol},
		{"a window that grows by nothing", both(open, frame(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x00")), true, http2.ErrCodeProtocol},
		{"a window too large", frame(http2.FrameWindowUpdate, 0, 0, "\x7f\xff\xff\xff"), false, http2.ErrCodeFlowControl},
		{"a stream's window too large", both(open, frame(http2.FrameWindowUpdate, 0, 1, "\x7f\xff\xff\xff")), true, http2.ErrCodeFlowControl},
		{"large letters", head(false, h2Get("/any/x", "X-Large", "1")...), true, http2.ErrCodeProtocol},
		{"no path", head(false, ":method", "GET", ":scheme", "https"), true, http2.ErrCodeProtocol},
		{"an empty path", head(false, h2Get("")...), true, http2.ErrCodeProtocol},
		{"a path twice", head(false, h2Get("/any/x", ":path", "/other")...), true, http2.ErrCodeProtocol},
		{"a pseudo-header nobody knows", head(false, h2Get("/any/x", ":status", "200")...), true, http2.ErrCodeProtocol},
		{"a pseudo-header behind a field", head(false, ":method", "GET", "a", "b", ":path", "/", ":scheme", "https"), true, http2.ErrCodeProtocol},
		{"Connection", head(false, h2Get("/any/x", "connection", "close")...), true, http2.ErrCodeProtocol},
		{"Transfer-Encoding", head(true, h2Get("/any/x", "transfer-encoding", "chunked")...), true, http2.ErrCodeProtocol},
		{"TE", head(false, h2Get("/any/x", "te", "gzip")...), true, http2.ErrCodeProtocol},
		{"two lengths", head(true, h2Get("/any/x", "content-length", "1", "content-length", "2")...), true, http2.ErrCodeProtocol},
		{"a length without a body", head(false, h2Get("/any/x", "content-length", "1")...), true, http2.ErrCodeProtocol},
		{"a second head", both(open, open), true, http2.ErrCodeProtocol},
		{"trailers with a pseudo-header", both(open, head(false, ":method", "GET")), true, http2.ErrCodeProtocol},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := r.h2Dial()
			p.t = t
			p.do(tt.send(p))
			p.until("the refusal", func(f http2.Frame) bool {
				switch f := f.(type) {
				case *http2.GoAwayFrame:
					if tt.stream || f.ErrCode != tt.code {
						t.Errorf("GOAWAY %v, want %v (of the stream: %v)", f.ErrCode, tt.code, tt.stream)
					}
					return true
				case *http2.RSTStreamFrame:
					if !tt.stream || f.ErrCode != tt.code {
						t.Errorf("RST_STREAM %v, want %v (of the stream: %v)", f.ErrCode, tt.code, tt.stream)
					}
					return true
				}
				return false
			})
			if tt.stream {
				p.do(p.ask(9, false, h2Get("/any/again")...))
				if status, _ := p.answer(9); status != "200" {
					t.Errorf("the next request: %s", status)
				}
			} else if _, err := io.Copy(io.Discard, p.conn); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("the connection stays: %v", err)
			}
		})
	}
}

// TestH2Windows has a client take an answer in crumbs, and in frames no larger
// than it wants.
func TestH2Windows(t *testing.T) {
	want := string(noise(40 << 10))
	r, _ := start(t, func(q *request) { q.answer(200, []byte(want)) })
	p := r.h2Dial(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5})
	p.do(p.ask(1, false, h2Get("/any/x")...))
	var got bytes.Buffer
	p.until("the answer", func(f http2.Frame) bool {
		d, ok := f.(*http2.DataFrame)
		if !ok {
			return false
		}
		if got.Len() == 0 && len(d.Data()) != 5 {
			t.Errorf("the first piece has %d bytes, want 5", len(d.Data()))
		}
		if got.Write(d.Data()); !d.StreamEnded() {
			p.do(p.WriteWindowUpdate(1, 9<<10))
		}
		return d.StreamEnded()
	})
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Error("the body is another")
	}
}

// TestH2Floods has a client send what asks for nothing, as fast as it can.
func TestH2Floods(t *testing.T) {
	r, _ := start(t, hold)
	for name, send := range map[string]func(p *h2Peer, i int) error{
		"PING":     func(p *h2Peer, i int) error { return p.WritePing(false, [8]byte{}) },
		"SETTINGS": func(p *h2Peer, i int) error { return p.WriteSettings() },
		"PRIORITY": func(p *h2Peer, i int) error { return p.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"streams that are reset": func(p *h2Peer, i int) error {
			id := uint32(2*i + 1)
			return errors.Join(p.ask(id, false, h2Get("/any/x")...), p.WriteRSTStream(id, http2.ErrCodeCancel))
		},
		"heads that break the rules": func(p *h2Peer, i int) error { return p.ask(uint32(2*i+1), false, ":method", "GET") },
	} {
		t.Run(name, func(t *testing.T) {
			p := r.h2Dial()
			p.t = t
			go func() {
				for i := range 4 * h2Fouls {
					if send(p, i) != nil {
						return // refused
					}
				}
			}()
			p.until("the refusal", func(f http2.Frame) bool {
				g, ok := f.(*http2.GoAwayFrame)
				if ok && g.ErrCode != http2.ErrCodeEnhanceYourCalm {
					t.Errorf("GOAWAY %v", g.ErrCode)
				}
				return ok
			})
		})
	}
}

// hold answers nothing before the other end gives up.
func hold(q *request) {
	for q.st.Err() == nil {
		<-q.st.Ready()
	}
}

// TestH2TooManyStreams refuses streams beyond the limit, and those only.
func TestH2TooManyStreams(t *testing.T) {
	r, _ := start(t, hold)
	p := r.h2Dial()
	for i := range h2Streams + 1 {
		p.do(p.ask(uint32(2*i+1), false, h2Get("/any/x")...))
	}
	p.until("the refusal", func(f http2.Frame) bool {
		x, ok := f.(*http2.RSTStreamFrame)
		if ok && (x.ErrCode != http2.ErrCodeRefusedStream || x.StreamID != 2*h2Streams+1) {
			t.Errorf("RST_STREAM %v of %d", x.ErrCode, x.StreamID)
		}
		return ok
	})
}

// TestH2Heads has cookies come in crumbs, a head in many frames, and an answer
// whose head is larger than a frame.
func TestH2Heads(t *testing.T) {
	long := strings.Repeat("v", 20<<10)
	r, _ := start(t, func(q *request) {
		var text strings.Builder
		for _, f := range q.head.Fields {
			if n := string(f.Name); n == "Cookie" || n == "X-One-Of-Mine" || n == "Content-Type" {
				fmt.Fprintf(&text, "%s: %s\n", n, f.Value)
			}
		}
		q.answer(200, []byte(text.String()), "X-Long", long, "X-Longer", long)
	})
	p := r.h2Dial()
	block := p.block(h2Get("/any/x", "cookie", "a=1", "x-one-of-mine", "yes", "content-type", "text/plain", "cookie", "b=2")...)
	p.do(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:10], EndStream: true}))
	for i := 10; i < len(block); i++ {
		p.do(p.WriteContinuation(1, i == len(block)-1, block[i:i+1]))
	}
	var names []string
	var body string
	p.until("the answer", func(f http2.Frame) bool {
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			for _, x := range f.RegularFields() {
				if x.Value == long {
					names = append(names, x.Name)
				}
			}
		case *http2.DataFrame:
			body += string(f.Data())
			return f.StreamEnded()
		}
		return false
	})
	if diff := cmp.Diff([]string{"x-long", "x-longer"}, names); diff != "" {
		t.Errorf("fields of the answer: %s", diff)
	}
	if diff := cmp.Diff("X-One-Of-Mine: yes\nContent-Type: text/plain\nCookie: a=1; b=2\n", body); diff != "" {
		t.Errorf("fields of the request: %s", diff)
	}
}
