package gateway

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/opencmg/cmg/h1"
)

// TestUnknownLength passes an answer of unknown length on in pieces as large
// as the window, with silences between them long enough to be parked.
func TestUnknownLength(t *testing.T) {
	t.Parallel()
	piece := noise(64 << 10)
	r, _ := start(t, func(q *request) {
		q.begin(200, h1.Chunked, nil, false)
		for i := range 32 {
			if i%8 == 7 {
				time.Sleep(30 * time.Millisecond)
			}
			if _, err := q.st.Write(piece); err != nil {
				t.Error(err)
				return
			}
		}
		q.st.WriteEnd(nil)
	})
	for _, h2 := range []bool{false, true} {
		_, b := do(t, r.client(&r.site.device, h2), r.request("GET", "/any/x", nil))
		sameBytes(t, "the answer", b, bytes.Repeat(piece, 32))
	}
}

// TestClientLeavesSilence: a client that leaves while an answer has nothing to
// say is noticed at the inside.
func TestClientLeavesSilence(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(*wire){
		"with a goodbye": func(w *wire) { w.Close() },
		"without":        func(w *wire) { w.NetConn().Close() },
	} {
		t.Run(name, func(t *testing.T) {
			left := make(chan error, 1)
			r, _ := start(t, func(q *request) {
				q.begin(200, h1.Chunked, []byte("data: 1\n\n"), false, "Content-Type", "text/event-stream")
				for q.st.Err() == nil {
					<-q.st.Ready()
				}
				left <- q.st.Err()
			})
			w := r.dial(&r.site.device)
			w.send("GET /any/x HTTP/1.1\r\nHost: a\r\n\r\n")
			head := make([]byte, 1)
			if _, err := io.ReadFull(w.br, head); err != nil {
				t.Fatal(err)
			}
			leave(w)
			within(t, "the inside hears of it", left)
			eventually(t, "nothing is left", func() bool { return r.gw.counts.inFlight.Load() == 0 })
		})
	}
}
