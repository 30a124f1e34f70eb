package gateway

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// burst sends n requests from so many clients at once, and wants 200.
func (r *running) burst(c *http.Client, path string, n, workers int) {
	r.t.Helper()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range n / workers {
				resp, err := c.Do(r.request("GET", path, nil))
				if err != nil {
					r.t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					r.t.Error(resp.Status)
				}
			}
		})
	}
	wg.Wait()
}

// TestLeastLoaded has one connection point answer late: most requests go to
// the other, and the late one is not forgotten.
func TestLeastLoaded(t *testing.T) {
	t.Parallel()
	c := getSite(t).config(t)
	c.Choice = ChoiceLeastLoaded
	r := run(t, c)
	late := r.connect("cp-1", func(q *request) {
		time.Sleep(100 * time.Millisecond)
		echo(q)
	})
	quick := r.connect("cp-2", echo)
	quick.publish(r.site.publication(t, 1))
	r.burst(r.client(&r.site.device, false), "/any/x", 960, 16)
	a, b := late.streams.Load(), quick.streams.Load()
	if a+b != 960 || a*2 > b || a == 0 {
		t.Errorf("%d to the late one, %d to the quick one", a, b)
	}
	if rows := r.gw.points.rows(); rows["cp-1"].Short != 0 || rows["cp-2"].Short != 0 || rows["cp-1"].Latency <= rows["cp-2"].Latency {
		t.Errorf("%+v", rows)
	}
}

// TestParkedIsNoLoad parks long polls on one connection point: the other gets
// no more of the short requests for it.
func TestParkedIsNoLoad(t *testing.T) {
	t.Parallel()
	c := getSite(t).config(t)
	c.Choice = ChoiceLeastLoaded
	r := run(t, c)
	release := make(chan struct{})
	handler := func(q *request) {
		if strings.HasSuffix(string(q.head.Path), "/poll") {
			<-release
		}
		echo(q)
	}
	one := r.connect("cp-1", handler)
	one.publish(r.site.publication(t, 1))
	client := r.client(&r.site.device, false)
	const polls = 40
	var wg sync.WaitGroup
	wg.Go(func() { r.burst(client, "/any/poll", polls/2, polls/2) })
	wg.Go(func() { r.burst(r.client(&r.site.device, true), "/any/poll", polls/2, polls/2) })
	eventually(t, "all are inward, and none counts", func() bool {
		row := r.gw.points.rows()["cp-1"]
		return row.InFlight == polls && row.Short == 0 && r.gw.counts.parked.Load() == polls/2
	})
	other := r.connect("cp-2", handler)
	r.burst(client, "/any/x", 400, 16)
	if a, b := one.streams.Load()-polls, other.streams.Load(); a+b != 400 || a < 40 { // forty under way would weigh more than the other ever has
		t.Errorf("%d and %d", a, b)
	}
	close(release)
	wg.Wait()
}

// TestWeight: an average that nobody moves is forgotten.
func TestWeight(t *testing.T) {
	now := time.Now()
	var slow, busy, idle pointLoad
	slow.latency.Store(int64(time.Second))
	slow.heard.Store(now.UnixNano())
	for range 3 {
		busy.count(momentOf(now), 1)
	}
	at := func(l *pointLoad, later time.Duration) int64 { return l.weight(now.Add(later)) }
	if at(&slow, 0) <= at(&busy, 0) || at(&busy, 0) <= at(&idle, 0) {
		t.Error("slow, busy, idle is the order")
	}
	slow.count(momentOf(now.Add(time.Minute)), 1)
	if at(&slow, time.Minute) != 2*at(&busy, time.Minute) || at(&busy, time.Minute) != at(&idle, 0) {
		t.Error("what was slow, or came, a minute ago is still held against it")
	}
	busy.count(momentOf(now), -1)
	if n := busy.short(now); n != 2 {
		t.Errorf("%d wait, want 2", n)
	}
	slow.count(momentOf(now), -1) // came before the cell was used anew
	if n := slow.short(now.Add(time.Minute)); n != 1 {
		t.Errorf("%d wait, want 1", n)
	}
}

// TestWaitingIsBounded: what would wait for a connection point beyond the
// bounds is refused at once, and told when to come again.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	for what, w := range map[string]WaitingConfig{"requests": {Requests: 2}, "bytes": {Bytes: 200 << 10}} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := getSite(t).config(t)
			c.Waiting = w
			r := run(t, c, func(g *Gateway) { g.limits.point = patience / 2 })
			r.connect("cp-1", echo).publish(r.site.publication(t, 1))
			in := r.connect("cp-2", echo)
			for _, pt := range *r.gw.points.list.Load() {
				for _, s := range *pt.sessions.Load() {
					go s.Drain(t.Context(), "the end")
				}
			}
			eventually(t, "nobody is connected", func() bool { return len(*r.gw.points.list.Load()) == 0 })
			client := r.client(&r.site.device, false)
			type answer struct {
				code, after string
			}
			answers := make(chan answer, 8)
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					resp, err := client.Do(r.request("POST", "/any/x", strings.NewReader(strings.Repeat("x", 40<<10))))
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
					answers <- answer{resp.Header.Get("CMG-Refusal") + resp.Header.Get("X-By"), resp.Header.Get("Retry-After")}
				})
			}
			for range 6 {
				a := within(t, "six are refused", answers)
				if n, err := strconv.Atoi(a.after); a.code != "CMGService_NoConnectionPoint" || err != nil || n < 15 || n > 45 {
					t.Errorf("%+v", a)
				}
			}
			if q := r.gw.waiting; q.requests.Load() != 2 || q.bytes.Load() < 80<<10 || q.refused.Load() != 6 {
				t.Errorf("%d wait with %d bytes, %d were refused", q.requests.Load(), q.bytes.Load(), q.refused.Load())
			}
			r.connect("cp-3", echo)
			for range 2 {
				if a := within(t, "two are answered", answers); a.code != "cp-3" {
					t.Errorf("%+v", a)
				}
			}
			wg.Wait()
			if q := r.gw.waiting; q.requests.Load() != 0 || q.bytes.Load() != 0 {
				t.Error("the queue is not empty")
			}
			in.kill()
		})
	}
}

func TestChoiceConfig(t *testing.T) {
	c := getSite(t).config(t)
	c.Choice = "best"
	if _, err := New(c); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("choice: %v", err)
	}
	c.Choice, c.Waiting.Requests = "", -1
	if _, err := New(c); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("waiting: %v", err)
	}
}
