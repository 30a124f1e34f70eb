package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/web"
)

// TestRepeat goes through the table of mayRepeat. The first connection point
// ends the request as the row says, once the second one is there to take it.
func TestRepeat(t *testing.T) {
	t.Parallel()
	type row struct {
		how, method, path string
		size              int // of the body
		status            int
		code              string // empty: the second one answered
	}
	const lost, failed = "CMGService_Channel_Lost", "CMGConnector_Failed"
	var rows []row
	for _, m := range []string{"GET", "HEAD", "OPTIONS", "PROPFIND"} {
		rows = append(rows, row{"lost", m, "/any/x", 0, 200, ""}, row{"started and lost", m, "/any/x", 0, 200, ""},
			row{"failed", m, "/any/x", 0, 502, failed}, row{"refused", m, "/any/x", 0, 200, ""})
	}
	for _, m := range []string{"PUT", "DELETE"} {
		rows = append(rows, row{"lost", m, "/any/x", 7, 200, ""}, row{"started and lost", m, "/any/x", 7, 502, lost}, row{"started and lost", m, "/idem/x", 7, 200, ""},
			row{"failed", m, "/idem/x", 7, 502, failed}, row{"unreachable", m, "/any/x", 7, 200, ""})
	}
	for _, m := range []string{"POST", "CCM_POST"} {
		rows = append(rows, row{"lost", m, "/any/x", 7, 502, lost}, row{"started and lost", m, "/any/x", 7, 502, lost},
			row{"lost", m, "/idem/x", 7, 200, ""}, row{"started and lost", m, "/idem/x", 7, 200, ""},
			row{"refused", m, "/any/x", 7, 200, ""}, row{"unreachable", m, "/any/x", 0, 200, ""}, row{"failed", m, "/idem/x", 7, 502, failed},
			row{"timeout", m, "/idem/x", 7, 504, "CMGConnector_Timeout"}, row{"answered by half", m, "/idem/x", 7, 0, ""})
	}
	rows = append(rows,
		row{"refused", "POST", "/any/x", keepBody, 200, ""},
		row{"lost", "PUT", "/any/x", keepBody, 200, ""},
		row{"refused", "POST", "/any/x", keepBody + 1, 503, "CMGConnector_Unavailable"},
		row{"lost", "POST", "/idem/x", keepBody + 1, 502, lost},
		row{"answered by half", "GET", "/any/x", 0, 0, ""})
	for _, c := range rows {
		t.Run(fmt.Sprint(c.how, c.method, c.path, c.size), func(t *testing.T) {
			ready := make(chan bool)
			r, first := start(t, func(q *request) {
				<-ready
				switch how := strings.TrimPrefix(c.how, "started and "); how {
				case "lost":
					if how != c.how {
						q.st.Started(true)
						q.in.settled()
					}
					q.in.kill()
				case "failed", "refused", "unreachable", "timeout":
					q.st.Reset(map[string]channel.Code{"failed": channel.CodeFailed, "refused": channel.CodeRefused,
						"unreachable": channel.CodeUnreachable, "timeout": channel.CodeTimeout}[how], "as told")
				case "answered by half":
					q.begin(200, 100, []byte("half"), false)
					q.in.settled()
					q.in.kill()
				}
			})
			answers := make(chan *http.Response, 1)
			body := noise(c.size)
			go func() {
				defer close(answers)
				q := r.request(c.method, c.path, bytes.NewReader(body))
				if resp, err := r.client(&r.site.device, false).Do(q); err == nil {
					if b, err := io.ReadAll(resp.Body); err == nil {
						resp.Body = io.NopCloser(bytes.NewReader(b))
						answers <- resp
					}
				}
			}()
			eventually(t, "the first has the request", func() bool { return first.streams.Load() == 1 })
			second := r.connect("cp-2", echo)
			close(ready)
			resp := within(t, "the answer", answers)
			if c.status == 0 {
				if resp != nil || second.streams.Load() != 0 {
					t.Errorf("half an answer was made whole: %v", resp)
				}
				return
			}
			if resp == nil {
				t.Fatal("the connection was cut")
			}
			if resp.StatusCode != c.status || resp.Header.Get(web.RefusalHeader) != c.code {
				t.Errorf("%s, want %d %s", resp.Status, c.status, c.code)
			}
			if (second.streams.Load() == 1) != (c.code == "") {
				t.Errorf("%d streams to the second one", second.streams.Load())
			}
			if c.code == "" {
				got, _ := io.ReadAll(resp.Body)
				if c.method == "HEAD" {
					body = nil
				}
				sameBytes(t, resp.Header.Get("X-By"), got, body)
			}
		})
	}
}

// TestAllSayNo has every connection point turn a request down: the last
// reason is the answer, and each was asked once.
func TestAllSayNo(t *testing.T) {
	t.Parallel()
	var code atomic.Uint32
	no := func(q *request) { q.st.Reset(channel.Code(code.Load()), "no") }
	r, a := start(t, no)
	b := r.connect("cp-2", no)
	for _, c := range []struct {
		code   channel.Code
		status string
	}{{channel.CodeRefused, "503 CMGConnector_Unavailable"}, {channel.CodeUnreachable, "502 CMGConnector_Unreachable"}} {
		code.Store(uint32(c.code))
		before := a.streams.Load() + b.streams.Load()
		if resp, _ := do(t, r.client(&r.site.device, false), r.request("POST", "/any/x", strings.NewReader("x"))); resp.Status != c.status {
			t.Errorf("%s, want %s", resp.Status, c.status)
		}
		if n := a.streams.Load() + b.streams.Load() - before; n != 2 {
			t.Errorf("%d streams for two connection points", n)
		}
	}
}

// TestLostTwice shows that a request that may have been handed on is sent
// again once, and no more.
func TestLostTwice(t *testing.T) {
	t.Parallel()
	die := func(q *request) { q.in.kill() }
	r, a := start(t, die)
	b, c := r.connect("cp-2", die), r.connect("cp-3", die)
	resp, _ := do(t, r.client(&r.site.device, false), r.request("GET", "/any/x", nil))
	if resp.Status != "502 CMGService_Channel_Lost" {
		t.Error(resp.Status)
	}
	if n := a.streams.Load() + b.streams.Load() + c.streams.Load(); n != 2 {
		t.Errorf("it was sent %d times", n)
	}
}

// TestHalfAnswer loses the channel in the middle of answers of every framing:
// no client takes a half for the whole, nor gets anything else behind it.
func TestHalfAnswer(t *testing.T) {
	t.Parallel()
	r, _ := start(t, nil)
	for _, c := range []struct {
		name   string
		length int64
		h2     bool
		lie    bool // the inside ends the answer, short of its length or beyond
		extra  string
	}{
		{"length", 100, false, false, ""}, {"chunked", h1.Chunked, false, false, ""}, {"length h2", 100, true, false, ""}, {"chunked h2", h1.Chunked, true, false, ""},
		{"ends short", 100, false, true, "more"}, {"too long", 6, false, true, "HTTP/1.1 200 OK\r\n\r\n"}, {"too long h2", 6, true, true, "more"},
	} {
		in := r.connect("cp-"+strings.ReplaceAll(c.name, " ", "-"), func(q *request) {
			q.begin(200, c.length, []byte("half"), false)
			q.in.settled()
			if c.lie {
				q.st.WriteEnd([]byte(c.extra))
				return
			}
			q.in.kill()
		})
		r.only(in)
		resp := must[*http.Response](t)(r.client(&r.site.device, c.h2).Do(r.request("GET", "/any/x", nil)))
		if b, err := io.ReadAll(resp.Body); err == nil || !strings.HasPrefix("half", string(b)) && string(b) != "halfmore" {
			t.Errorf("%s: %q, %v", c.name, b, err)
		}
		resp.Body.Close()
	}
	in := r.connect("cp-old", func(q *request) {
		q.begin(200, h1.Chunked, []byte("half"), false)
		q.in.settled()
		q.in.kill()
	})
	r.only(in)
	w := r.dial(&r.site.device) // the end of the connection would be the end of the body
	w.send("GET /any/x HTTP/1.0\r\n\r\nGET /any/y HTTP/1.0\r\n\r\n")
	if b, err := io.ReadAll(w.br); err == nil || strings.Count(string(b), "HTTP/1.1") > 1 {
		t.Errorf("until close: %q, %v", b, err)
	}
}

// only waits until no other connection point than in is connected.
func (r *running) only(in *inside) {
	for _, pt := range *r.gw.points.list.Load() {
		if pt.name != in.name {
			for _, s := range *pt.sessions.Load() {
				s.Drain(r.t.Context(), "another one's turn")
			}
		}
	}
	eventually(r.t, "one is left", func() bool { return len(*r.gw.points.list.Load()) == 1 })
}

// TestNotHTTP has the inside answer what is no answer.
func TestNotHTTP(t *testing.T) {
	t.Parallel()
	r, _ := start(t, func(q *request) {
		switch string(q.head.Path) {
		case "/any/junk":
			q.st.Respond([]byte("\xff\xff\xff"), nil, true)
		case "/any/interim":
			q.begin(103, 0, nil, true)
		case "/any/long":
			q.begin(200, 3, []byte("four"), true)
		case "/any/short":
			q.begin(200, 5, []byte("four"), true)
		}
	})
	w := r.dial(&r.site.device)
	for _, path := range []string{"/any/junk", "/any/interim", "/any/long", "/any/short"} {
		w.send("GET " + path + " HTTP/1.1\r\nHost: g\r\n\r\n")
		if resp, _ := w.read("GET"); resp.Status != "502 CMGConnector_Failed" {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// TestRoundRobin spreads 10,000 requests over two connection points, of which
// one holds more connections than the other.
func TestRoundRobin(t *testing.T) {
	t.Parallel()
	r, a := start(t, echo)
	b, more := r.connect("cp-2", echo), r.connect("cp-2", echo)
	c := r.client(&r.site.device, false)
	const total, workers = 10000, 16
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range total / workers {
				if resp, err := c.Do(r.request("GET", "/any/x", nil)); err != nil || resp.StatusCode != 200 {
					t.Error(resp, err)
				} else {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
		})
	}
	wg.Wait()
	first, second := a.streams.Load(), b.streams.Load()+more.streams.Load()
	if first+second != total || first < total*49/100 || second < total*49/100 {
		t.Errorf("%d and %d", first, second)
	}
	if b.streams.Load() < second*45/100 || more.streams.Load() < second*45/100 {
		t.Errorf("%d and %d on the connections of one", b.streams.Load(), more.streams.Load())
	}
}
