package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// FuzzH2 feeds a connection's reader with anything. What it holds has to stay
// within its bounds, and what it takes for a request has to be one.
func FuzzH2(f *testing.F) {
	seed := func(write func(*http2.Framer)) {
		var b bytes.Buffer
		fr := http2.NewFramer(&b, nil)
		fr.AllowIllegalWrites = true
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		write(fr)
		f.Add(b.Bytes())
	}
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, x := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", "/any/x?y"}, {":authority", "gw"}, {"cookie", "a"}, {"content-length", "3"}} {
		enc.WriteField(hpack.HeaderField{Name: x[0], Value: x[1]})
	}
	seed(func(fr *http2.Framer) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true, PadLength: 3, Priority: http2.PriorityParam{StreamDep: 5, Weight: 1}})
		fr.WriteData(1, false, []byte("ab"))
		fr.WriteDataPadded(1, true, []byte("c"), []byte{0, 0})
		fr.WriteRSTStream(1, http2.ErrCodeCancel)
	})
	seed(func(fr *http2.Framer) {
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: head.Bytes()[:4]})
		fr.WriteContinuation(3, true, head.Bytes()[4:])
		fr.WritePing(false, [8]byte{})
		fr.WriteWindowUpdate(3, 100)
		fr.WritePriority(5, http2.PriorityParam{StreamDep: 3})
		fr.WriteGoAway(0, http2.ErrCodeNo, nil)
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		g := &Gateway{limits: usual(), log: slog.New(slog.DiscardHandler)}
		wire := channel.NewGather(near, 0)
		c := newH2Conn(newH2Front(g), tls.Server(wire, &tls.Config{}), wire, &tls.ConnectionState{})
		c.br = bufio.NewReaderSize(io.LimitReader(bytes.NewReader(data), 1<<20), h2ReadBuffer)
		c.writing = true // nobody writes: out is looked at here
		for {
			st, err := c.next()
			if fault, ok := err.(*h2Fault); ok && fault.stream != 0 {
				c.breakStream(fault)
				err = c.foul()
			}
			if err != nil {
				break
			}
			if st != nil && st.bad == nil {
				var again h1.Request
				if err := again.ParseCompact(st.req.AppendCompact(nil)); err != nil {
					t.Fatalf("took %q %q: %v", st.req.Method, st.req.Target, err)
				}
			}
			held := int64(0)
			for _, st := range c.streams {
				held += int64(len(st.buf))
			}
			if len(c.streams) > h2Streams || held > h2ConnWindow || len(c.out) > h2HardWater+h2MaxFrame {
				t.Fatalf("%d streams, %d bytes of bodies, %d of frames", len(c.streams), held, len(c.out))
			}
		}
	})
}

// TestH2Pack has what we pack unpacked by another hand.
func TestH2Pack(t *testing.T) {
	for _, status := range []int{100, 200, 204, 304, 404, 418, 599} {
		for _, n := range []int{0, 1, 126, 127, 128, 255, 16383, 16384, 60000} {
			value := bytes.Repeat([]byte("v"), n)
			c := &h2Conn{}
			c.appendStatus(status)
			c.out = appendField(c.out, []byte("Content-Type"), value)
			c.out = appendField(c.out, append([]byte("X-"), bytes.Repeat([]byte("n"), 200)...), value)
			got, err := hpack.NewDecoder(0, nil).DecodeFull(c.out)
			if err != nil || len(got) != 3 || got[0].Name != ":status" || got[0].Value != http2Status(status) || got[1].Name != "content-type" || got[1].Value != string(value) ||
				len(got[2].Name) != 202 || got[2].Value != string(value) {
				t.Fatalf("status %d, %d bytes: %d fields, %v", status, n, len(got), err)
			}
		}
	}
	for name, n := range packedNames {
		got, err := hpack.NewDecoder(0, nil).DecodeFull(appendIndexed(nil, n, []byte("v")))
		if err != nil || len(got) != 1 || got[0].Name != name {
			t.Errorf("%s is packed as %v, %v", name, got, err)
		}
	}
}

func http2Status(n int) string {
	return string([]byte{byte('0' + n/100), byte('0' + n/10%10), byte('0' + n%10)})
}
