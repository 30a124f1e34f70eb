package connectionpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/opencmg/cmg/channel"
)

// A place is where channels are held to: one instance, or the instances of a
// service behind one port, of which a connection meets any.
type place struct {
	index int    // in Point.places
	label string // on the status page
	name  string // of the instance that has to be there; empty: any
	want  int    // instances
	each  int    // connections to each
	ways  []*way // the best first
	links []*link
	key   string // of the configuration it comes from

	stop    context.CancelFunc // of its links; nil: they have not begun. Guarded by the fleet.
	leaving bool

	mu    sync.Mutex
	seats map[string]int   // connections held, by instance
	news  map[string]*news // by instance
}

// errNoSeat says that a connection met an instance to which there are enough,
// or that is not the one that is wanted.
var errNoSeat = errors.New("met an instance that is not wanted")

// take counts a connection to the instance that was met. One that is to take
// another's place (replacing names that one's instance) may be one too many
// for a while.
func (pl *place) take(instance, replacing string) error {
	if pl.name != "" && instance != pl.name {
		return fmt.Errorf("%w: %s, not %s", errNoSeat, instance, pl.name)
	}
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.want > 1 { // else whoever is there is it
		room := pl.each
		if instance == replacing {
			room++
		}
		switch n := pl.seats[instance]; {
		case n >= room:
			return fmt.Errorf("%w: %s again, to which there are %d channels already (%d of %d instances found)", errNoSeat, instance, n, len(pl.seats), pl.want)
		case n == 0 && len(pl.seats) >= pl.want:
			return fmt.Errorf("%w: %s is one more than the %d instances that there are to be", errNoSeat, instance, pl.want)
		}
	}
	pl.seats[instance]++
	return nil
}

func (pl *place) leave(instance string) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.seats[instance]--; pl.seats[instance] <= 0 {
		delete(pl.seats, instance)
		if pl.want > 1 {
			delete(pl.news, instance)
		}
	}
}

// found says to how many instances there is a channel.
func (pl *place) found() int {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return len(pl.seats)
}

// newsOf gives what is kept about publications for an instance. Where there
// is one instance it is the place's, whatever its name.
func (pl *place) newsOf(instance string) *news {
	if pl.want == 1 {
		instance = ""
	}
	pl.mu.Lock()
	defer pl.mu.Unlock()
	n := pl.news[instance]
	if n == nil {
		n = new(news)
		pl.news[instance] = n
	}
	return n
}

// The transports of a channel.
const (
	transportTCP   = "tcp-tls"
	transportHTTPS = "https"
)

// A way is one address with one transport.
type way struct {
	transport string
	addr      string // host:port
	proxied   bool   // may go through a web proxy

	mu      sync.Mutex
	problem string // why it cannot be used; empty: it can, or was not tried
	tried   time.Time
}

func (w *way) String() string { return w.transport + " to " + w.addr }

func (w *way) note(err error, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tried, w.problem = at, ""
	if err != nil {
		w.problem = err.Error()
	}
}

// failed says that the way could not be used lately.
func (w *way) failed(since time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problem != "" && w.tried.After(since)
}

type wayRow struct {
	Transport string    `json:"transport"`
	Address   string    `json:"address"`
	Why       string    `json:"why"`
	Tried     time.Time `json:"tried"`
}

func (w *way) row() wayRow {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := wayRow{Transport: w.transport, Address: w.addr, Why: w.problem, Tried: w.tried}
	if r.Why == "" {
		r.Why = "not tried again yet"
	}
	return r
}

// order gives the ways as they are to be tried: those that failed lately come
// last.
func order(ways []*way, lately time.Time) []*way {
	var good, bad []*way
	for _, w := range ways {
		if w.failed(lately) {
			bad = append(bad, w)
		} else {
			good = append(good, w)
		}
	}
	return append(good, bad...)
}

// news is what one gateway was sent: each publication once, by whichever of
// its channels was up first.
type news struct {
	order sync.Mutex // one publication at a time, so that none overtakes a newer one

	mu   sync.Mutex
	sent uint64    // version it has, or that is on its way
	by   *held     // that carries it; nil: it has arrived
	at   time.Time // when something arrived last
}

// begin learns from a new session what the gateway has: it may be another
// instance than before, which knows nothing. A session that was dialed before
// a publication arrived tells what was, not what is.
func (n *news) begin(has uint64, dialed time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if has > n.sent || n.by == nil && dialed.After(n.at) {
		n.sent, n.by = has, nil
	}
}

// end says whether what h carried is lost: another has to carry it.
func (n *news) end(h *held) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.by != h {
		return false
	}
	n.sent, n.by = 0, nil
	return true
}

// carry says whether version is new to the gateway; then it is h that
// carries it.
func (n *news) carry(h *held, version uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.sent >= version {
		return false
	}
	n.sent, n.by = version, h
	return true
}

func (n *news) arrived(h *held, version uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.by == h && n.sent == version {
		n.by, n.at = nil, time.Now()
	}
}

// A held is one channel connection that is up.
type held struct {
	l         *link
	s         *channel.Session
	way       *way
	dialed    time.Time
	instance  string
	news      *news
	via       string // the web proxy; empty: none
	inspector string // who opens TLS on the way; empty: nobody
	ended     chan error
	seat      sync.Once // is given up
	declined  bool      // it is not wanted; set before the session runs
}

// publish sends the publication to the gateway, unless it has it or another
// channel is sending it.
func (h *held) publish() {
	h.news.order.Lock()
	defer h.news.order.Unlock()
	t := h.l.p.maps.table.Load()
	if t == nil || h.s.PeerVersion() >= t.version || !h.news.carry(h, t.version) {
		return
	}
	if err := h.s.Publish(t.version, []byte(t.publication)); err != nil {
		h.news.end(h)
		h.l.p.log.Warn("publish", "gateway", h.l.place.label, "version", t.version, "err", err)
	}
}

func (h *held) acknowledged(version uint64, problem string) {
	h.news.arrived(h, version)
	if problem != "" {
		h.l.p.log.Error("the gateway refused the publication", "gateway", h.l.place.label, "instance", h.instance, "version", version, "why", problem)
		return
	}
	h.l.p.log.Info("published", "gateway", h.l.place.label, "instance", h.instance, "version", version)
}
