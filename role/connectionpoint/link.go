package connectionpoint

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Reconnecting: full jitter between 0 and min(maxWait, firstWait × 2^n), so
// that many connection points do not come back in step. The count starts
// anew once a connection has lived for steady.
const (
	firstWait = 500 * time.Millisecond
	maxWait   = 4 * time.Second // an instance that comes back is wanted soon
	steady    = time.Minute
	dialTime  = 10 * time.Second
	nextTime  = 5 * time.Second        // for a way, if there is another
	stagger   = 150 * time.Millisecond // between the connections to one gateway

	// Looking for an instance behind a port that several share: quick at
	// first, for it is luck which one is met.
	firstLook  = 100 * time.Millisecond // and half as much again at least
	quickLooks = 16                     // for each instance; then as after a failure
)

// A link keeps one connection of the channel to one place.
type link struct {
	p      *Point
	place  *place
	number int
	cur    atomic.Pointer[held]

	mu    sync.Mutex
	state string // for the status page: what it does, or why it cannot
	since time.Time
}

func (l *link) set(state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != state {
		l.state, l.since = state, l.p.cfg.Now()
	}
}

func (l *link) status() any {
	l.mu.Lock()
	defer l.mu.Unlock()
	row := map[string]any{"state": l.state, "since": l.since}
	h := l.cur.Load()
	if h == nil {
		return row
	}
	row["connection"], row["in_flight"], row["round_trip_ms"] = h.s.Connection(), h.s.InFlight(), float64(h.s.RTT().Microseconds())/1000
	row["instance"], row["transport"], row["address"] = h.instance, h.way.transport, h.way.addr
	if h.via != "" {
		row["proxy"] = h.via
	}
	if h.inspector != "" {
		row["inspected_by"] = h.inspector
	}
	var instead []wayRow
	for _, w := range l.betterThan(h.way) {
		instead = append(instead, w.row())
	}
	if instead != nil {
		row["instead_of"] = instead
	}
	return row
}

// betterThan lists the ways before w.
func (l *link) betterThan(w *way) []*way {
	for i, x := range l.place.ways {
		if x == w {
			return l.place.ways[:i]
		}
	}
	return nil
}

// keep dials until ctx ends, whatever happens to a connection.
func (l *link) keep(ctx context.Context) {
	var old sync.WaitGroup // connections that were replaced and drain
	defer old.Wait()
	wait := time.Duration(l.number) * stagger
	for tries, looks := 0, 0; ; {
		select {
		case <-ctx.Done():
			l.set("stopped")
			return
		case <-time.After(wait):
		}
		began := time.Now()
		err := l.once(ctx, &old)
		if time.Since(began) > steady {
			tries, looks = 0, 0
		}
		if errors.Is(err, errAway) {
			wait = rand.N(firstLook)
			continue
		}
		if errors.Is(err, errNoSeat) && looks < quickLooks*l.place.want {
			looks++
			wait = firstLook/2 + rand.N(firstLook)
		} else {
			wait = rand.N(min(maxWait, firstWait<<min(tries, 10)))
			tries++
		}
		if ctx.Err() != nil {
			continue
		}
		if errors.Is(err, errNoSeat) {
			l.set("looking: " + err.Error())
			continue
		}
		l.set("down: " + err.Error())
		l.p.log.Warn("channel is down", "gateway", l.place.label, "err", err, "again_in", wait.Round(time.Millisecond))
	}
}

// once makes one connection and holds it until it ends, unless a better one
// takes its place: then that one.
func (l *link) once(ctx context.Context, old *sync.WaitGroup) error {
	l.mu.Lock()
	looking := l.state == "" || l.state == "stopped"
	l.mu.Unlock()
	if looking {
		l.set("connecting")
	}
	h, err := l.dial(ctx, l.place.ways, "")
	if err != nil {
		return err
	}
	old.Go(func() { h.serve(ctx) })
	for {
		var again <-chan time.Time
		if len(l.betterThan(h.way)) > 0 {
			t := time.NewTimer(time.Duration(float64(l.p.live.Load().cfg.BetterEvery) * (0.9 + 0.2*rand.Float64())))
			defer t.Stop()
			again = t.C
		}
		select {
		case err := <-h.ended:
			return err
		case <-h.s.Away(): // it stays until it ends; the next one takes its seat
			h.giveUpSeat()
			return errAway
		case <-again:
		}
		better, err := l.better(ctx, h)
		if err != nil {
			l.p.log.Debug("the better way is still closed", "gateway", l.place.label, "err", err)
			continue
		}
		l.p.log.Info("channel moves to a better way", "gateway", l.place.label, "from", h.way.String(), "to", better.way.String())
		old.Go(func() { better.serve(ctx) })
		before := h
		old.Go(func() { before.retire(ctx) })
		h = better
	}
}

// better dials the ways before h's. Behind a port that several instances
// share it may take several looks to meet one that has room.
func (l *link) better(ctx context.Context, h *held) (*held, error) {
	for look := 0; ; look++ {
		b, err := l.dial(ctx, l.betterThan(h.way), h.instance)
		if !errors.Is(err, errNoSeat) || look == quickLooks*l.place.want {
			return b, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-h.s.Ended():
			return nil, err
		case <-time.After(firstLook/2 + rand.N(firstLook)):
		}
	}
}

// serve runs a session. When ctx ends it drains: the gateway sends no more,
// what is under way is answered.
func (h *held) serve(ctx context.Context) {
	l := h.l
	h.news.begin(h.s.PeerVersion(), h.dialed)
	l.cur.Store(h)
	l.set("up")
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		select {
		case <-done:
		case <-ctx.Done():
			dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.p.live.Load().cfg.Drain)
			defer cancel()
			h.s.Drain(dctx, "the connection point stops")
		}
	})
	l.p.updateReadiness()
	wg.Go(h.publish)
	wg.Go(func() { l.p.tickets.send(h) })
	err := h.s.Run(context.WithoutCancel(ctx))
	close(done)
	l.cur.CompareAndSwap(h, nil) // one that was replaced is not there any more
	h.giveUpSeat()
	l.p.updateReadiness()
	wg.Wait()
	if h.news.end(h) {
		l.p.publish()
	}
	if err == nil {
		err = fmt.Errorf("the gateway closed it")
	}
	h.ended <- err
}

// errAway says that the gateway asked for another connection.
var errAway = errors.New("the gateway asked for another connection")

// giveUpSeat counts the connection no more.
func (h *held) giveUpSeat() { h.seat.Do(func() { h.l.place.leave(h.instance) }) }

// retire ends a connection that another took the place of: no stream on it
// is cut short. ctx hurries it, by way of serve.
func (h *held) retire(ctx context.Context) {
	dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.l.p.live.Load().cfg.AnswerTime+h.l.p.live.Load().cfg.Drain)
	defer cancel()
	h.s.Retire(dctx, "a better way is open")
}
