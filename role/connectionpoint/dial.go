package connectionpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/channel"
)

const (
	wireBuffer = 128 << 10 // lets one system call read many TLS records
	oneRecord  = 17 << 10  // of TLS within a WebSocket, which gives no more at once
)

// dial makes a connection by the first of the ways that can be used.
// replacing names the instance of the connection it is to replace, if any.
func (l *link) dial(ctx context.Context, ways []*way, replacing string) (*held, error) {
	var errs []error
	ways = order(ways, l.p.cfg.Now().Add(-l.p.live.Load().cfg.BetterEvery/2))
	for i, w := range ways {
		limit := dialTime
		if i < len(ways)-1 {
			limit = nextTime
		}
		dctx, cancel := context.WithTimeout(ctx, limit)
		h, err := l.by(dctx, w, replacing)
		cancel()
		if ctx.Err() != nil && err != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, errNoSeat) { // the way is good
			w.note(nil, l.p.cfg.Now())
			return nil, err
		}
		w.note(err, l.p.cfg.Now())
		if err == nil {
			l.p.log.Info("channel is up", "gateway", l.place.label, "instance", h.instance, "connection", h.s.Connection(),
				"transport", w.transport, "address", w.addr, "proxy", h.via, "inspected_by", h.inspector)
			return h, nil
		}
		if len(ways) > 1 {
			err = fmt.Errorf("%s: %w", w, err)
			if i < len(ways)-1 {
				l.p.log.Warn("channel falls back", "gateway", l.place.label, "err", err, "to", ways[i+1].String())
			}
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// by makes a connection by one way: names are looked up anew, both ends are
// proven, hellos exchanged.
func (l *link) by(ctx context.Context, w *way, replacing string) (h *held, err error) {
	live := l.p.live.Load()
	raw, via, err := live.dialer.dial(ctx, w)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			raw.Close()
		}
	}()
	defer context.AfterFunc(ctx, func() { raw.Close() })() // the hellos know no context
	h = &held{l: l, way: w, via: via, dialed: time.Now(), ended: make(chan error, 1)}
	var under net.Conn = channel.NewWire(raw, wireBuffer)
	if w.transport == transportHTTPS {
		if under, h.inspector, err = l.socket(ctx, w, raw); err != nil {
			return nil, err
		}
		under = channel.NewGather(under, oneRecord)
	}
	settings := live.identity.ChannelClient()
	if host, _, _ := net.SplitHostPort(w.addr); net.ParseIP(host) == nil {
		settings.ServerName = host // for what may route by it; who answers is proven by role
	}
	t := tls.Client(under, settings)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	h.s, err = channel.Inside(t, channel.Config{
		Name: l.p.cfg.Name, Handler: h.handle, Log: l.p.log, MaxStreams: l.p.cfg.MaxRequests * 2,
		Acknowledged: func(version uint64, problem string) { h.acknowledged(version, problem) },
	})
	if err != nil {
		return nil, err
	}
	h.instance = h.s.Peer()
	if err := l.place.take(h.instance, replacing); err != nil {
		h.decline(ctx)
		return nil, err
	}
	h.news = l.place.newsOf(h.instance)
	return h, nil
}

// handle takes a request that came.
func (h *held) handle(st *channel.Stream) {
	if h.declined {
		st.Reset(channel.CodeRefused, "this connection is not wanted")
		return
	}
	h.l.p.handle(job{st, h.l.place.index})
}

// decline ends a connection that is not wanted. The gateway counts on it
// already, and may have sent requests: it has to hear that none was handed on.
func (h *held) decline(ctx context.Context) {
	h.declined = true
	var running sync.WaitGroup
	running.Go(func() { h.s.Run(ctx) })
	h.s.Drain(ctx, "there are enough")
	running.Wait()
}

// socket makes the WebSocket of a channel over HTTPS, on TLS of its own.
func (l *link) socket(ctx context.Context, w *way, raw net.Conn) (s net.Conn, inspector string, err error) {
	host, port, _ := net.SplitHostPort(w.addr)
	outer := l.p.live.Load().outer
	t := tls.Client(channel.NewWire(raw, wireBuffer), outer.Settings(host))
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, "", fmt.Errorf("https: %w", err)
	}
	state := t.ConnectionState()
	inspector = outer.Inspector(&state, host)
	authority := w.addr
	if port == "443" {
		authority = host
		if net.ParseIP(host) != nil && net.ParseIP(host).To4() == nil {
			authority = "[" + host + "]"
		}
	}
	path := cmg.ChannelPath
	if l.place.name != "" {
		path += "/" + l.place.name
	}
	s, err = channel.DialWebSocket(ctx, t, authority, path)
	var refused *channel.WebSocketRefused
	if errors.As(err, &refused) {
		switch refused.Status {
		case http.StatusMisdirectedRequest:
			err = fmt.Errorf("%w: %w", errNoSeat, err)
		case http.StatusUpgradeRequired:
			err = fmt.Errorf("https: something on the way takes the wish for a WebSocket away: %w", err)
		}
	}
	return s, inspector, err
}
