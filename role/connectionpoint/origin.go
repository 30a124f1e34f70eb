package connectionpoint

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/gate"
	"github.com/opencmg/cmg/web"
)

// OriginConfig bounds what each server behind the mappings is sent.
type OriginConfig struct {
	Limit     int64         `json:"limit"`      // requests at once to one server, long polls apart; 0: no limit
	Adaptive  bool          `json:"adaptive"`   // find the limit, from limit downward, by how soon answers begin
	Slow      time.Duration `json:"slow"`       // adaptive: answers that begin later say that there are too many; 0: 500 ms
	Queue     int64         `json:"queue"`      // requests that may wait for one of limit; 0: as limit, at least 16, at most 1,024
	Wait      time.Duration `json:"wait"`       // how long each; 0: 2 s
	LongPolls []string      `json:"long_polls"` // path prefixes, as published, of requests that wait by intent, beside routes that may wait
	PollLimit int64         `json:"poll_limit"` // long polls at once to one server; 0: no limit
	Failures  int64         `json:"failures"`   // connections in a row that fail until a server is left alone; 0: 8; -1: it never is
	Pause     time.Duration `json:"pause"`      // between two looks whether it is back, at most; 0: 10 s
}

// fewest is what an adaptive limit never goes below.
const fewest = 4

func (c OriginConfig) withDefaults() (OriginConfig, error) {
	switch {
	case c.Limit < 0 || c.Queue < 0 || c.PollLimit < 0 || c.Failures < -1 || c.Slow < 0 || c.Wait < 0 || c.Pause < 0:
		return c, fmt.Errorf("origins: a number is negative: %w", cmg.ErrInvalid)
	case c.Adaptive && c.Limit < fewest:
		return c, fmt.Errorf("origins: adaptive wants a limit of at least %d to begin with: %w", fewest, cmg.ErrInvalid)
	}
	for i, p := range c.LongPolls {
		if !strings.HasPrefix(p, "/") || len(p) < 2 || strings.HasSuffix(p, "/") {
			return c, fmt.Errorf("origins: long_polls: %q does not begin with / and end without: %w", p, cmg.ErrInvalid)
		}
		if i == 0 {
			c.LongPolls = append([]string(nil), c.LongPolls...)
		}
		c.LongPolls[i] = strings.ToLower(p)
	}
	if c.Slow == 0 {
		c.Slow = 500 * time.Millisecond
	}
	if c.Failures == 0 {
		c.Failures = 8
	}
	if c.Pause == 0 {
		c.Pause = 10 * time.Second
	}
	return c, nil
}

// An origin is what bounds the requests to one server.
type origin struct {
	gate    *gate.Gate    // nil: no limit
	adapter *gate.Adapter // nil: the limit stays
	polls   atomic.Int64  // long polls under way
	crowded atomic.Int64  // long polls that were refused
	skipped atomic.Int64  // requests refused since the server was left alone

	failures atomic.Int64 // of connections, in a row
	alone    atomic.Bool  // the server is left alone until mend has reached it
	times    atomic.Int64 // it was left alone
}

func (o *origin) begin(c OriginConfig) {
	if c.Limit > 0 {
		o.gate = gate.New(gate.Config{Limit: c.Limit, Reserve: true, Queue: c.Queue, Patience: c.Wait})
	}
	if c.Adaptive {
		o.adapter = gate.NewAdapter(o.gate, fewest, c.Limit, c.Slow)
	}
}

var (
	errAlone   = errors.New("the server could not be reached several times and is left alone until it can be")
	errCrowded = cmg.Refuse(503, "CMGConnector_Overloaded", "the server behind this path has as many long polls as it may", nil)
)

// A seat is a request's place at its server, from when the server has room
// until the request is over, whoever goes on with it meanwhile. Its zero value
// is none.
type seat struct {
	at      *origin   // nil: there is none, or it was given back
	poll    bool      // one of the long polls' places
	entered time.Time // when the server had room, while the answer's head is waited for and that time matters
}

// leave gives the place back, once.
func (s *seat) leave() {
	o := s.at
	if o == nil {
		return
	}
	s.heard()
	if s.at = nil; s.poll {
		o.polls.Add(-1)
		return
	}
	o.gate.Leave()
}

// heard tells the adapter how long the answer's head took, once.
func (s *seat) heard() {
	if s.entered.IsZero() {
		return
	}
	now := time.Now()
	s.at.adapter.Observe(now.Sub(s.entered), now)
	s.entered = time.Time{}
}

// through passes a request on once the server has room for it. Point.over
// gives its place back.
func (r *relay) through(st *channel.Stream, m *mapping, head []byte) error {
	t := m.target
	if t.alone.Load() {
		t.skipped.Add(1)
		st.Abort(channel.CodeUnreachable, errAlone.Error())
		return errAlone
	}
	c := &r.p.live.Load().cfg.Origins
	if m.waits || c.isPoll(r.req.Path) {
		r.seat = seat{at: &t.origin, poll: true}
		if n := t.polls.Add(1); c.PollLimit > 0 && n > c.PollLimit {
			t.crowded.Add(1)
			return r.refuse(st, errCrowded)
		}
		return r.exchange(st, m, head)
	}
	if t.gate == nil {
		return r.exchange(st, m, head)
	}
	since := r.begun
	if !t.gate.TryEnter(m.class) {
		if err := r.wait(st, m); err != nil {
			if st.Err() != nil {
				return nil // the gateway took it back
			}
			return err
		}
		since = time.Now()
	}
	r.seat = seat{at: &t.origin}
	if t.adapter != nil {
		r.entered = since
	}
	return r.exchange(st, m, head)
}

// isPoll says that a request waits by intent.
func (c *OriginConfig) isPoll(path []byte) bool {
	for _, p := range c.LongPolls {
		if n := len(p); len(path) >= n && (len(path) == n || path[n] == '/') && foldEqual(path[:n], p) {
			return true
		}
	}
	return false
}

// wait waits for room, unless the gateway takes the request back.
func (r *relay) wait(st *channel.Stream, m *mapping) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	st.Notify(func() {
		if st.Err() != nil {
			cancel()
		}
	})
	defer st.Notify(nil)
	err := m.target.gate.Wait(ctx, m.class)
	if errors.Is(err, gate.ErrFull) || errors.Is(err, gate.ErrLate) {
		return r.refuse(st, cmg.Refuse(503, "CMGConnector_Overloaded", "the server behind this path has as many requests as it may: "+err.Error(), nil))
	}
	return err
}

// refuse answers for the server. The gateway is not to try another connection
// point: the server is the same.
func (r *relay) refuse(st *channel.Stream, no *cmg.Refusal) error {
	text := []byte(no.Code + ": " + no.Why + "\nrequest " + r.id + "\n")
	r.res.Reset()
	r.res.Status, r.res.Reason, r.res.Length = no.Status, []byte(no.Code), int64(len(text))
	r.res.Add("Content-Type", []byte("text/plain; charset=utf-8"))
	r.res.Add("Cache-Control", []byte("no-store"))
	r.res.Add(web.RefusalHeader, []byte(no.Code))
	r.res.Add(web.RetryAfterHeader, []byte(web.RetryAfter()))
	if string(r.method) == "HEAD" {
		text = nil
	}
	r.status, r.head = no.Status, r.res.AppendCompact(r.head[:0])
	if err := st.Respond(r.head, text, true); err != nil && st.Err() == nil {
		return err
	}
	return no
}

// reached notes that the server could be connected to, or could not.
func (t *target) reached(err error) {
	switch {
	case err == nil:
		if t.failures.Load() != 0 {
			t.failures.Store(0)
		}
	case t.most < 0:
	case t.failures.Add(1) >= t.most && t.alone.CompareAndSwap(false, true):
		t.times.Add(1)
		select {
		case t.broken <- t:
		default: // nobody can look after it now
			t.alone.Store(false)
		}
	}
}

// mend looks after servers that are left alone, until ctx ends.
func (p *Point) mend(ctx context.Context) {
	var mending sync.WaitGroup
	defer mending.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-p.broken:
			p.log.Warn("a server cannot be reached and is left alone", "target", t.address, "failures", t.failures.Load())
			mending.Go(func() { p.mendOne(ctx, t) })
		}
	}
}

// mendOne tries to connect, at growing intervals, until it succeeds or the
// configuration has changed: then others have taken the target's place.
func (p *Point) mendOne(ctx context.Context, t *target) {
	for wait := 250 * time.Millisecond; !t.retired(); wait = min(2*wait, p.live.Load().cfg.Origins.Pause) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		}
		c, err := t.dial(ctx)
		if err != nil {
			p.log.Debug("a server is still away", "target", t.address, "err", err)
			continue
		}
		t.failures.Store(0)
		t.alone.Store(false)
		t.put(c)
		p.log.Info("a server can be reached again", "target", t.address)
		return
	}
	t.alone.Store(false) // whoever is sent there yet finds out for himself
}

func (t *target) retired() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
}

// originRow is how one server stands.
type originRow struct {
	Polls    int64       `json:"long_polls"`
	Crowded  int64       `json:"long_polls_refused"`
	Alone    bool        `json:"left_alone"`
	Times    int64       `json:"times_left_alone"`
	Skipped  int64       `json:"refused_meanwhile"`
	Failures int64       `json:"failures_in_a_row"`
	Gate     *gate.Stats `json:"gate,omitempty"`
}

// originRows tells how the servers stand, by address.
func (u *upstreams) originRows() map[string]originRow {
	u.mu.Lock()
	defer u.mu.Unlock()
	rows := map[string]originRow{}
	for key, t := range u.all {
		row := originRow{Polls: t.polls.Load(), Crowded: t.crowded.Load(), Alone: t.alone.Load(), Times: t.times.Load(),
			Skipped: t.skipped.Load(), Failures: t.failures.Load()}
		if t.gate != nil {
			s := t.gate.Stats()
			row.Gate = &s
		}
		rows[key] = row
	}
	return rows
}
