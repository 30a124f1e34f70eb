package connectionpoint

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg/channel"
)

// Reconnecting: full jitter between 0 and min(maxWait, firstWait × 2^n), so
// that many connection points do not come back in step. The count starts
// anew once a connection has lived for steady.
const (
	firstWait = 500 * time.Millisecond
	maxWait   = 4 * time.Second // an instance that comes back is wanted soon
	steady    = time.Minute
	dialTime  = 10 * time.Second
	stagger   = 150 * time.Millisecond // between the connections to one gateway
)

// A link keeps one connection of the channel to one gateway.
type link struct {
	p       *Point
	gateway string
	place   int   // of the gateway in the configuration
	news    *news // of the gateway: shared by its links
	number  int
	session atomic.Pointer[channel.Session]

	mu    sync.Mutex
	state string // for the status page: what it does, or why it cannot
	since time.Time
}

// news is what one gateway was sent: each publication once, by whichever of
// its links was up first.
type news struct {
	order sync.Mutex // one publication at a time, so that none overtakes a newer one

	mu   sync.Mutex
	sent uint64 // version it has, or that is on its way
	by   *link  // that carries it; nil: it has arrived
}

// begin learns from a new session what the gateway has: it may be another
// instance than before, which knows nothing.
func (n *news) begin(has uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.by == nil || has > n.sent {
		n.sent, n.by = has, nil
	}
}

// end says whether what l carried is lost: another link has to carry it.
func (n *news) end(l *link) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.by != l {
		return false
	}
	n.sent, n.by = 0, nil
	return true
}

// carry says whether version is new to the gateway; then it is l that
// carries it.
func (n *news) carry(l *link, version uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sent >= version {
		return false
	}
	n.sent, n.by = version, l
	return true
}

func (n *news) arrived(l *link, version uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.by == l && n.sent == version {
		n.by = nil
	}
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
	if s := l.session.Load(); s != nil {
		row["connection"], row["in_flight"], row["round_trip_ms"] = s.Connection(), s.InFlight(), float64(s.RTT().Microseconds())/1000
	}
	return row
}

// keep dials until ctx ends, whatever happens to a connection.
func (l *link) keep(ctx context.Context) {
	wait := time.Duration(l.number) * stagger
	for tries := 0; ; tries++ {
		select {
		case <-ctx.Done():
			l.set("stopped")
			return
		case <-time.After(wait):
		}
		began := time.Now()
		err := l.once(ctx)
		if time.Since(began) > steady {
			tries = 0
		}
		wait = rand.N(min(maxWait, firstWait<<min(tries, 10)))
		if ctx.Err() == nil {
			l.set("down: " + err.Error())
			l.p.log.Warn("channel is down", "gateway", l.gateway, "err", err, "again_in", wait.Round(time.Millisecond))
		}
	}
}

// once makes one connection and serves it until it ends. The name is looked
// up anew each time.
func (l *link) once(ctx context.Context) error {
	l.set("connecting")
	dctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(dctx, "tcp", l.gateway)
	if err != nil {
		return err
	}
	defer c.Close()
	t := tls.Client(channel.NewGather(c, 128<<10), l.p.identity.ChannelClient())
	if err := t.HandshakeContext(dctx); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	stop := context.AfterFunc(dctx, func() { c.Close() }) // the hellos know no context
	s, err := channel.Inside(t, channel.Config{
		Name: l.p.cfg.Name, Handler: func(st *channel.Stream) { l.p.handle(job{st, l.place}) }, Log: l.p.log, MaxStreams: l.p.cfg.MaxRequests * 2,
		Acknowledged: func(version uint64, problem string) { l.acknowledged(version, problem) },
	})
	stop()
	if err != nil {
		return err
	}
	cancel()
	l.p.log.Info("channel is up", "gateway", l.gateway, "instance", s.Peer(), "connection", s.Connection())
	return l.serve(ctx, s)
}

// serve runs a session. When ctx ends it drains: the gateway sends no more,
// what is under way is answered.
func (l *link) serve(ctx context.Context, s *channel.Session) error {
	l.news.begin(s.PeerVersion())
	l.session.Store(s)
	l.set("up")
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		select {
		case <-done:
		case <-ctx.Done():
			dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.p.cfg.Drain)
			defer cancel()
			s.Drain(dctx, "the connection point stops")
		}
	})
	l.p.updateReadiness()
	wg.Go(l.publish)
	err := s.Run(context.WithoutCancel(ctx))
	close(done)
	l.session.Store(nil)
	l.p.updateReadiness()
	wg.Wait()
	if l.news.end(l) {
		for _, x := range l.p.links {
			if x.news == l.news {
				x.publish()
			}
		}
	}
	if err == nil {
		err = fmt.Errorf("the gateway closed it")
	}
	return err
}

// publish sends the publication to this link's gateway, unless it has it or
// another link is sending it.
func (l *link) publish() {
	l.news.order.Lock()
	defer l.news.order.Unlock()
	s, t := l.session.Load(), l.p.maps.table.Load()
	if s == nil || t == nil || !l.news.carry(l, t.version) {
		return
	}
	if err := s.Publish(t.version, []byte(t.publication)); err != nil {
		l.news.end(l)
		l.p.log.Warn("publish", "gateway", l.gateway, "version", t.version, "err", err)
	}
}

func (l *link) acknowledged(version uint64, problem string) {
	l.news.arrived(l, version)
	if problem != "" {
		l.p.log.Error("the gateway refused the publication", "gateway", l.gateway, "version", version, "why", problem)
		return
	}
	l.p.log.Info("published", "gateway", l.gateway, "version", version)
}
