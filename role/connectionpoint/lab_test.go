package connectionpoint

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// An outside plays a gateway: it listens for connection points, and sends
// requests down their channels.
type outside struct {
	t    testing.TB
	site *site
	addr string

	mu        sync.Mutex
	ln        net.Listener
	sessions  []*channel.Session
	raw       []net.Conn
	version   uint64
	published []uint64 // versions that arrived
	refuse    error    // what is said to a publication
	running   sync.WaitGroup
}

func listen(t testing.TB) *outside {
	g := &outside{t: t, site: getSite(t), addr: "127.0.0.1:0"}
	g.open()
	t.Cleanup(g.close)
	return g
}

// open listens, again on the same address after a close.
func (g *outside) open() {
	ln := must[net.Listener](g.t)(net.Listen("tcp", g.addr))
	g.ln, g.addr = ln, ln.Addr().String()
	g.running.Go(func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			g.running.Go(func() { g.serve(c) })
		}
	})
}

func (g *outside) serve(c net.Conn) {
	defer c.Close()
	t := tls.Server(channel.NewGather(c, 0), g.site.gateway.ChannelServer())
	g.mu.Lock()
	version := g.version
	g.mu.Unlock()
	s, err := channel.Outside(t, channel.Config{Name: "gw-1", Connection: "gw-1-x", Version: version, Published: func(v uint64, doc []byte) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.published = append(g.published, v)
		if g.refuse == nil {
			g.version = v
		}
		return g.refuse
	}})
	if err != nil {
		return
	}
	g.mu.Lock()
	g.sessions, g.raw = append(g.sessions, s), append(g.raw, c)
	g.mu.Unlock()
	s.Run(context.Background())
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, x := range g.sessions {
		if x == s {
			g.sessions = append(g.sessions[:i:i], g.sessions[i+1:]...)
			g.raw = append(g.raw[:i:i], g.raw[i+1:]...)
			break
		}
	}
}

// close goes away as a gateway that is killed.
func (g *outside) close() {
	g.ln.Close()
	g.cut()
	g.running.Wait()
}

func (g *outside) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.raw {
		c.Close()
	}
}

// up waits until so many channels are there.
func (g *outside) up(n int) {
	g.t.Helper()
	eventually(g.t, "the channels are up", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.sessions) == n
	})
}

func (g *outside) heard() []uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]uint64(nil), g.published...)
}

// A reply is what came back for a request.
type reply struct {
	status int
	reason string
	fields http.Header
	body   []byte
	err    error // how the stream ended, if not with its message
}

// open begins a request on the first channel; fields are pairs.
func (g *outside) begin(method, target string, length int64, first []byte, end bool, fields ...string) *channel.Stream {
	g.t.Helper()
	var q h1.Request
	if err := q.Begin(method, "gw.cmg.test", target, length); err != nil {
		g.t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		q.Add(fields[i], []byte(fields[i+1]))
	}
	return g.raise(&q, first, end)
}

// raise sends a head as it is.
func (g *outside) raise(q *h1.Request, first []byte, end bool) *channel.Stream {
	g.t.Helper()
	g.mu.Lock()
	s := g.sessions[0]
	g.mu.Unlock()
	return must[*channel.Stream](g.t)(s.Open(q.AppendCompact(nil), first, end))
}

// finish reads what comes back.
func finish(st *channel.Stream) (a reply) {
	defer st.Close()
	h, err := st.Head()
	if err != nil {
		return reply{err: err}
	}
	var r h1.Response
	if err := r.ParseCompact(bytes.Clone(h)); err != nil {
		return reply{err: err}
	}
	a = reply{status: r.Status, reason: string(r.Reason), fields: http.Header{}}
	for _, f := range r.Fields {
		a.fields.Add(string(f.Name), string(f.Value))
	}
	p, _ := st.First()
	a.body = bytes.Clone(p)
	for {
		p, err := st.Next()
		if err == io.EOF {
			return a
		}
		if err != nil {
			a.err = err
			return a
		}
		a.body = append(a.body, p...)
	}
}

// do sends a request with a whole body.
func (g *outside) do(method, target string, body []byte, fields ...string) reply {
	g.t.Helper()
	if len(body) <= channel.MaxInline {
		return finish(g.begin(method, target, int64(len(body)), body, true, fields...))
	}
	st := g.begin(method, target, int64(len(body)), nil, false, fields...)
	if err := st.WriteEnd(body); err != nil && !channel.Stopped(err) {
		st.Close()
		return reply{err: err}
	}
	return finish(st)
}

// A running is a connection point under test.
type running struct {
	t    testing.TB
	p    *Point
	stop context.CancelFunc
	done chan struct{}
	err  error
}

// run starts a connection point that the test's end stops.
func run(t testing.TB, c Config) *running {
	t.Helper()
	if testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	r := &running{t: t, p: must[*Point](t)(New(c)), done: make(chan struct{})}
	r.launch()
	eventually(t, "a map is there", func() bool { return r.p.maps.table.Load() != nil })
	return r
}

func (r *running) launch() {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		defer close(r.done)
		r.err = r.p.Run(ctx)
	}()
	r.t.Cleanup(r.end)
}

func (r *running) end() {
	r.stop()
	within(r.t, "Run returns", r.done)
	if r.err != nil {
		r.t.Error(r.err)
	}
}

// start runs a connection point with a channel to a gateway.
func start(t testing.TB, pairs ...string) (*outside, *running) {
	t.Helper()
	g := listen(t)
	r := run(t, g.site.config(t, g.addr, pairs...))
	g.up(1)
	return g, r
}

// server runs an HTTP server of the standard library inside.
func server(t testing.TB, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

// A wire is a connection to a server that a test writes by hand.
type wire struct {
	net.Conn
	n  int // of the connection, from 1
	rd *h1.Reader
}

// next reads one request with its body.
func (w *wire) next() (method, body string, err error) {
	var q h1.Request
	if err := w.rd.Request(&q); err != nil {
		return "", "", err
	}
	method = string(q.Method)
	b := w.rd.Body(q.Length)
	all, err := io.ReadAll(&b)
	return method, string(all), err
}

func (w *wire) say(s string) { io.WriteString(w, s) }

// byHand runs a server whose connections a test serves byte by byte.
func byHand(t testing.TB, f func(*wire)) (address string) {
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	var running sync.WaitGroup
	running.Go(func() {
		for n := 1; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(patience))
			running.Go(func() {
				defer c.Close()
				f(&wire{c, n, h1.NewReader(c)})
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		running.Wait()
	})
	return ln.Addr().String()
}

const empty = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// echo answers with what was sent, and with how it was sent.
func echo(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Method", r.Method)
	w.Header().Set("X-Target", r.RequestURI)
	w.Header().Set("X-Host", r.Host)
	w.Header().Set("X-Coding", strings.Join(r.TransferEncoding, ","))
	for _, n := range []string{"Authorization", "Range", "CMG-Caller", "X-Forwarded-For", "CCMClientID"} {
		w.Header().Set("X-Got-"+n, strings.Join(r.Header.Values(n), "|"))
	}
	w.Write(b)
}
