package channel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Config says how a session behaves. The zero value of a knob is its default.
type Config struct {
	Name       string        // of this end, told to the peer
	Connection string        // outside: the id of this connection, told to the peer
	PingEvery  time.Duration // 0: 5 s, drawn anew within ±20 % each time
	DeadAfter  time.Duration // 0: 12 s without a frame from the peer
	MaxStreams int           // open at once; 0: 65,536
	Log        *slog.Logger  // nil is silent

	// Handler is handed each stream the outside opens. It must return at
	// once: it is called by the session's reader. Inside only.
	Handler func(*Stream)
	// Published is called with each publication that arrives whole, one at a
	// time; its error is told to the inside. Outside only.
	Published func(version uint64, doc []byte) error
	// Keys is handed each document of SendKeys. It must return at once and
	// keeps nothing of doc. Outside only.
	Keys func(doc []byte)
	// Version is the version of the publication this end has. Outside only.
	Version uint64
	// Acknowledged is told what became of a publication: problem is empty
	// where the outside took it. It must return at once. Inside only.
	Acknowledged func(version uint64, problem string)
}

func (c Config) withDefaults() Config {
	if c.PingEvery == 0 {
		c.PingEvery = 5 * time.Second
	}
	if c.DeadAfter == 0 {
		c.DeadAfter = 12 * time.Second
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = 1 << 16
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// What ends a session besides its context and the network.
var (
	errDead     = errors.New("channel: the peer was silent for too long")
	errFlooded  = errors.New("channel: the peer does not read what it asks for")
	errDrained  = errors.New("channel: closed after a drain")
	errProtocol = errors.New("channel: the peer broke the protocol")
)

// A Session is one connection of a channel.
type Session struct {
	cfg     Config
	conn    net.Conn
	outside bool
	peer    hello
	w       *writer

	mu      sync.RWMutex
	streams map[uint32]*Stream
	open    atomic.Int32 // how many streams there are, for those who need not know exactly
	err     error        // why the session ended
	// lastSeen is the highest stream id the outside opened, as the inside saw it.
	lastSeen  uint32
	draining  bool // we sent GOAWAY
	drained   chan struct{}
	once      sync.Once
	ended     chan struct{} // closed with err set
	mark      atomic.Int64  // what the PING holds whose PONG settle waits for
	marked    chan struct{}
	asked     chan struct{} // closed when the outside asked for another connection
	askedOnce sync.Once

	away      atomic.Bool  // the peer sent GOAWAY: open no more streams
	frames    atomic.Int64 // received
	rtt       atomic.Int64 // nanoseconds, smoothed; 0 not known yet
	pool      atomic.Int64 // bytes of window that may still be lent to streams
	mail      chan publication
	publishes sync.Mutex // one publication at a time on the wire
	turn      share      // of publications
	incoming  []byte     // a publication that is arriving; reader only
}

type publication struct {
	version uint64
	doc     []byte
}

// Outside exchanges hellos on a connection that a gateway accepted. The
// caller has proved who the peer is. On an error c is left for the caller to
// close.
func Outside(c net.Conn, cfg Config) (*Session, error) { return begin(c, cfg, true) }

// Inside exchanges hellos on a connection that a connection point dialed. On
// an error c is left for the caller to close.
func Inside(c net.Conn, cfg Config) (*Session, error) { return begin(c, cfg, false) }

func begin(c net.Conn, cfg Config, outside bool) (*Session, error) {
	cfg = cfg.withDefaults()
	mine := hello{min: minVersion, max: maxVersion, features: featureUpgrade, credit: baseWindow, streams: uint32(cfg.MaxStreams),
		published: cfg.Version, name: cfg.Name, connection: cfg.Connection}
	theirs, err := greet(c, mine, outside)
	if err != nil {
		return nil, err
	}
	s := &Session{cfg: cfg, conn: c, outside: outside, peer: theirs,
		streams: map[uint32]*Stream{}, drained: make(chan struct{}), ended: make(chan struct{}), marked: make(chan struct{}, 1), mail: make(chan publication, 1), asked: make(chan struct{}),
		turn: share{bell: make(chan struct{}, 1)}}
	s.w = newWriter(c, &s.open)
	s.pool.Store(poolSize)
	return s, nil
}

// Peer is the name the peer gave itself; who it is was proved by TLS.
func (s *Session) Peer() string { return s.peer.name }

// Connection is the id of this connection, which the outside gave.
func (s *Session) Connection() string {
	if s.outside {
		return s.cfg.Connection
	}
	return s.peer.connection
}

// PeerVersion is the version of the publication the outside said it has.
func (s *Session) PeerVersion() uint64 { return s.peer.published }

// RTT is the smoothed round-trip time; 0 while none was measured.
func (s *Session) RTT() time.Duration { return time.Duration(s.rtt.Load()) }

// InFlight is how many streams are open.
func (s *Session) InFlight() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.streams)
}

// Usable says that streams can be opened: neither end drains.
func (s *Session) Usable() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.err == nil && !s.draining && !s.away.Load()
}

// Run serves the session until it ends or ctx does, and returns why after
// all its goroutines have ended. It closes the connection.
func (s *Session) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Add(1)
	stop := context.AfterFunc(ctx, func() {
		defer wg.Done()
		s.close(context.Cause(ctx))
	})
	wg.Go(func() { s.keepAlive(ctx) })
	if s.cfg.Published != nil {
		wg.Go(func() { s.takePublications(ctx) })
	}
	err := s.read()
	s.close(err)
	if stop() {
		wg.Done()
	}
	cancel()
	wg.Wait()
	s.w.helpers.Wait()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if errors.Is(s.err, errDrained) {
		return nil
	}
	return s.err
}

// close ends the session for the given reason, and every stream with it. The
// first reason stands.
func (s *Session) close(err error) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	if err == nil {
		err = errDrained
	}
	s.err = err
	lost := make([]*Stream, 0, len(s.streams))
	for _, st := range s.streams {
		lost = append(lost, st)
	}
	clear(s.streams)
	s.mu.Unlock()
	s.w.close(err)
	// Whoever waits is told first: to close TLS can take a while with a peer
	// that reads no more.
	for _, st := range lost {
		st.fail(&StreamError{Code: CodeLost, Text: cut(err.Error())})
	}
	close(s.ended)
	s.once.Do(func() { close(s.drained) })
	s.conn.Close()
}

// keepAlive pings, and gives up a peer that is silent. The ping goes out
// whatever the reader does, and a write that blocks has its own deadline, so
// that a peer that neither reads nor writes is noticed too.
func (s *Session) keepAlive(ctx context.Context) {
	seen, since := s.frames.Load(), time.Now()
	for s.ping(); ; s.ping() { // the first at once: it tells how far away the peer is
		wait := time.Duration(float64(s.cfg.PingEvery) * (0.8 + 0.4*rand.Float64()))
		if left := s.cfg.DeadAfter - time.Since(since); left < wait {
			wait = max(left, 0) // look when it is due, not at the next ping
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		now := time.Now()
		if n := s.frames.Load(); n != seen {
			seen, since = n, now
		} else if now.Sub(since) >= s.cfg.DeadAfter {
			s.close(errDead)
			return
		}
	}
}

func (s *Session) ping() {
	s.w.control(framePing, 0, 0, binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())))
}

func (s *Session) pong(p []byte) {
	if len(p) != 8 {
		return
	}
	sent := int64(binary.BigEndian.Uint64(p))
	if sent != 0 && sent == s.mark.Load() {
		signal(s.marked)
	}
	d := time.Since(time.Unix(0, sent))
	if d <= 0 || d > time.Hour {
		return
	}
	if old := s.rtt.Load(); old > 0 {
		d = (time.Duration(old)*7 + d) / 8
	}
	s.rtt.Store(int64(d))
}

// Drain tells the peer that no more streams will be taken (inside) or opened
// (outside), lets those under way finish, and closes the session when the
// last has ended or ctx does.
func (s *Session) Drain(ctx context.Context, why string) {
	s.mu.Lock()
	s.draining = true
	last, idle, dead := s.lastSeen, len(s.streams) == 0, s.err != nil
	s.mu.Unlock()
	if dead {
		return
	}
	s.w.control(frameGoAway, 0, 0, binary.BigEndian.AppendUint32(nil, last), []byte(cut(why)))
	if !idle {
		select {
		case <-s.drained:
		case <-ctx.Done():
		}
	}
	s.settle(ctx)
	s.close(errDrained)
}

// settle waits, for a moment, until the peer has read what was written: it
// answers a PING behind it. A connection that is closed before, with frames
// of the peer still unread, is reset by TCP, and the reset overtakes the last
// answers and the GOAWAY.
func (s *Session) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s.await(ctx)
}

// await waits until the peer has read what was written: it answers a PING
// behind it.
func (s *Session) await(ctx context.Context) {
	now := time.Now().UnixNano()
	s.mark.Store(now)
	s.w.behind(framePing, 0, binary.BigEndian.AppendUint64(nil, uint64(now)))
	select {
	case <-s.marked:
	case <-s.ended:
	case <-ctx.Done():
	}
}

// drop forgets a stream that has ended.
func (s *Session) drop(id uint32) {
	s.mu.Lock()
	delete(s.streams, id)
	s.open.Store(int32(len(s.streams)))
	last := s.draining && len(s.streams) == 0
	s.mu.Unlock()
	if last {
		s.once.Do(func() { close(s.drained) })
	}
}

func (s *Session) lookup(id uint32) *Stream {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.streams[id]
}

// Publish sends a publication to the outside. It blocks until it is written,
// not until it is taken: see Config.Acknowledged.
func (s *Session) Publish(version uint64, doc []byte) error {
	if len(doc) > maxPublication {
		return fmt.Errorf("publication of %d bytes is over %d", len(doc), maxPublication)
	}
	s.publishes.Lock()
	defer s.publishes.Unlock()
	head := binary.BigEndian.AppendUint64(nil, version)
	for {
		n, flags := len(doc), byte(flagEnd)
		if n > maxPiece {
			n, flags = maxPiece, 0
		}
		if err := s.w.sendBody(&s.turn, framePublish, flags, 0, head, doc[:n]); err != nil {
			return err
		}
		if doc = doc[n:]; flags == flagEnd {
			return nil
		}
	}
}

// takePublications hands publications on, outside the reader: to check and
// keep one takes time.
func (s *Session) takePublications(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-s.mail:
			text := ""
			if err := s.cfg.Published(p.version, p.doc); err != nil {
				text = cut(err.Error())
			}
			s.w.control(framePublished, 0, 0, binary.BigEndian.AppendUint64(nil, p.version), []byte(text))
		}
	}
}
