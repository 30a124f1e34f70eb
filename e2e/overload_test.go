package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// long says that the stories of overload run in full: CMG_OVERLOAD=long.
func long() bool { return os.Getenv("CMG_OVERLOAD") == "long" }

// withSettings starts processes of the lab again, with variables such as a
// person would set.
func (l *lab) withSettings(set map[string]string, names ...string) {
	l.t.Helper()
	for k, v := range set {
		l.t.Setenv(k, v)
	}
	for _, name := range names {
		l.kill(name)
		l.again(name)
		l.until(name+" is back", func() error { return l.ready(name) })
	}
	for _, name := range []string{"gateway-1", "gateway-2"} {
		l.until(name+" has its connection points", func() error { return l.ready(name) })
	}
}

// An outcome counts what became of requests.
type outcome struct {
	good, later, other atomic.Int64 // answered; told when to come again; anything else
	worst              atomic.Value // of the others, one
}

// ask sends one request. It notes the answer, or in a 429 or 503 when to come
// again.
func (o *outcome) ask(ctx context.Context, c *http.Client, url, token string) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		o.other.Add(1)
		o.worst.Store(err.Error())
		return
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		o.other.Add(1)
		o.worst.Store(err.Error())
		return
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	wait, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	switch {
	case resp.StatusCode == 200:
		o.good.Add(1)
	case (resp.StatusCode == 503 || resp.StatusCode == 429) && wait > 0:
		o.later.Add(1)
	default:
		o.other.Add(1)
		o.worst.Store(resp.Status)
	}
}

func (o *outcome) String() string {
	return fmt.Sprintf("%d answered, %d told to come again, %d others %v", o.good.Load(), o.later.Load(), o.other.Load(), o.worst.Load())
}

// closed has so many clients ask again and again, with a pause, for a time.
func (o *outcome) closed(c *http.Client, url, token string, clients int, pause, d time.Duration) {
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			time.Sleep(pause * time.Duration(i) / time.Duration(clients)) // they do not come in step
			for time.Now().Before(end) {
				o.ask(context.Background(), c, url, token)
				time.Sleep(pause)
			}
		})
	}
	wg.Wait()
}

// open asks at a rate, whatever becomes of what was asked before.
func (o *outcome) open(ctx context.Context, c *http.Client, url, token string, rate float64, d time.Duration) {
	began := time.Now()
	var wg sync.WaitGroup
	for sent := 0; time.Since(began) < d && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		for due := int(rate * time.Since(began).Seconds()); sent < due; sent++ {
			wg.Go(func() { o.ask(context.Background(), c, url, token) })
		}
	}
	wg.Wait()
}

// memory is what a process holds, in bytes.
func memory(t *testing.T, pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// TestBeyondCapacity saturates a server that has room for eight, then offers
// twice as much: what is answered stays, the rest is told to come again. Then
// it does so with a server that is never busy, so that the processors are
// what is short: twice the clients.
func TestBeyondCapacity(t *testing.T) {
	room := make(chan struct{}, 8)
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		room <- struct{}{}
		time.Sleep(20 * time.Millisecond)
		<-room
		io.WriteString(w, "done")
	}))
	defer busy.Close()
	quick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "done") }))
	defer quick.Close()
	l := startLab(t, "--map", "/busy="+busy.URL, "--map", "/quick="+quick.URL)
	l.withSettings(map[string]string{"CMG_CONNECTION_POINT_ORIGINS_LIMIT": "8"}, "connection-point-1", "connection-point-2")
	c, d := l.client(true), 3*time.Second
	c.Transport.(*http.Transport).MaxIdleConnsPerHost = 1000 // requests are what is to be too many, not handshakes
	if long() {
		d = 20 * time.Second
	}
	rate := func(o *outcome, f func()) float64 {
		began := time.Now()
		f()
		return float64(o.good.Load()) / time.Since(began).Seconds()
	}
	t.Run("server", func(t *testing.T) {
		bestOfThree(t, func(peak, double *outcome) float64 {
			url := l.env["CMG_URL"] + "/busy/x"
			most := rate(peak, func() { peak.closed(c, url, "", 24, 0, d) })
			return rate(double, func() { double.open(t.Context(), c, url, "", 2*most, d) }) / most
		})
	})
	t.Run("processors", func(t *testing.T) {
		bestOfThree(t, func(peak, double *outcome) float64 {
			url := l.env["CMG_URL"] + "/quick/x"
			most := rate(peak, func() { peak.closed(c, url, "", 32, 0, d) })
			return rate(double, func() { double.closed(c, url, "", 64, 0, d) }) / most
		})
	})
}

// bestOfThree wants that at twice the load nine tenths of the peak are
// answered, in one round of three, and everybody told in all of them; six
// tenths in the short form, whose rounds are short and may have neighbours.
// round gives the ratio.
func bestOfThree(t *testing.T, round func(peak, double *outcome) float64) {
	best, want := 0.0, 0.6
	if long() {
		want = 0.9
	}
	for range 3 {
		var peak, double outcome
		ratio := round(&peak, &double)
		t.Logf("peak: %v; twice the load: %v; ratio %.2f", &peak, &double, ratio)
		if peak.good.Load() == 0 || double.other.Load()+peak.other.Load() > 0 {
			t.Error("not every client was told")
		}
		if best = max(best, ratio); best >= 0.9 && !long() {
			break
		}
	}
	if best < want {
		t.Errorf("at twice the load %.2f of the peak is answered, want %.1f", best, want)
	}
}

// TestSlowServer has a server that answers 50 requests a second meet more
// clients than it can ever serve (5,000 in the long form). Every one of them
// gets an answer or is told when to come again, and no process grows.
func TestSlowServer(t *testing.T) {
	clients, d, pause := 400, 12*time.Second, time.Second
	if long() {
		clients, d, pause = 5000, time.Minute, 5*time.Second
	}
	turn := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	var ticking sync.WaitGroup
	ticking.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			select {
			case turn <- struct{}{}:
			default:
			}
		}
	})
	defer ticking.Wait()
	defer stop()
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-turn:
			io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	}))
	defer origin.Close()
	l := startLab(t, "--map", "/shop="+origin.URL)
	l.withSettings(map[string]string{"CMG_CONNECTION_POINT_ORIGINS_LIMIT": "16"}, "connection-point-1", "connection-point-2")
	c := l.client(true)
	c.Transport.(*http.Transport).MaxIdleConnsPerHost = clients

	var o outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.closed(c, l.env["CMG_URL"]+"/shop/x", "", clients, pause, d)
	}()
	names := []string{"gateway-1", "gateway-2", "connection-point-1", "connection-point-2"}
	pids, held := l.pids(), map[string][]int64{}
	for tick, end := time.NewTicker(d/60), false; !end; {
		select {
		case <-done:
			tick.Stop()
			end = true
		case <-tick.C:
			for _, n := range names {
				held[n] = append(held[n], memory(t, pids[n]))
			}
		}
	}
	t.Logf("%d clients: %v", clients, &o)
	if o.other.Load() > 0 || o.later.Load() == 0 {
		t.Error("every client is to get an answer, or a 503 that says when to come again")
	}
	if want := int64(50 * d.Seconds() / 2); o.good.Load() < want {
		t.Errorf("%d answers, want %d at least", o.good.Load(), want)
	}
	for _, n := range names {
		m := held[n][:min(len(held[n]), 60)]
		middle, last := slices.Max(m[len(m)/3:len(m)*2/3]), slices.Max(m[len(m)*2/3:])
		t.Logf("%s: %.1f MiB in the middle third, %.1f MiB in the last", n, float64(middle)/(1<<20), float64(last)/(1<<20))
		if last > middle+middle/10+4<<20 {
			t.Errorf("%s grows", n)
		}
	}
	var s struct {
		Targets map[string]struct {
			Gate struct{ Full, Late, Limit int64 }
		}
	}
	if err := l.status("connection-point-1", &s); err != nil {
		t.Fatal(err)
	}
	if g := s.Targets[origin.URL].Gate; g.Limit != 16 || g.Full+g.Late == 0 {
		t.Errorf("the status page tells %+v", s.Targets)
	}
}

// TestGreedyDevice compares how soon others are answered while one device
// asks 1,000 times a second, and while it does not.
func TestGreedyDevice(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(20 * time.Millisecond)
		io.WriteString(w, "done")
	}))
	defer origin.Close()
	l := startLab(t, "--map", "/shop="+origin.URL)
	l.withSettings(map[string]string{"CMG_GATEWAY_CALLER_LIMITS_RATE": "20", "CMG_GATEWAY_CALLER_LIMITS_BURST": "40"}, "gateway-1", "gateway-2")
	var tokens []string
	for i := range 10 {
		tokens = append(tokens, sessionToken(t, l.dir+"/site", "LAB", fmt.Sprintf("GUID:6A5C7A92-5A3C-4A57-9F0E-2F3F3F1F0B%02d", i)))
	}
	url, rounds, d, most := l.env["CMG_URL"]+"/shop/x", 5, 3*time.Second, 1.5
	if long() { // on a machine that does nothing else
		rounds, d, most = 10, 10*time.Second, 1.1
	}
	others := func() (p99 time.Duration) {
		c := l.client(false)
		var mu sync.Mutex
		var took []time.Duration
		var wg sync.WaitGroup
		for _, token := range tokens {
			wg.Go(func() {
				var o outcome
				for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(60 * time.Millisecond) {
					began := time.Now()
					o.ask(context.Background(), c, url, token)
					mu.Lock()
					took = append(took, time.Since(began))
					mu.Unlock()
				}
				if o.later.Load()+o.other.Load() > 0 {
					t.Errorf("one of the others: %v", &o)
				}
			})
		}
		wg.Wait()
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	others() // connections and caches are there
	alone, beside := time.Hour, time.Hour
	var greedy outcome
	for range rounds {
		alone = min(alone, others())
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			greedy.open(ctx, l.client(false), url, l.env["CMG_TOKEN"], 1000, time.Hour)
		}()
		beside = min(beside, others())
		stop()
		<-ended
		t.Logf("the others' p99: %v, beside the greedy one %v; that one: %v", alone, beside, &greedy)
		if float64(beside) <= most*float64(alone) && !long() {
			break
		}
	}
	if float64(beside) > most*float64(alone) {
		t.Errorf("the others' p99 grows from %v to %v", alone, beside)
	}
	if greedy.later.Load() < 5*greedy.good.Load() || greedy.other.Load() > 0 {
		t.Errorf("the greedy one: %v", &greedy)
	}
}
