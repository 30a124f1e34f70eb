package connectionpoint

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg/channel"
)

// An h2Site is an HTTP/2 server inside whose requests wait for leave.
type h2Site struct {
	*httptest.Server
	leave       chan struct{}
	once        sync.Once
	waiting     atomic.Int64
	taken       chan string // of requests that were taken back
	connections atomic.Int64
}

func newH2Site(t testing.TB, streams int) *h2Site {
	s := &h2Site{leave: make(chan struct{}), taken: make(chan string, 64)}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.TLS = getSite(t).inner.Server()
	s.EnableHTTP2 = true
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: streams}
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			s.connections.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(func() {
		s.free()
		s.Close()
	})
	return s
}

// free answers all that wait, and those that come.
func (s *h2Site) free() { s.once.Do(func() { close(s.leave) }) }

func (s *h2Site) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Proto", r.Proto)
	if strings.HasSuffix(r.URL.Path, "/wait") {
		body, _ := io.ReadAll(r.Body) // net/http sees who goes away only behind it
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.waiting.Add(1)
		select {
		case <-s.leave:
		case <-r.Context().Done():
			s.taken <- r.URL.Path
			return
		}
	}
	echo(w, r)
}

// firstH2 gives an HTTP/2 connection, or nil.
func (r *running) firstH2() (c *h2Conn) {
	for _, u := range r.p.live.Load().pool.all {
		if u.h2 == nil {
			continue
		}
		u.h2.mu.Lock()
		defer u.h2.mu.Unlock()
		if len(u.h2.conns) > 0 {
			c = u.h2.conns[0]
		}
	}
	return c
}

// TestManyWaitOnFewConnections: requests that wait share connections, each
// gets its own answer, and none is lost when all are answered at once.
func TestManyWaitOnFewConnections(t *testing.T) {
	t.Parallel()
	const n, streams = 400, 50
	s := newH2Site(t, streams)
	g, r := start(t, "/site/bgb", s.URL+"/base")
	answers := make([]reply, n)
	var all sync.WaitGroup
	for i := range n {
		st := g.begin("CCM_POST", fmt.Sprintf("/site/bgb/wait?n=%d", i), 5, fmt.Appendf(nil, "%05d", i), true, "CCMClientID", "x", "Authorization", "Bearer y")
		all.Go(func() { answers[i] = finish(st) })
	}
	eventually(t, "all wait at the server", func() bool { return s.waiting.Load() == n })
	if got := r.p.parked.Load(); got != n {
		t.Errorf("%d wait without a worker, of %d", got, n)
	}
	if got := s.connections.Load(); got > n/streams+h2Dials {
		t.Errorf("%d connections for %d requests, %d on each", got, n, streams)
	}
	s.free()
	all.Wait()
	for i, a := range answers {
		if a.err != nil || a.status != 200 || string(a.body) != fmt.Sprintf("%05d", i) || a.fields.Get("X-Proto") != "HTTP/2.0" {
			t.Fatalf("%d: %+v", i, a)
		}
		if i == 0 && (a.fields.Get("X-Method") != "CCM_POST" || a.fields.Get("X-Target") != "/base/wait?n=0" || a.fields.Get("X-Got-Authorization") != "Bearer y" ||
			a.fields.Get("X-Got-CCMClientID") != "x" || a.reason != "OK" || a.fields.Get("Content-Type") == "") {
			t.Errorf("%+v", a)
		}
	}
	if got := r.p.parked.Load(); got != 0 {
		t.Errorf("%d still wait", got)
	}
	eventually(t, "nothing is under way", func() bool { return r.p.active.Load() == 0 })
	if a := g.do("HEAD", "/site/bgb/x", nil); a.status != 200 || len(a.body) != 0 {
		t.Errorf("HEAD: %+v", a)
	}
}

// TestShortRequestsStayOnHTTP1: only what may wait long goes over HTTP/2, and
// of that nothing whose body is not there yet.
func TestShortRequestsStayOnHTTP1(t *testing.T) {
	t.Parallel()
	s := newH2Site(t, 50)
	g, _ := start(t, "/site/bgb", s.URL, "/site", s.URL)
	for target, want := range map[string]string{"/site/a": "HTTP/1.1", "/site/bgb/a": "HTTP/2.0"} {
		if a := g.do("POST", target, []byte("x")); a.fields.Get("X-Proto") != want {
			t.Errorf("%s: %+v", target, a)
		}
	}
	if a := g.do("POST", "/site/bgb/a", noise(100<<10)); a.fields.Get("X-Proto") != "HTTP/1.1" || len(a.body) != 100<<10 {
		t.Errorf("a long body: %s, %d bytes, %v", a.fields.Get("X-Proto"), len(a.body), a.err)
	}
}

// TestCancelReachesTheServer: what the gateway takes back is reset, and the
// connection goes on.
func TestCancelReachesTheServer(t *testing.T) {
	t.Parallel()
	s := newH2Site(t, 50)
	g, r := start(t, "/site/bgb", s.URL)
	st := g.begin("GET", "/site/bgb/wait", 0, nil, true)
	eventually(t, "it waits", func() bool { return s.waiting.Load() == 1 })
	st.Close()
	within(t, "the server learns it", s.taken)
	eventually(t, "it is over", func() bool { return r.p.active.Load() == 0 && r.p.parked.Load() == 0 })
	if a := g.do("GET", "/site/bgb/x", nil); a.status != 200 || s.connections.Load() != 1 {
		t.Errorf("%+v, %d connections", a, s.connections.Load())
	}
}

// TestChannelLossReachesTheServer: the same when the gateway goes away.
func TestChannelLossReachesTheServer(t *testing.T) {
	t.Parallel()
	s := newH2Site(t, 50)
	g, r := start(t, "/site/bgb", s.URL)
	var all sync.WaitGroup
	for range 20 {
		st := g.begin("GET", "/site/bgb/wait", 0, nil, true)
		all.Go(func() { failure(t, "a request whose channel is lost", finish(st), channel.CodeLost) })
	}
	eventually(t, "they wait", func() bool { return s.waiting.Load() == 20 })
	g.cut()
	all.Wait()
	for range 20 {
		within(t, "the server learns it", s.taken)
	}
	eventually(t, "they are over", func() bool { return r.p.active.Load() == 0 })
}

// TestLongAnswers sends answers that need credit, in both framings, and one
// that breaks off.
func TestLongAnswers(t *testing.T) {
	t.Parallel()
	want := noise(700 << 10)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/known":
			w.Header().Set("Content-Length", fmt.Sprint(len(want)))
			w.Write(want)
		case "/unknown":
			w.(http.Flusher).Flush()
			w.Write(want)
		case "/broken":
			w.Write(want[:100<<10])
			panic(http.ErrAbortHandler)
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/early":
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, "no")
		}
	}))
	s.TLS, s.EnableHTTP2 = getSite(t).inner.Server(), true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	g, _ := start(t, "/bgb", s.URL)
	for _, path := range []string{"/bgb/known", "/bgb/unknown"} {
		if a := g.do("GET", path, nil); a.err != nil || a.status != 200 || !bytes.Equal(a.body, want) {
			t.Errorf("%s: %d, %d bytes, %v", path, a.status, len(a.body), a.err)
		}
	}
	if a := g.do("GET", "/bgb/broken", nil); a.err == nil {
		t.Errorf("an answer that breaks off: %d, %d bytes", a.status, len(a.body))
	}
	if a := g.do("GET", "/bgb/none", nil); a.status != 204 || len(a.body) > 0 || a.err != nil {
		t.Errorf("none: %+v", a)
	}
	if a := g.do("GET", "/bgb/early", nil); a.status != 403 || a.reason != "CMGConnector_Forbidden" || string(a.body) != "no" {
		t.Errorf("early: %+v", a)
	}
}

// TestServerWithoutH2: one that speaks HTTP/1.1 only is used so, and is not
// asked again for a while.
func TestServerWithoutH2(t *testing.T) {
	t.Parallel()
	conf := getSite(t).inner.Server()
	conf.NextProtos = []string{"http/1.1"}
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	s.TLS = conf
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			opened.Add(1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	g, r := start(t, "/bgb", s.URL)
	for range 20 {
		if a := g.do("POST", "/bgb/x", []byte("body")); a.status != 200 || string(a.body) != "body" {
			t.Fatalf("%+v", a)
		}
	}
	if n := opened.Load(); n > 3 {
		t.Errorf("%d connections", n)
	}
	for _, u := range r.p.live.Load().pool.all {
		if u.h2.speaks() {
			t.Error("it will be asked again")
		}
	}
}

// TestDrainOfTheServer shuts the server down while requests wait: they are
// answered, and new ones go to its successor.
func TestDrainOfTheServer(t *testing.T) {
	t.Parallel()
	s := newH2Site(t, 50)
	g, r := start(t, "/bgb", s.URL)
	st := g.begin("POST", "/bgb/wait", 1, []byte("x"), true)
	eventually(t, "it waits", func() bool { return s.waiting.Load() == 1 })
	down := make(chan error, 1)
	go func() { down <- s.Config.Shutdown(t.Context()) }()
	eventually(t, "the connection takes no more", func() bool {
		c := r.firstH2()
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.away
	})
	if a := g.do("GET", "/bgb/x", nil); a.err == nil { // the listener is closed
		t.Errorf("%+v", a)
	}
	s.free()
	if a := finish(st); a.status != 200 || string(a.body) != "x" {
		t.Errorf("%+v", a)
	}
	if err := within(t, "the server has drained", down); err != nil {
		t.Error(err)
	}
}

// TestParkOnHTTP1: a request that waits on HTTP/1.1 is left to a goroutine of
// its own, over TLS and without; it is answered, cancelled, and timed out as
// one that does not.
func TestParkOnHTTP1(t *testing.T) {
	t.Parallel()
	s := newH2Site(t, 50)
	plain := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(plain.Close)
	g, r := start(t, "/tls", s.URL, "/plain", plain.URL)
	var streams []*channel.Stream
	for _, target := range []string{"/tls/wait", "/plain/wait"} {
		for range 3 {
			streams = append(streams, g.begin("POST", target, 4, []byte("body"), true))
		}
	}
	eventually(t, "they are parked", func() bool { return r.p.parked.Load() == 6 })
	streams[0].Close()
	streams[3].Close()
	within(t, "the server learns it", s.taken)
	within(t, "the server learns it", s.taken)
	eventually(t, "the others are parked", func() bool { return r.p.parked.Load() == 4 })
	s.free()
	for _, i := range []int{1, 2, 4, 5} {
		if a := finish(streams[i]); a.status != 200 || string(a.body) != "body" || a.err != nil {
			t.Errorf("%d: %+v", i, a)
		}
	}
	eventually(t, "nothing is under way", func() bool { return r.p.active.Load() == 0 && r.p.parked.Load() == 0 })
	for _, path := range []string{"/tls/x", "/plain/x"} { // their connections serve again
		if a := g.do("POST", path, []byte("again")); string(a.body) != "again" {
			t.Errorf("%+v", a)
		}
	}
}

// TestParkedTooLong: the time limit of an answer holds for one that waits
// without a worker, on either protocol.
func TestParkedTooLong(t *testing.T) {
	t.Parallel()
	s := newH2Site(t, 50)
	g := listen(t)
	c := g.site.config(t, g.addr, "/h1", s.URL, "/bgb", s.URL)
	c.AnswerTime = 300 * time.Millisecond
	r := run(t, c)
	g.up(1)
	failure(t, "http/1.1", g.do("GET", "/h1/wait", nil), channel.CodeTimeout)
	st := g.begin("GET", "/bgb/wait", 0, nil, true)
	eventually(t, "it waits", func() bool { return r.p.parked.Load() == 1 })
	for _, u := range r.p.live.Load().pool.all {
		u.h2.tend(time.Now().Add(time.Second), c.AnswerTime)
	}
	failure(t, "http/2", finish(st), channel.CodeTimeout)
}
