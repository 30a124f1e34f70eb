package connectionpoint

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// TestReconnect takes the gateway away and brings it back on its address, a
// few times, and once for longer.
func TestReconnect(t *testing.T) {
	t.Parallel()
	g, r := start(t, "/pub", server(t, echo).URL)
	for _, away := range []time.Duration{0, 100 * time.Millisecond, 2 * time.Second} {
		g.close()
		eventually(t, "the loss is noticed", func() bool { return r.p.fleet.links()[0].cur.Load() == nil })
		<-time.After(away)
		g.open()
		began := time.Now()
		g.up(1)
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("after %v away it took %v", away, d)
		}
		if a := g.do("GET", "/pub", nil); a.status != 200 {
			t.Errorf("after %v away: %+v", away, a)
		}
	}
}

// TestPublishedOnce counts what each gateway is sent over all its channels.
func TestPublishedOnce(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	fresh, knows, ahead := listen(t), listen(t), listen(t)
	knows.has(1)
	ahead.has(9)
	conf := s.config(t, fresh.addr)
	conf.Gateways, conf.Connections = Plain(fresh.addr, knows.addr, ahead.addr), 3
	r := run(t, conf)
	for _, g := range []*outside{fresh, knows, ahead} {
		g.up(3)
	}
	heard := func(want ...[]uint64) {
		t.Helper()
		eventually(t, "publications arrive", func() bool {
			return slices.Equal(fresh.heard(), want[0]) && slices.Equal(knows.heard(), want[1]) && slices.Equal(ahead.heard(), want[2])
		})
	}
	heard([]uint64{1}, nil, nil)
	if err := os.WriteFile(conf.Map, s.document(t, s.signer, 2), 0o600); err != nil {
		t.Fatal(err)
	}
	heard([]uint64{1, 2}, []uint64{2}, nil)
	fresh.cut() // it comes back with what it has
	eventually(t, "the channels are made anew", func() bool { return fresh.connected() == 3 && up(r) == 9 })
	heard([]uint64{1, 2}, []uint64{2}, nil)
	knows.close() // this one has forgotten all
	knows.has(0)
	knows.open()
	knows.up(3)
	heard([]uint64{1, 2}, []uint64{2, 2}, nil)

	ahead.mu.Lock()
	ahead.refuse = errors.New("not that one")
	ahead.mu.Unlock()
	if err := os.WriteFile(conf.Map, s.document(t, s.signer, 10), 0o600); err != nil {
		t.Fatal(err)
	}
	heard([]uint64{1, 2, 10}, []uint64{2, 2, 10}, []uint64{10})
}

func (g *outside) has(version uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.version = version
}

func (g *outside) connected() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.sessions)
}

// newest is the channel that came last; nil: there is none.
func (g *outside) newest() *channel.Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(g.sessions); n > 0 {
		return g.sessions[n-1]
	}
	return nil
}

// up counts the channels that are up.
func up(r *running) (n int) {
	for _, l := range r.p.fleet.links() {
		if l.cur.Load() != nil {
			n++
		}
	}
	return n
}

// TestCarrierLost has the link break that carries a publication: another one
// carries it.
func TestCarrierLost(t *testing.T) {
	t.Parallel()
	n, a, b := new(news), new(held), new(held)
	n.begin(0, time.Now())
	if !n.carry(a, 5) || n.carry(b, 5) || n.carry(b, 4) {
		t.Error("it is carried by one")
	}
	n.begin(0, time.Now()) // b's session, made while a carries
	if n.carry(b, 5) || n.end(b) {
		t.Error("another session forgets what is on its way")
	}
	if !n.end(a) || !n.carry(b, 5) {
		t.Error("a broken link still carries it")
	}
	n.arrived(a, 5)
	n.arrived(b, 4)
	if n.by != b {
		t.Error("it arrived by another way")
	}
	n.arrived(b, 5)
	if n.end(b) || n.carry(a, 5) || !n.carry(a, 6) {
		t.Error("it has arrived")
	}
	early := time.Now()
	n.arrived(a, 6)
	n.begin(2, early) // it was dialed before that
	if n.carry(a, 6) {
		t.Error("what a session knew before it arrived was taken for what is")
	}
	n.begin(2, time.Now()) // an instance that knows less
	if !n.carry(a, 6) {
		t.Error("an instance that knows less is told nothing")
	}
}

// TestDrain stops a connection point while requests are under way.
func TestDrain(t *testing.T) {
	here := goleak.IgnoreCurrent()
	t.Run("", func(t *testing.T) {
		arrived, release := make(chan bool, 2), make(chan bool)
		s := server(t, func(w http.ResponseWriter, r *http.Request) {
			arrived <- true
			<-release
			echo(w, r)
		})
		g, r := start(t, "/pub", s.URL)
		small, large := g.begin("POST", "/pub", 5, []byte("small"), true), g.begin("POST", "/pub", 100<<10, nil, false)
		within(t, "the first is under way", arrived)
		within(t, "the second is under way", arrived)
		g.mu.Lock()
		session := g.sessions[0]
		g.mu.Unlock()
		r.stop()
		eventually(t, "the gateway hears of it", func() bool { return !session.Usable() })
		if _, err := session.Open(nil, nil, true); err == nil {
			t.Error("a request was taken while draining")
		}
		large.WriteEnd(noise(100 << 10)) // the rest of its body comes now
		close(release)
		if a := finish(small); string(a.body) != "small" || a.err != nil {
			t.Errorf("%+v", a)
		}
		if a := finish(large); !bytes.Equal(a.body, noise(100<<10)) || a.err != nil {
			t.Errorf("%d bytes, %v", len(a.body), a.err)
		}
		began := time.Now()
		within(t, "Run returns", r.done)
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("after the last answer it took %v", d)
		}
		g.up(0)
	})
	goleak.VerifyNone(t, here)
}

// TestDrainEnds gives up what takes longer than the drain.
func TestDrainEnds(t *testing.T) {
	here := goleak.IgnoreCurrent()
	t.Run("", func(t *testing.T) {
		arrived := make(chan bool, 3)
		hangs := byHand(t, func(w *wire) {
			var q h1.Request
			w.rd.Request(&q)
			arrived <- true
			io.Copy(io.Discard, w)
		})
		g := listen(t)
		conf := g.site.config(t, g.addr, "/pub", "http://"+hangs, "/tls", "https://"+hangs)
		conf.Drain = 200 * time.Millisecond
		conf.Gateways = append(conf.Gateways, Plain(byHand(t, func(w *wire) { io.Copy(io.Discard, w) }))...) // makes no handshake
		greeted := make(chan bool, 1)
		conf.Gateways = append(conf.Gateways, Plain(byHand(t, func(w *wire) { // says no hello
			c := tls.Server(w, g.site.gateway.ChannelServer())
			io.ReadFull(c, make([]byte, 10))
			greeted <- true
			io.Copy(io.Discard, c)
		}))...)
		r := run(t, conf)
		g.up(1)
		within(t, "a gateway says nothing", greeted)
		var all []*channel.Stream
		all = append(all, g.begin("GET", "/pub", 0, nil, true), g.begin("POST", "/pub", 1000, nil, false), g.begin("GET", "/tls", 0, nil, true))
		for range all {
			within(t, "it is under way", arrived)
		}
		began := time.Now()
		r.stop()
		within(t, "Run returns", r.done)
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("it took %v", d)
		}
		for _, st := range all {
			if a := finish(st); a.err == nil {
				t.Errorf("an answer from nowhere: %+v", a)
			}
		}
	})
	goleak.VerifyNone(t, here)
}

// TestMaxRequests refuses what is too much, untouched.
func TestMaxRequests(t *testing.T) {
	t.Parallel()
	release := make(chan bool)
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		echo(w, r)
	})
	g := listen(t)
	conf := g.site.config(t, g.addr, "/pub", s.URL)
	conf.MaxRequests = 5
	r := run(t, conf)
	g.up(1)
	var held []*channel.Stream
	for range 5 {
		held = append(held, g.begin("POST", "/pub", 1, []byte("x"), true))
	}
	eventually(t, "five are under way", func() bool { return r.p.active.Load() == 5 })
	for range 3 {
		if e := failure(t, "one more", g.do("POST", "/pub", []byte("x")), channel.CodeRefused); !e.Untouched || e.Started {
			t.Errorf("%+v", e)
		}
	}
	close(release)
	for _, st := range held {
		if a := finish(st); a.status != 200 {
			t.Errorf("%+v", a)
		}
	}
	eventually(t, "they are done", func() bool { return r.p.active.Load() == 0 })
	if a := g.do("POST", "/pub", []byte("x")); a.status != 200 {
		t.Errorf("afterwards: %+v", a)
	}
}

// TestParallel sends 300 requests at once, of all kinds, over three channels.
func TestParallel(t *testing.T) {
	t.Parallel()
	s := server(t, echo)
	g := listen(t)
	conf := g.site.config(t, g.addr, "/pub", s.URL)
	conf.Connections = 3
	r := run(t, conf)
	g.up(3)
	big := noise(200 << 10)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			n := []int{0, 10, channel.MaxInline, 70 << 10, len(big)}[i%5]
			var q h1.Request
			if err := q.Begin("POST", "h", fmt.Sprint("/pub/", i), int64(n)); err != nil {
				t.Error(err)
				return
			}
			g.mu.Lock()
			session := g.sessions[i%3]
			g.mu.Unlock()
			st, err := session.Open(q.AppendCompact(nil), nil, n == 0)
			if err == nil && n > 0 {
				err = st.WriteEnd(big[:n])
			}
			if err != nil {
				t.Error(err)
				return
			}
			if a := finish(st); a.status != 200 || !bytes.Equal(a.body, big[:n]) || a.fields.Get("X-Target") != fmt.Sprint("/", i) || a.err != nil {
				t.Errorf("request %d: %d, %s, %d of %d bytes, %v", i, a.status, a.fields.Get("X-Target"), len(a.body), n, a.err)
			}
		})
	}
	wg.Wait()
	eventually(t, "nothing is in flight", func() bool { return r.p.active.Load() == 0 })
	if n, failed := r.p.requests.Load(), r.p.failed.Load(); n != 300 || failed != 0 {
		t.Errorf("%d requests, %d failed", n, failed)
	}
}
