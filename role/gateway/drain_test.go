package gateway

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg/h1"
)

// A recorder keeps an answer of the status page.
type recorder struct {
	b      bytes.Buffer
	h      http.Header
	status int
}

func newRecorder() *recorder                        { return &recorder{h: http.Header{}, status: 200} }
func (w *recorder) Header() http.Header             { return w.h }
func (w *recorder) WriteHeader(status int)          { w.status = status }
func (w *recorder) Write(b []byte) (n int, e error) { return w.b.Write(b) }

// TestDrain tells a gateway to stop while requests are under way: they are
// answered, each is told that the connection ends, and nothing is left.
func TestDrain(t *testing.T) {
	here := goleak.IgnoreCurrent()
	t.Run("", func(t *testing.T) {
		release := make(chan bool)
		r, in := start(t, func(q *request) {
			<-release
			echo(q)
		})
		idle := r.dial(&r.site.device)
		silent := must[net.Conn](t)(net.Dial("tcp", r.clients)) // never makes a handshake
		defer silent.Close()
		under := r.dial(&r.site.device)
		under.send("GET /any/x HTTP/1.1\r\nHost: g\r\n\r\n")
		second := make(chan *http.Response, 1)
		go func() {
			resp, err := r.client(&r.site.device, true).Do(r.request("GET", "/any/x", nil))
			if err != nil {
				t.Error(err)
			}
			second <- resp
		}()
		half := r.dial(&r.site.device) // a request that is just arriving
		half.send("GET /any/x HT")
		eventually(t, "two requests are under way", func() bool { return in.streams.Load() == 2 })
		eventually(t, "the third has begun", func() bool {
			busy := 0
			r.gw.clients.each(func(c *client) {
				if !c.idle.Load() {
					busy++
				}
			})
			return busy == 2 // with the one over HTTP/1.1
		})

		r.stop()
		idle.over()
		eventually(t, "nobody is let in", func() bool {
			c, err := net.Dial("tcp", r.clients)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		half.send("TP/1.1\r\nHost: g\r\n\r\n")
		eventually(t, "the third arrives", func() bool { return in.streams.Load() == 3 })
		close(release)
		for _, w := range []*wire{under, half} {
			if resp, _ := w.read("GET"); resp.StatusCode != 200 || !resp.Close {
				t.Errorf("%s, close %v", resp.Status, resp.Close)
			}
			w.over()
		}
		if resp := within(t, "the answer over h2", second); resp == nil || resp.StatusCode != 200 {
			t.Error(resp)
		} else {
			resp.Body.Close()
		}
		began := time.Now()
		within(t, "Run returns", r.done)
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("after the last answer it took %v", d)
		}
	})
	goleak.VerifyNone(t, here)
}

// TestDrainEnds gives requests up that take longer than the drain: parked
// ones, half answered ones, uploads that do not come.
func TestDrainEnds(t *testing.T) {
	here := goleak.IgnoreCurrent()
	t.Run("", func(t *testing.T) {
		conf := getSite(t).config(t)
		conf.Drain = 300 * time.Millisecond
		r := run(t, conf)
		in := r.connect("cp-1", func(q *request) {
			q.st.First()
			if string(q.head.Path) == "/any/half" {
				q.begin(200, h1.Chunked, []byte("half"), false)
			}
			gone := make(chan bool)
			var once sync.Once
			q.st.Notify(func() {
				if q.st.Err() != nil {
					once.Do(func() { close(gone) })
				}
			})
			<-gone
		})
		in.publish(r.site.publication(t, 1))
		var clients sync.WaitGroup
		for _, h2 := range []bool{false, true} {
			for _, path := range []string{"/any/parked", "/any/half"} {
				clients.Go(func() {
					resp, err := r.client(&r.site.device, h2).Do(r.request("GET", path, nil))
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						resp.Body.Close()
					}
					if err == nil {
						t.Errorf("%s h2=%v: the answer came to an end", path, h2)
					}
				})
			}
		}
		upload := r.dial(&r.site.device)
		upload.send("POST /any/up HTTP/1.1\r\nHost: g\r\nContent-Length: 1000000\r\n\r\n")
		talks := r.dial(&r.site.device) // the next request is there already: it cannot be parked
		talks.send("GET /any/parked HTTP/1.1\r\nHost: g\r\n\r\nGET /any/x")
		eventually(t, "six are under way", func() bool { return in.streams.Load() == 6 })
		began := time.Now()
		r.stop()
		within(t, "Run returns", r.done)
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("it took %v", d)
		}
		clients.Wait()
	})
	goleak.VerifyNone(t, here)
}

// TestSlots turns away clients beyond the limit and lets others in when some
// have gone.
func TestSlots(t *testing.T) {
	t.Parallel()
	conf := getSite(t).config(t)
	conf.MaxConnections = 3
	r := run(t, conf)
	r.connect("cp-1", echo).publish(r.site.publication(t, 1))
	held := []*wire{r.dial(&r.site.device), r.dial(&r.site.device), r.dial(&r.site.device)}
	if c, err := tls.Dial("tcp", r.clients, r.settings(nil)); err == nil {
		c.Close()
		t.Error("a fourth client was let in")
	}
	if n := r.gw.counts.shed.Load(); n != 1 {
		t.Errorf("%d turned away", n)
	}
	for _, w := range held {
		w.Close()
	}
	eventually(t, "there is room", func() bool { return len(r.gw.clients.slots) == 0 })
	for _, h2 := range []bool{true, false} { // HTTP/2 gives its slot back as well
		c := r.client(&r.site.device, h2)
		if resp, _ := do(t, c, r.request("GET", "/any/x", nil)); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
		c.CloseIdleConnections()
	}
	eventually(t, "all are gone", func() bool { return len(r.gw.clients.slots) == 0 })
}
