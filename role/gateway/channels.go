package gateway

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
)

// channels are the sessions with connection points, by whatever way they
// came. They end with their own context, after the last client.
type channels struct {
	ctx      context.Context // set by begin
	wg       sync.WaitGroup
	greeting chan struct{} // a place for each that has not shown yet who it is
	n        atomic.Uint64
	came     sync.Map // *channel.Session → channelRow
}

func (cs *channels) begin(ctx context.Context) {
	cs.ctx, cs.greeting = ctx, make(chan struct{}, maxGreeting)
}

func (cs *channels) wait() { cs.wg.Wait() }

// enter takes a place; false: too many strangers are there already.
func (cs *channels) enter() bool {
	select {
	case cs.greeting <- struct{}{}:
		return true
	default:
		return false
	}
}

func (cs *channels) leave() { <-cs.greeting }

// nextID makes the id of a connection.
func (g *Gateway) nextID() string {
	return g.cfg.Name + "-" + strconv.FormatUint(g.channels.n.Add(1), 10)
}

// serve runs f, which greets and serves a connection point, on its own.
func (cs *channels) serve(f func(ctx context.Context)) { cs.wg.Go(func() { f(cs.ctx) }) }

// takeChannel makes a channel of a connection to the clients' port that
// asked for the channel's protocol in its handshake.
func (g *Gateway) takeChannel(t *tls.Conn) {
	wire := t.NetConn().(*channel.Gather)
	if g.draining.Load() || !g.channels.enter() {
		t.Close()
		return
	}
	wire.Conn.(*slotConn).giveBack()
	wire.Buffer(channelReadBuffer)
	g.channels.serve(func(ctx context.Context) { g.meet(ctx, t, wayPort) })
}

// The ways a connection point can come, as the status page names them.
const (
	wayTCP   = "tcp-tls"      // to the channel's own port
	wayPort  = "tcp-tls-port" // to the clients' port
	wayHTTPS = "https"        // a WebSocket on the clients' port
)

// meet finishes the handshake of t, if need be, exchanges hellos and serves
// the session to its end. It is called with a place taken by enter.
func (g *Gateway) meet(ctx context.Context, t *tls.Conn, way string) {
	s, peer, site := g.greetPoint(ctx, t)
	g.channels.leave()
	if s == nil {
		// Not t.Close: nobody is to be waited for who has proved nothing.
		t.NetConn().Close()
		return
	}
	g.serveChannel(ctx, site, s, peer, way)
}

// isChannelPath says that a path is the channel's over HTTPS.
func isChannelPath(path []byte) bool {
	n := len(cmg.ChannelPath)
	return len(path) >= n && string(path[:n]) == cmg.ChannelPath && (len(path) == n || path[n] == '/')
}

func errNoWebSocket() error {
	return cmg.Refuse(http.StatusUpgradeRequired, "CMGService_Upgrade_Required", "this path takes WebSockets over HTTP/1.1 only; a proxy on the way may have taken the wish for one away", nil)
}

// becomeChannel makes a channel of a client's connection on which a WebSocket
// was asked for. Who it is shows the TLS within the WebSocket, the same as on
// the channel's own port: what lies between may have opened the TLS beneath.
func (c *client) becomeChannel() {
	refuse := func(status int, code, why string) {
		c.x.id, c.x.method, c.x.path, c.x.route = c.g.ids.next(), string(c.req.Method), c.req.Path, nil
		c.framing.Close = true
		c.g.counts.requests.Add(1)
		c.x.refuse(cmg.Refuse(status, code, why, nil))
		c.linger()
	}
	want := strings.TrimPrefix(string(c.req.Path[len(cmg.ChannelPath):]), "/")
	switch {
	case string(c.req.Method) != http.MethodGet || c.req.Length != 0 || c.rd.Buffered() > 0:
		refuse(http.StatusBadRequest, "CMGService_Bad_Request", "not the beginning of a WebSocket")
		return
	case want != "" && want != c.g.cfg.Name:
		refuse(http.StatusMisdirectedRequest, "CMGService_Other_Instance", "this is the instance "+c.g.cfg.Name)
		return
	case c.g.draining.Load() || !c.g.channels.enter():
		refuse(http.StatusServiceUnavailable, "CMGService_Not_Ready", "this instance takes no more channels now")
		return
	}
	fields := http.Header{}
	for _, f := range c.req.Fields {
		fields.Add(string(f.Name), string(f.Value))
	}
	c.handed = true
	host, under, wire := string(c.req.Host), c.tls, c.wire
	c.rd.Release()
	wire.Conn.(*slotConn).giveBack()
	c.g.channels.serve(func(ctx context.Context) {
		if t := c.g.openSocket(under, host, fields); t != nil {
			c.g.meet(ctx, t, wayHTTPS)
			return
		}
		c.g.channels.leave()
		under.Close()
	})
}

// close closes the connection, unless a channel has it now.
func (c *client) close() {
	if !c.handed {
		c.tls.Close()
	}
}

// openSocket answers for the WebSocket and lays the channel's TLS on it.
func (g *Gateway) openSocket(under *tls.Conn, host string, fields http.Header) *tls.Conn {
	under.SetDeadline(time.Now().Add(handshakeTime))
	s, err := channel.AcceptWebSocket(under, host, fields)
	if err != nil {
		g.log.Warn("a channel over HTTPS was refused", "from", under.RemoteAddr().String(), "err", err)
		return nil
	}
	under.SetDeadline(time.Time{})
	under.NetConn().(*channel.Gather).Buffer(channelReadBuffer)
	return tls.Server(channel.NewGather(s, oneRecord), g.live.Load().channel)
}

// greetPoint makes a channel of a connection. nil: it was refused.
func (g *Gateway) greetPoint(ctx context.Context, t *tls.Conn) (s *channel.Session, peer string, site *served) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { t.NetConn().Close() })() // the hellos know no context
	if err := t.HandshakeContext(ctx); err != nil {
		g.log.Warn("a channel was refused in its handshake", "from", t.RemoteAddr().String(), "err", err)
		return nil, "", nil
	}
	state := t.ConnectionState()
	name, ok := auth.PeerRole(&state)
	if site = g.siteNamed(name.Site); !ok || site == nil { // cannot be: the handshake checks it
		return nil, "", nil
	}
	s, err := channel.Outside(t, channel.Config{Name: g.cfg.Name, Connection: g.nextID(), Log: g.log, Version: site.version(),
		Published: func(version uint64, doc []byte) error { return g.takePublication(site, version, doc) }, Keys: g.tickets.take})
	if err != nil {
		g.log.Warn("a channel was refused", "connection_point", name.Name, "err", err)
		return nil, "", nil
	}
	return s, name.Name, site
}

func (g *Gateway) serveChannel(ctx context.Context, site *served, s *channel.Session, peer, way string) {
	g.log.Info("channel is up", "site", site.code, "connection_point", peer, "connection", s.Connection(), "transport", way)
	g.channels.note(s, site.code, peer, way)
	defer g.channels.forget(s)
	site.points.add(peer, s)
	g.updateReadiness()
	err := s.Run(ctx)
	site.points.remove(peer, s)
	g.updateReadiness()
	g.log.Info("channel is down", "site", site.code, "connection_point", peer, "connection", s.Connection(), "err", err)
}

// serveChannels accepts connection points by TCP until ln is closed.
func (g *Gateway) serveChannels(ctx context.Context, ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if !temporary(ctx, err) {
				return err
			}
			continue
		}
		if !g.channels.enter() { // whoever this is has proved nothing yet
			c.Close()
			continue
		}
		g.channels.serve(func(ctx context.Context) {
			g.meet(ctx, tls.Server(channel.NewWire(c, channelReadBuffer), g.live.Load().channel), wayTCP)
		})
	}
}

const (
	channelReadBuffer = 128 << 10 // lets one system call read many TLS records
	oneRecord         = 17 << 10  // of TLS within a WebSocket, which gives no more at once
	maxGreeting       = 1024      // connections that have not shown yet who they are
)
