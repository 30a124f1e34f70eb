package connectionpoint

import (
	"net"
	"testing"
	"time"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/web"
)

// TestSeatsOfWaiting has requests wait without a worker, over HTTP/2 and over
// HTTP/1.1: each keeps its place at the server meanwhile, and gives it back
// once, whether it is answered, taken back, or lost with its connection.
func TestSeatsOfWaiting(t *testing.T) {
	t.Parallel()
	const n = 6
	for name, o := range map[string]OriginConfig{
		"limited": {Limit: 8 * n, Adaptive: true, Slow: time.Hour}, "long polls": {Limit: 8 * n, LongPolls: []string{"/site/bgb", "/plain/bgb"}, PollLimit: 8 * n},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, plain := newH2Site(t, 50), newH2Site(t, 50)
			plain1 := server(t, plain.serve)
			slow := "/plain/bgb"
			if len(o.LongPolls) == 0 {
				slow = "/plain/shop" // a route whose requests are not known to wait
			}
			g, r := bounded(t, o, "/site/bgb", s.URL, slow, plain1.URL)
			there := func(url string) int64 {
				row := r.row(url)
				if len(o.LongPolls) > 0 || url == s.URL { // the route says so as well
					return row.Polls
				}
				return row.Gate.Inside
			}
			for what, c := range map[string]struct {
				url, path string
				waiting   func() int64
			}{"HTTP/2": {s.URL, "/site/bgb/wait", s.waiting.Load}, "HTTP/1.1": {plain1.URL, slow + "/wait", plain.waiting.Load}} {
				var streams []*channel.Stream
				for range 2 * n {
					streams = append(streams, g.begin("GET", c.path, 0, nil, true))
				}
				eventually(t, what+": all wait without a worker", func() bool { return c.waiting() == 2*n && r.p.parked.Load() == 2*n })
				if got := there(c.url); got != 2*n {
					t.Errorf("%s: %d places are taken, want %d", what, got, 2*n)
				}
				for _, st := range streams[:n] {
					st.Close()
				}
				eventually(t, what+": those taken back leave", func() bool { return there(c.url) == n })
				if what == "HTTP/2" { // what the connection loses goes over another one
					r.firstH2().raw.Close()
					eventually(t, "they are sent again", func() bool { return c.waiting() == 3*n })
					if got := there(c.url); got != n {
						t.Errorf("%d places are taken by what is sent again, want %d", got, n)
					}
					s.free()
				} else {
					plain.free()
				}
				for _, st := range streams[n:] {
					if a := finish(st); a.status != 200 {
						t.Errorf("%s: %+v", what, a)
					}
				}
				eventually(t, what+": nobody is left", func() bool { return there(c.url) == 0 && r.p.active.Load() == 0 })
				if a := g.do("GET", c.path, nil); a.status != 200 {
					t.Errorf("%s: %+v", what, a)
				}
				eventually(t, what+": nor behind them", func() bool { return there(c.url) == 0 })
			}
		})
	}
}

// TestAloneWithoutWorker leaves a server alone whose requests go over HTTP/2,
// and begins anew with a new configuration.
func TestAloneWithoutWorker(t *testing.T) {
	t.Parallel()
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	url := "https://" + ln.Addr().String()
	ln.Close()
	g := listen(t)
	c := g.site.config(t, g.addr, "/site/bgb", url)
	c.Origins = OriginConfig{Failures: 2, Pause: time.Hour}
	now := c
	c.Again = web.Again[Config]{Read: func() (Config, error) { return now, nil }, Every: time.Hour}
	r := run(t, c)
	g.up(1)
	for range 2 {
		failure(t, "nobody there", g.do("GET", "/site/bgb/x", nil), channel.CodeUnreachable)
	}
	if row := r.row(url); !row.Alone || row.Times != 1 {
		t.Errorf("%+v", row)
	}
	now.Origins.Limit = 7
	if err := r.p.reload.Reload("a limit"); err != nil {
		t.Fatal(err)
	}
	if row := r.row(url); row.Alone || row.Gate == nil || row.Gate.Limit != 7 {
		t.Errorf("after the reload: %+v", row)
	}
}
