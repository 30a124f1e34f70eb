package connectionpoint

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// A target is one server behind the mappings, and the connections to it that
// are idle. The one used last is used first: the others fall idle and are
// closed.
type target struct {
	address string // host:port to dial
	host    string // for the Host field
	tls     *tls.Config
	h2      *h2Pool // for requests that wait; nil: not over TLS
	origin
	most   int64          // failures in a row; -1: any number
	broken chan<- *target // takes it when there were as many

	mu     sync.Mutex
	idle   []*conn
	closed bool
}

// A conn is one keep-alive connection to a target.
type conn struct {
	net.Conn          // what HTTP is written to
	raw      net.Conn // the TCP connection under it
	rd       *h1.Reader
	used     bool
	since    time.Time // when it fell idle
	by       time.Time // the deadline as set last; zero: none
	sent     int64     // bytes above TLS, of the request under way
	got      int64
}

// within sees to it that reads and writes end between d and a quarter more
// from now. To set a deadline costs more than to see that the last one still
// serves.
func (c *conn) within(d time.Duration) {
	now := time.Now()
	if left := c.by.Sub(now); left < d || left > d+d/4 {
		c.by = now.Add(d + d/4)
		c.raw.SetDeadline(c.by)
	}
}

// unbounded takes the deadline of reads away.
func (c *conn) unbounded() {
	c.by = time.Time{}
	c.raw.SetReadDeadline(time.Time{})
}

const (
	upstreamDial = 10 * time.Second
	keepIdle     = 30 * time.Second // shorter than servers commonly keep theirs
	maxIdle      = 512              // connections to one target
	trusted      = time.Second      // a connection idle for less is not looked at
)

// upstreams holds one target for each scheme and address, for the life of
// the connection point: a new map does not drop connections.
type upstreams struct {
	own     *tls.Config            // for servers that are not listed
	tls     map[string]*tls.Config // by scheme://host:port
	origins OriginConfig
	broken  chan<- *target // takes those that cannot be reached

	answerTime time.Duration

	mu  sync.Mutex
	all map[string]*target
}

func newUpstreams(id *auth.Identity, c Config, broken chan<- *target) (*upstreams, error) {
	u := &upstreams{own: id.Client(), answerTime: c.AnswerTime, tls: map[string]*tls.Config{}, origins: c.Origins, broken: broken, all: map[string]*target{}}
	for _, t := range c.Targets {
		key, _, err := splitTarget(t.URL)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(key, "https://") {
			return nil, fmt.Errorf("%q is not https: there is nothing to set: %w", t.URL, cmg.ErrInvalid)
		}
		conf, err := auth.ClientTo(auth.ClientFiles{Roots: t.Roots, Certificate: t.Certificate, Key: t.Key})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.URL, err)
		}
		u.tls[key] = conf
	}
	return u, nil
}

// splitTarget gives scheme://host:port and the base path without its closing
// slash.
func splitTarget(s string) (key, base string, err error) {
	t, err := url.Parse(s)
	if err != nil || t.Host == "" || t.Scheme != "http" && t.Scheme != "https" {
		return "", "", fmt.Errorf("%.200q is not http(s)://host[:port][/base]: %w", s, cmg.ErrInvalid)
	}
	port := t.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[t.Scheme]
	}
	path, err := h1.NormalPath([]byte(strings.TrimSuffix(t.EscapedPath(), "/") + "/"))
	if err != nil {
		return "", "", fmt.Errorf("%.200q: %w", s, err)
	}
	return t.Scheme + "://" + net.JoinHostPort(strings.ToLower(t.Hostname()), port), strings.TrimSuffix(string(path), "/"), nil
}

// target finds or makes the target of an address, and its base path.
func (u *upstreams) target(s string) (*target, string, error) {
	key, base, err := splitTarget(s)
	if err != nil {
		return nil, "", err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if t := u.all[key]; t != nil {
		return t, base, nil
	}
	scheme, address, _ := strings.Cut(key, "://")
	t := &target{address: address, host: address, most: u.origins.Failures, broken: u.broken}
	t.origin.begin(u.origins)
	host, port, _ := net.SplitHostPort(address)
	if port == map[string]string{"http": "80", "https": "443"}[scheme] {
		t.host = host
		if strings.Contains(host, ":") {
			t.host = "[" + host + "]"
		}
	}
	if scheme == "https" {
		conf := u.own
		if c := u.tls[key]; c != nil {
			conf = c
		}
		t.tls = conf.Clone()
		t.tls.ServerName = host
		t.tls.NextProtos = []string{"http/1.1"}
		t.h2 = newH2Pool(t)
	}
	u.all[key] = t
	return t, base, nil
}

// retire closes what is idle. What is under way ends by itself.
func (u *upstreams) retire() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.all {
		t.mu.Lock()
		t.closed = true
		for _, c := range t.idle {
			c.raw.Close()
		}
		t.idle = nil
		t.mu.Unlock()
		if t.h2 != nil {
			t.h2.retire()
		}
	}
}

// close ends all connections.
func (u *upstreams) close() {
	u.retire()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.all {
		if t.h2 != nil {
			t.h2.close()
		}
	}
}

// retired are the upstreams of earlier configurations on which requests still
// wait.
type retired struct {
	mu  sync.Mutex
	all []*upstreams
}

func (r *retired) add(u *upstreams) {
	u.retire()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, u)
}

// tend looks after them, and forgets those that nobody needs any more.
func (r *retired) tend(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = slices.DeleteFunc(r.all, func(u *upstreams) bool {
		u.tend(now)
		return u.http2() == 0
	})
}

func (r *retired) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.all {
		u.close()
	}
	r.all = nil
}

// tendUpstreams closes connections that have been idle for too long, until
// ctx ends: those of a target that nobody asks for any more as well.
func (p *Point) tendUpstreams(ctx context.Context) {
	tick := time.NewTicker(keepIdle / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.live.Load().pool.tend(now)
			p.retired.tend(now)
		}
	}
}

func (u *upstreams) tend(now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.all {
		t.mu.Lock()
		t.drop(now)
		t.mu.Unlock()
		if t.h2 != nil {
			t.h2.tend(now, u.answerTime)
		}
	}
}

// get gives an idle connection that the server has not closed, or nil. look
// is for requests that cannot be sent again: a connection that has fallen
// idle only now is looked at as well.
func (t *target) get(look bool) *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.idle) > 0 {
		c := t.idle[len(t.idle)-1]
		t.idle = t.idle[:len(t.idle)-1]
		age := time.Since(c.since)
		if age < trusted && !(look && canLook) || age < keepIdle && alive(c.raw) {
			return c
		}
		c.raw.Close()
	}
	return nil
}

// put keeps a connection for the next request, and closes what has been idle
// for too long.
func (t *target) put(c *conn) {
	c.used, c.since = true, time.Now()
	c.rd.Release()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || c.rd.Buffered() > 0 {
		c.raw.Close()
		return
	}
	t.idle = append(t.idle, c)
	t.drop(c.since)
}

// drop closes what has been idle for too long at a time, and what is too
// many. It is called with mu held.
func (t *target) drop(now time.Time) {
	old := 0
	for old < len(t.idle) && (len(t.idle)-old > maxIdle || now.Sub(t.idle[old].since) > keepIdle) {
		t.idle[old].raw.Close()
		old++
	}
	if old > 0 {
		t.idle = slices.Delete(t.idle, 0, old)
	}
}

// connect gives an idle connection, unless fresh, or makes a new one.
func (r *relay) connect(st *channel.Stream, t *target, fresh bool) (*conn, error) {
	if !fresh {
		if c := t.get(!safe(r.method)); c != nil {
			return c, nil
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	st.Notify(func() { // nobody waits for it any more
		if st.Err() != nil {
			cancel()
		}
	})
	defer st.Notify(nil)
	c, err := t.dial(ctx)
	if st.Err() == nil { // else nobody knows
		t.reached(err)
	}
	return c, err
}

// dial makes a new connection. The name is looked up anew each time.
func (t *target) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamDial)
	defer cancel()
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", t.address)
	if err != nil {
		return nil, err
	}
	raw = channel.Quick(raw)
	if t.tls != nil {
		s := tls.Client(raw, t.tls)
		if err := s.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, fmt.Errorf("tls to %s: %w", t.address, err)
		}
		return newConn(s, raw), nil
	}
	return newConn(raw, raw), nil
}

func newConn(over, raw net.Conn) *conn {
	c := &conn{Conn: over, raw: raw}
	c.rd = h1.NewReader(c)
	return c
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.got += int64(n)
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.sent += int64(n)
	return n, err
}
