package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/web"
)

// TestLongPoll answers after more than a second: parked requests get their
// answers, and their connections serve the next one.
func TestLongPoll(t *testing.T) {
	t.Parallel()
	r, _ := start(t, func(q *request) {
		if string(q.head.Path) == "/any/poll" {
			<-time.After(1100 * time.Millisecond)
		}
		echo(q)
	})
	var wg sync.WaitGroup
	for _, h2 := range []bool{false, true} {
		for _, body := range []string{"", "with a body"} {
			c := r.client(&r.site.device, h2)
			wg.Go(func() {
				for _, path := range []string{"/any/poll", "/any/x"} {
					resp, err := c.Do(r.request("POST", path, strings.NewReader(body)))
					if err != nil {
						t.Error(err)
						return
					}
					b, err := io.ReadAll(resp.Body)
					if resp.Body.Close(); resp.StatusCode != 200 || string(b) != body || err != nil {
						t.Errorf("%s: %s, %q, %v", path, resp.Status, b, err)
					}
				}
			})
		}
	}
	defer wg.Wait()
	w := r.dial(&r.site.device) // the next request before this one's answer
	w.send("GET /any/poll HTTP/1.1\r\nHost: g\r\n\r\n")
	<-time.After(100 * time.Millisecond)
	w.send("GET /any/next HTTP/1.1\r\nHost: g\r\n\r\n")
	for _, want := range []string{"/any/poll", "/any/next"} {
		if resp, _ := w.read("GET"); resp.Header.Get("X-Target") != want {
			t.Errorf("answer to %s, want %s", resp.Header.Get("X-Target"), want)
		}
	}
}

// TestSlowNext has the first byte of the next request come while this one is
// parked, and no more: it is not waited for without end.
func TestSlowNext(t *testing.T) {
	t.Parallel()
	release := make(chan bool)
	r, in := start(t, func(q *request) {
		<-release
		echo(q)
	}, func(g *Gateway) { g.limits.head = 150 * time.Millisecond })
	w := r.dial(&r.site.device)
	w.send("GET /any/x HTTP/1.1\r\nHost: g\r\n\r\n")
	eventually(t, "it is under way", func() bool { return in.streams.Load() == 1 })
	<-time.After(3 * r.gw.limits.park)
	w.send("G")
	<-time.After(r.gw.limits.park)
	close(release)
	for _, want := range []string{"200 OK", "408 CMGService_Head_Timeout"} {
		if resp, _ := w.read("GET"); resp.Status != want {
			t.Errorf("%s, want %s", resp.Status, want)
		}
	}
	w.over()
}

// TestClientLeaves shows that the inside learns at once that nobody waits:
// while the request is parked, and over HTTP/2 also in the middle of an
// answer.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	arrived, ended := make(chan bool, 1), make(chan error, 1)
	r, _ := start(t, func(q *request) {
		if string(q.head.Path) == "/any/half" {
			q.begin(200, h1.Chunked, []byte("half"), false)
		}
		q.st.First()
		gone := make(chan bool, 1)
		q.st.Notify(func() {
			if q.st.Err() != nil {
				select {
				case gone <- true:
				default:
				}
			}
		})
		arrived <- true
		<-gone
		ended <- q.st.Err()
	})
	for _, c := range []struct {
		h2   bool
		path string
	}{{false, "/any/poll"}, {true, "/any/poll"}, {true, "/any/half"}} {
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan bool)
		go func() {
			defer close(done)
			if resp, err := r.client(&r.site.device, c.h2).Do(r.request("GET", c.path, nil).WithContext(ctx)); err == nil {
				io.ReadAll(resp.Body)
				resp.Body.Close()
			}
		}()
		within(t, "the request arrives", arrived)
		<-time.After(2 * r.gw.limits.park)
		leave()
		began := time.Now()
		var e *channel.StreamError
		if err := within(t, "the stream is cancelled", ended); !errors.As(err, &e) || e.Code != channel.CodeCancelled {
			t.Errorf("%+v: %v", c, err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("%+v: after %v", c, d)
		}
		within(t, "the client ends", done)
	}
	eventually(t, "nothing is in flight", func() bool { return r.gw.counts.inFlight.Load() == 0 })
	if n := r.gw.counts.aborted.Load(); n != 3 {
		t.Errorf("%d aborted, refused: %v", n, r.gw.counts.refusalRows())
	}
}

// TestEarlyAnswer answers while the client still sends: it reads the answer,
// whether it goes on sending or waits for it.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	const sent = 96 << 10
	ended := make(chan error, 1)
	r, _ := start(t, func(q *request) {
		q.take(sent)
		q.answer(413, []byte("too much"))
		var err error
		for err == nil { // what was on its way
			_, err = q.st.Next()
		}
		ended <- err
	})
	for _, h2 := range []bool{false, true} {
		for _, going := range []bool{false, true} {
			pr, pw := io.Pipe()
			go func() {
				b := noise(32 << 10)
				for n := 0; n < sent || going; n += len(b) {
					if _, err := pw.Write(b); err != nil {
						return
					}
				}
			}()
			q := r.request("POST", "/any/x", pr)
			resp, body := do(t, r.client(&r.site.device, h2), q)
			if resp.StatusCode != 413 || string(body) != "too much" {
				t.Errorf("h2=%v going on %v: %s %q", h2, going, resp.Status, body)
			}
			pr.Close()
			within(t, "the inside is left alone", ended)
		}
	}
}

// TestBrokenUpload has the stream fail while the client keeps its body back.
func TestBrokenUpload(t *testing.T) {
	t.Parallel()
	const sent = 100 << 10
	r, _ := start(t, func(q *request) {
		q.st.Started(true)
		q.take(sent)
		q.st.Reset(channel.CodeFailed, "the server went away")
	})
	for _, h2 := range []bool{false, true} {
		pr, pw := io.Pipe()
		go pw.Write(noise(sent))
		resp, _ := do(t, r.client(&r.site.device, h2), r.request("POST", "/any/x", pr))
		if resp.StatusCode != 502 || resp.Header.Get(web.RefusalHeader) != "CMGConnector_Failed" {
			t.Errorf("h2=%v: %s", h2, resp.Status)
		}
		pr.Close()
	}
}

// TestSlowClients shows that heads and bodies that do not come are ended,
// with a word.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 8)
	r, in := start(t, func(q *request) {
		_, err := q.body()
		ended <- err
	}, func(g *Gateway) {
		g.limits.head, g.limits.body, g.limits.idle = 150*time.Millisecond, 150*time.Millisecond, 300*time.Millisecond
	})
	for name, c := range map[string]struct {
		text, status string
		inside       bool
	}{
		"slow head":       {"GET /any/x HTTP/1.1\r\nHos", "408 CMGService_Head_Timeout", false},
		"slow small body": {"POST /any/x HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\nabc", "408 CMGService_Body_Timeout", false},
		"slow large body": {"POST /any/x HTTP/1.1\r\nHost: g\r\nContent-Length: 100000\r\n\r\nabc", "408 CMGService_Body_Timeout", true},
		"slow chunk":      {"POST /any/x HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "408 CMGService_Body_Timeout", false},
	} {
		t.Run(name, func(t *testing.T) {
			before := in.streams.Load()
			w := r.dial(&r.site.device)
			w.send(c.text)
			if resp, _ := w.read("POST"); resp.Status != c.status || !resp.Close {
				t.Errorf("%s, close %v, want %s", resp.Status, resp.Close, c.status)
			}
			w.over()
			if c.inside {
				if err := within(t, "the inside hears of it", ended); err == nil {
					t.Error("the inside took half a body for a whole one")
				}
			}
			if (in.streams.Load() != before) != c.inside {
				t.Errorf("%d streams", in.streams.Load()-before)
			}
		})
	}
	t.Run("slow body, h2", func(t *testing.T) {
		pr, pw := io.Pipe()
		defer pr.Close()
		go pw.Write([]byte("abc"))
		resp, _ := do(t, r.client(&r.site.device, true), r.request("POST", "/any/x", pr))
		if resp.StatusCode != 408 || resp.Header.Get(web.RefusalHeader) != "CMGService_Body_Timeout" {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
	})
	t.Run("idle", func(t *testing.T) {
		w := r.dial(&r.site.device)
		w.over()
	})
}

// TestSlowReader shows that a client that does not read its answer is ended,
// and over HTTP/2 only the stream it does not read.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	ended := make(chan error, 1)
	r, _ := start(t, func(q *request) {
		if string(q.head.Path) == "/any/x" {
			echo(q)
			return
		}
		err := q.begin(200, 64<<20, nil, false)
		for b := noise(32 << 10); err == nil; {
			_, err = q.st.Write(b)
		}
		ended <- err
	}, func(g *Gateway) { g.limits.write = 200 * time.Millisecond })
	for _, h2 := range []bool{false, true} {
		c := r.client(&r.site.device, h2)
		began := time.Now()
		resp := must[*http.Response](t)(c.Do(r.request("GET", "/any/large", nil)))
		if err := within(t, "the inside is told", ended); err == nil || time.Since(began) > patience/2 {
			t.Errorf("a client that reads nothing: %v after %v", err, time.Since(began))
		}
		if h2 {
			if resp, _ := do(t, c, r.request("GET", "/any/x", nil)); resp.StatusCode != 200 {
				t.Errorf("another stream: %s", resp.Status)
			}
		}
		if _, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Error("half an answer reads as a whole one")
		}
		resp.Body.Close()
	}
}
