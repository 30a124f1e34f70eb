package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/meter"
)

// h2Front serves clients that chose HTTP/2 with the standard library's
// server and leads their requests onto the common path.
type h2Front struct {
	g        *Gateway
	srv      *http.Server
	conns    chan net.Conn
	done     chan struct{}
	once     sync.Once
	mu       sync.Mutex
	stopped  bool
	handlers sync.WaitGroup
}

func newH2Front(g *Gateway) *h2Front {
	f := &h2Front{g: g, conns: make(chan net.Conn), done: make(chan struct{})}
	f.srv = &http.Server{
		Handler:           http.HandlerFunc(f.handle),
		MaxHeaderBytes:    2 * h1.MaxHead, // beyond h1.MaxHead readH2 refuses, with a reason
		ReadHeaderTimeout: g.limits.head,
		IdleTimeout:       g.limits.idle,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 250, MaxReceiveBufferPerConnection: 4 << 20, MaxReceiveBufferPerStream: 1 << 20,
			SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, WriteByteTimeout: g.limits.write},
	}
	return f
}

// run serves until stop.
func (f *h2Front) run() {
	if err := f.srv.Serve(f); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		f.g.log.Error("http/2", "err", err)
	}
}

// serve hands over a connection after its handshake.
func (f *h2Front) serve(t *tls.Conn) {
	select {
	case f.conns <- t:
	case <-f.done:
		t.Close()
	}
}

// stop lets requests under way finish within the limit.
func (f *h2Front) stop(limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if f.srv.Shutdown(ctx) != nil {
		f.srv.Close()
	}
	f.mu.Lock()
	f.stopped = true // one that only begins now has no connection any more
	f.mu.Unlock()
	f.handlers.Wait()
}

func (f *h2Front) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stopped {
		f.handlers.Add(1)
	}
	return !f.stopped
}

// Accept, Close and Addr make the front the listener of its own server.
func (f *h2Front) Accept() (net.Conn, error) {
	select {
	case c := <-f.conns:
		return c, nil
	case <-f.done:
		return nil, net.ErrClosed
	}
}

func (f *h2Front) Close() error {
	f.once.Do(func() { close(f.done) })
	return nil
}

func (f *h2Front) Addr() net.Addr { return &net.TCPAddr{} }

func (f *h2Front) handle(w http.ResponseWriter, r *http.Request) {
	if !f.enter() {
		panic(http.ErrAbortHandler)
	}
	defer f.handlers.Done()
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	req, out := new(h1.Request), &h2Answer{w: w, r: r, ctl: http.NewResponseController(w), limits: f.g.limits}
	x := exchange{g: f.g, req: req, remote: host, out: out, bill: bill{shard: meter.Pick()},
		evidence: auth.Evidence{Certificates: r.TLS.PeerCertificates, Authorization: r.Header.Get("Authorization")}}
	out.x = &x
	if err := readH2(req, r); err != nil {
		var bad *h1.Error
		errors.As(err, &bad)
		x.begin(r.Method, []byte(r.URL.Path))
		x.refuse(badHead(bad))
		x.account(int64(requestText(req)))
		return
	}
	if req.Length != 0 {
		x.body = out
	}
	out.in = int64(requestText(req))
	defer context.AfterFunc(r.Context(), x.abandon)()
	err := x.run(r.Context())
	x.account(out.in)
	if err != nil {
		panic(http.ErrAbortHandler) // resets this stream, not the connection
	}
}

// readH2 makes a head of an HTTP/2 request under the rules of package h1.
func readH2(req *h1.Request, r *http.Request) error {
	length := r.ContentLength
	if length < 0 {
		length = h1.Chunked
	}
	if err := req.Begin(r.Method, r.Host, r.RequestURI, length); err != nil {
		return err
	}
	size := len(r.RequestURI)
	for name, values := range r.Header {
		for _, v := range values {
			if size += len(name) + len(v) + 4; size > h1.MaxHead {
				return &h1.Error{Status: 431, Why: "the head is longer than 64 KiB"}
			}
			if err := req.AddPeer(name, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// h2Answer reads the body from one HTTP/2 stream and writes the answer to it.
type h2Answer struct {
	x      *exchange
	in     int64 // bytes of the request
	w      http.ResponseWriter
	r      *http.Request
	ctl    *http.ResponseController
	limits timeLimits
	armed  time.Time // when the time limit of reads was last set

	mu      sync.Mutex
	watched bool
}

// Read reads the request's body. Its time limit is set anew after a quarter
// of it: to set it costs more than to read.
func (a *h2Answer) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(a.armed) > a.limits.body/4 {
		a.armed = now
		a.ctl.SetReadDeadline(now.Add(a.limits.body))
	}
	n, err := a.r.Body.Read(p)
	a.in += int64(n)
	return n, err
}

func (a *h2Answer) watch(st *channel.Stream) (unwatch func()) {
	a.setWatched(true)
	st.Notify(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.watched && st.Unwanted() { // else the handler may be over, and a.ctl of no more use
			a.ctl.SetReadDeadline(past)
		}
	})
	return func() {
		st.Notify(nil)
		a.setWatched(false)
	}
}

func (a *h2Answer) setWatched(on bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watched = on
}

func (a *h2Answer) answer(res *h1.Response, first []byte, end bool) error {
	a.x.give(answerText(res))
	h := a.w.Header()
	for _, f := range res.Fields {
		h.Add(string(f.Name), string(f.Value))
	}
	// To HEAD a length of 0 is one that is not known; with 304 some clients
	// wait for what the length promises.
	if !h1.NoBody(nil, res.Status) && (res.Length > 0 || res.Length == 0 && a.r.Method != "HEAD") {
		h.Set("Content-Length", strconv.FormatInt(res.Length, 10))
	}
	if a.x.g.draining.Load() { // ends the connection, in HTTP/2's way
		h.Set("Connection", "close")
	}
	if h.Get("Content-Type") == "" {
		h["Content-Type"] = nil // net/http would guess one
	}
	a.w.WriteHeader(res.Status)
	return a.piece(first, end)
}

// piece bounds how long the client may take for it: HTTP/2 lets it stop one
// stream and go on with others.
func (a *h2Answer) piece(p []byte, end bool) error {
	a.ctl.SetWriteDeadline(time.Now().Add(a.limits.write))
	if len(p) > 0 {
		a.x.give(len(p))
		if _, err := a.w.Write(p); err != nil {
			return err
		}
	}
	if end {
		return nil
	}
	if err := a.ctl.Flush(); err != nil {
		return err
	}
	return a.ctl.SetWriteDeadline(time.Time{})
}

// proceed has nothing to do: net/http tells the client when its body is read.
func (a *h2Answer) proceed() error { return nil }

func (a *h2Answer) wait(ctx context.Context, st *channel.Stream) error {
	for !st.HasHead() {
		select {
		case <-st.Ready():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
