package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// What a server gets where it says nothing: a client may not hold a
// connection by sending its head slowly, or nothing at all.
const (
	headTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	maxHead     = 64 << 10 // bytes
)

// Serve serves ln, with TLS when srv.TLSConfig is set, until ctx ends. Then
// it takes no more connections, lets requests that are under way finish for
// at most grace, and cuts those that have not. It returns nil when every
// request could finish; ln is closed in any case. Requests under way do not
// see ctx end.
//
// Limits that srv leaves at zero are filled in: 10 s for a request's head,
// 2 min for an idle connection, 64 KiB of head; a nil ErrorLog is silent.
func Serve(ctx context.Context, srv *http.Server, ln net.Listener, grace time.Duration) error {
	if srv.ReadHeaderTimeout == 0 {
		srv.ReadHeaderTimeout = headTimeout
	}
	if srv.IdleTimeout == 0 {
		srv.IdleTimeout = idleTimeout
	}
	if srv.MaxHeaderBytes == 0 {
		srv.MaxHeaderBytes = maxHead
	}
	if srv.ErrorLog == nil {
		srv.ErrorLog = log.New(io.Discard, "", 0)
	}
	open := &connections{at: map[net.Conn]connection{}, next: srv.ConnState}
	srv.ConnState = open.changed
	var leaving atomic.Bool
	srv.Handler = parting(srv.Handler, &leaving)
	served := make(chan error, 1)
	go func() {
		if srv.TLSConfig != nil {
			served <- srv.ServeTLS(ln, "", "")
		} else {
			served <- srv.Serve(ln)
		}
	}()
	select {
	case err := <-served:
		srv.Close()
		ln.Close() // where TLS settings without a certificate kept it from being served
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	leaving.Store(true)
	ln.Close()
	open.part(stop, min(parted, grace/2))
	open.closeSilent()
	err := srv.Shutdown(stop)
	if err != nil {
		if n := open.active(); n > 0 {
			err = fmt.Errorf("drain %s: %d connections with requests under way were cut after %s: %w", ln.Addr(), n, grace, err)
		} else {
			err = nil
		}
		srv.Close()
	}
	if e := <-served; !errors.Is(e, http.ErrServerClosed) && !errors.Is(e, net.ErrClosed) && err == nil {
		err = fmt.Errorf("serve %s: %w", ln.Addr(), e)
	}
	return err
}

// parted is how long connections are kept that wait for their next request,
// so that the answer to it can say that they end: one that is closed while a
// request is on its way loses it.
const parted = time.Second

// parting says with each answer that the connection ends, once leaving is
// true.
func parting(h http.Handler, leaving *atomic.Bool) http.Handler {
	if h == nil {
		h = http.DefaultServeMux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// part waits until all connections have ended by themselves, for at most d.
func (c *connections) part(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for c.waiting() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// waiting counts connections that may have a request on its way.
func (c *connections) waiting() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.at {
		if at.state != http.StateNew || time.Since(at.since) <= silent {
			n++
		}
	}
	return n
}

// silent is how old a connection is that has not asked for anything and may
// be closed at once. Clients keep such ones in store; Shutdown alone would
// wait for each until it is five seconds old.
const silent = time.Second

// connections knows the state of every open connection of a server.
type connections struct {
	next func(net.Conn, http.ConnState) // the server's own hook; may be nil

	mu sync.Mutex
	at map[net.Conn]connection
}

type connection struct {
	state http.ConnState
	since time.Time
}

func (c *connections) changed(conn net.Conn, s http.ConnState) {
	c.mu.Lock()
	if s == http.StateClosed || s == http.StateHijacked {
		delete(c.at, conn)
	} else {
		c.at[conn] = connection{s, time.Now()}
	}
	c.mu.Unlock()
	if c.next != nil {
		c.next(conn, s)
	}
}

func (c *connections) closeSilent() {
	c.mu.Lock()
	var old []net.Conn
	for conn, at := range c.at {
		if at.state == http.StateNew && time.Since(at.since) > silent {
			old = append(old, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range old {
		conn.Close()
	}
}

func (c *connections) active() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.at {
		if at.state == http.StateActive {
			n++
		}
	}
	return n
}
