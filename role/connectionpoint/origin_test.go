package connectionpoint

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/channel"
)

// bounded runs a connection point with limits, and a channel to a gateway.
func bounded(t testing.TB, o OriginConfig, pairs ...string) (*outside, *running) {
	t.Helper()
	g := listen(t)
	c := g.site.config(t, g.addr, pairs...)
	c.Origins = o
	r := run(t, c)
	g.up(1)
	return g, r
}

func (r *running) row(url string) originRow {
	key, _, err := splitTarget(url)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.p.live.Load().pool.originRows()[key]
}

// TestOriginLimit fills a server: two are there, three wait, others are told
// to come again; long polls meanwhile have room of their own.
func TestOriginLimit(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var now, most atomic.Int64
	s := server(t, func(w http.ResponseWriter, q *http.Request) {
		if strings.HasPrefix(strings.ToLower(q.URL.Path), "/poll") {
			<-release
			return
		}
		raise(&most, now.Add(1))
		<-release
		now.Add(-1)
	})
	g, r := bounded(t, OriginConfig{Limit: 2, Queue: 3, Wait: patience, LongPolls: []string{"/a/Poll"}, PollLimit: 2}, "/a", s.URL)
	var wg sync.WaitGroup
	send := func(path string) chan reply {
		c := make(chan reply, 1)
		wg.Go(func() { c <- g.do("GET", path, nil) })
		return c
	}
	var short []chan reply
	for range 2 {
		short = append(short, send("/a/x"))
	}
	eventually(t, "two are there", func() bool { return now.Load() == 2 })
	for range 3 {
		short = append(short, send("/a/x"))
	}
	eventually(t, "three wait", func() bool { return r.row(s.URL).Gate.Waiting == 3 })
	polls := []chan reply{send("/a/poll/1"), send("/a/POLL")}
	eventually(t, "two long polls", func() bool { return r.row(s.URL).Polls == 2 })
	crowded := within(t, "the third long poll is refused", send("/a/poll"))
	short = append(short, send("/a/x")) // takes the place of the oldest that waits
	var full reply
	select {
	case full = <-short[2]:
	case full = <-short[3]:
	case full = <-short[4]:
	case <-time.After(patience):
		t.Fatal("nobody is refused")
	}
	for what, a := range map[string]reply{"short": full, "long": crowded} {
		wait, err := strconv.Atoi(a.fields.Get("Retry-After"))
		if a.status != 503 || a.reason != "CMGConnector_Overloaded" || a.fields.Get("CMG-Refusal") != "CMGConnector_Overloaded" || err != nil || wait < 15 || wait > 45 {
			t.Errorf("%s: %+v", what, a)
		}
	}
	close(release)
	wg.Wait()
	n := 0
	for _, c := range append(short, polls...) {
		select {
		case a := <-c:
			if n++; a.status != 200 {
				t.Errorf("%+v", a)
			}
		default:
		}
	}
	if n != 7 || most.Load() != 2 {
		t.Errorf("%d were answered, at most %d were there at once", n, most.Load())
	}
	eventually(t, "nobody is left", func() bool { row := r.row(s.URL); return row.Gate.Inside == 0 && row.Polls == 0 })
}

// TestOriginTakenBack has the gateway take back a request that waits for room.
func TestOriginTakenBack(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var requests atomic.Int64
	s := server(t, func(http.ResponseWriter, *http.Request) { requests.Add(1); <-release })
	g, r := bounded(t, OriginConfig{Limit: 1, Wait: patience}, "/a", s.URL)
	first := g.begin("GET", "/a/x", 0, nil, true)
	eventually(t, "one is there", func() bool { return requests.Load() == 1 })
	second := g.begin("GET", "/a/x", 0, nil, true)
	eventually(t, "one waits", func() bool { return r.row(s.URL).Gate.Waiting == 1 })
	second.Close()
	eventually(t, "nobody waits", func() bool { return r.row(s.URL).Gate.Waiting == 0 })
	close(release)
	if a := finish(first); a.status != 200 || requests.Load() != 1 {
		t.Errorf("%+v, %d requests", a, requests.Load())
	}
}

// TestOriginAdapts has a server that grows slow with what it is sent: the
// limit falls, and rises again once the server is quick.
func TestOriginAdapts(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	var slow atomic.Bool
	slow.Store(true)
	s := server(t, func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		if slow.Load() {
			time.Sleep(time.Duration(n) * 2 * time.Millisecond)
		}
	})
	g, r := bounded(t, OriginConfig{Limit: 64, Adaptive: true, Slow: 40 * time.Millisecond}, "/a", s.URL)
	var wg sync.WaitGroup
	var stop atomic.Bool
	for range 100 {
		wg.Go(func() {
			for !stop.Load() {
				g.do("GET", "/a/x", nil)
			}
		})
	}
	limit := func() int64 { return r.row(s.URL).Gate.Limit }
	eventually(t, "the limit falls", func() bool { return limit() < 48 })
	slow.Store(false)
	low := limit()
	eventually(t, "the limit rises", func() bool { return limit() > low })
	stop.Store(true)
	wg.Wait()
}

// TestOriginAlone takes a server away: after a few tries it is left alone,
// and found when it is back.
func TestOriginAlone(t *testing.T) {
	t.Parallel()
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	address := ln.Addr().String()
	ln.Close()
	g, r := bounded(t, OriginConfig{Failures: 3, Pause: 500 * time.Millisecond}, "/a", "http://"+address)
	for i := range 5 {
		var e *channel.StreamError
		a := g.do("GET", "/a/x", nil)
		if !errors.As(a.err, &e) || e.Code != channel.CodeUnreachable || !e.Untouched || strings.Contains(e.Text, "left alone") != (i >= 3) {
			t.Errorf("request %d: %+v", i, a)
		}
	}
	if row := r.row("http://" + address); !row.Alone || row.Times != 1 || row.Skipped != 2 {
		t.Errorf("%+v", row)
	}
	w := httptest.NewRecorder()
	r.p.health.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if want := `cmg_connection_point_target_left_alone{target="http://` + address + `"} 1`; !strings.Contains(w.Body.String(), want) {
		t.Errorf("metrics lack %s", want)
	}
	back := must[net.Listener](t)(net.Listen("tcp", address))
	srv := &http.Server{Handler: http.HandlerFunc(echo)}
	go srv.Serve(back)
	t.Cleanup(func() { srv.Close() })
	eventually(t, "the server is found", func() bool { return !r.row("http://" + address).Alone })
	if a := g.do("POST", "/a/x", []byte("hello")); a.status != 200 || string(a.body) != "hello" {
		t.Errorf("%+v", a)
	}
}

func TestOriginConfig(t *testing.T) {
	for _, c := range []OriginConfig{{Limit: -1}, {Queue: -1}, {Failures: -2}, {Wait: -1}, {Adaptive: true}, {LongPolls: []string{"a"}}, {LongPolls: []string{"/a/"}}} {
		if _, err := c.withDefaults(); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// BenchmarkThrough is what the limits of a server cost a request that meets
// no pressure, beside the request.
func BenchmarkThrough(b *testing.B) {
	for name, c := range map[string]OriginConfig{"none": {}, "fixed": {Limit: 100}, "adaptive": {Limit: 100, Adaptive: true}} {
		b.Run(name, func(b *testing.B) {
			c, err := c.withDefaults()
			if err != nil {
				b.Fatal(err)
			}
			t, r := &target{most: c.Failures}, &relay{p: &Point{}, bill: bill{begun: time.Now()}}
			r.p.live.Store(&snapshot{cfg: Config{Origins: c}})
			t.begin(c)
			path := []byte("/CCM_Proxy_ServerAuth/72057594037927937/SMS_MP/.sms_aut")
			b.ReportAllocs()
			for b.Loop() {
				if t.alone.Load() || r.p.live.Load().cfg.Origins.isPoll(path) || !t.gate.TryEnter("") {
					b.Fatal("refused")
				}
				if t.gate != nil {
					r.seat = seat{at: &t.origin}
				}
				if t.adapter != nil {
					r.entered = r.begun
				}
				r.leave()
			}
		})
	}
}
