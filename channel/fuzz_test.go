package channel

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// FuzzFrames feeds a session whatever a peer might send after its hello. It
// has to end without a panic, with every stream ended.
func FuzzFrames(f *testing.F) {
	frame := func(kind frameType, flags byte, id uint32, p string) []byte {
		return append(appendHeader(nil, len(p), kind, flags, id), p...)
	}
	f.Add(frame(frameRequest, flagEnd, 1, "\x01hbody"), false)
	f.Add(append(frame(frameRequest, 0, 1, "\x01h"), frame(frameData, flagEnd, 1, "body")...), false)
	f.Add(append(frame(frameResponse, 0, 1, "\x01h"), frame(frameReset, 0, 1, "\x00\x04why")...), true)
	f.Add(append(frame(frameResponse, flagEnd, 1, "\x01h"), frame(frameCredit, 0, 1, "\xff\xff\xff\xff")...), true)
	f.Add(append(frame(framePublish, 0, 0, "\x00\x00\x00\x00\x00\x00\x00\x01a"), frame(framePublish, flagEnd, 0, "\x00\x00\x00\x00\x00\x00\x00\x01b")...), true)
	f.Add(append(frame(frameGoAway, 0, 0, "\x00\x00\x00\x00bye"), frame(framePing, 0, 0, "12345678")...), true)
	f.Add(frame(frameStarted, 0, 1, ""), true)
	f.Add([]byte{0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 1}, false)
	f.Fuzz(func(t *testing.T, in []byte, outside bool) {
		a, b := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			greet(b, hello{min: 1, max: 1, streams: 10, credit: 100}, !outside)
			wg.Go(func() { io.Copy(io.Discard, b) })
			b.Write(in)
			b.Close()
		})
		cfg := Config{
			Handler:      func(st *Stream) { wg.Go(func() { echo(st) }) },
			Published:    func(uint64, []byte) error { return nil },
			Acknowledged: func(uint64, string) {},
		}
		s, err := begin(a, cfg, outside)
		if err != nil {
			t.Fatal(err)
		}
		if outside {
			for range 3 {
				if st, err := s.Open([]byte("head"), nil, true); err == nil {
					wg.Go(func() { bodyAfterHead(st); st.Close() })
				}
			}
		}
		s.Run(context.Background())
		wg.Wait()
		if n := s.InFlight(); n != 0 {
			t.Fatalf("%d streams are left", n)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(hello{min: 1, max: 1, credit: 5, streams: 7, published: 9, name: "n", connection: "c"}.append(nil)[frameHeader:])
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := parseHello(in)
		if err != nil {
			return
		}
		back, err := parseHello(h.append(nil)[frameHeader:])
		if err != nil || back != h {
			t.Fatalf("%+v came back as %+v, %v", h, back, err)
		}
	})
}

func BenchmarkSmall(b *testing.B) {
	out, _ := sessions(b, true, Config{}, Config{Handler: serve(b, echo)})
	head, p := noise(400), noise(512)
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := exchange(out, string(head), p); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkLarge(b *testing.B) {
	data := noise(8 << 20)
	out, _ := sessions(b, true, Config{}, Config{Handler: serve(b, func(st *Stream) {
		st.Respond([]byte("h"), nil, false)
		st.WriteEnd(data)
		st.Close()
	})})
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		st, err := out.Open([]byte("x"), nil, true)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := st.Head(); err != nil {
			b.Fatal(err)
		}
		st.First()
		for {
			if _, err := st.Next(); err != nil {
				break
			}
		}
		st.Close()
	}
}
