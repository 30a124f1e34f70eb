package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// patience bounds what a test waits for; nothing takes so long.
const patience = 10 * time.Second

// eventually waits for a condition that nobody signals.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// within waits for a signal.
func within[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("not within %v: %s", patience, what)
	}
	return v
}

// A running is a gateway under test.
type running struct {
	t       testing.TB
	site    *site
	gw      *Gateway
	clients string // address that clients dial
	points  string // address that connection points dial
	stop    context.CancelFunc
	done    chan struct{} // closed with err set, when Run has returned
	err     error
}

// heard takes the addresses from the gateway's log: they are not known
// before it listens.
type heard struct {
	slog.Handler
	up chan [2]string
}

func (h heard) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "gateway is up" {
		var a [2]string
		r.Attrs(func(x slog.Attr) bool {
			switch x.Key {
			case "clients":
				a[0] = x.Value.String()
			case "channels":
				a[1] = x.Value.String()
			}
			return true
		})
		h.up <- a
	}
	return h.Handler.Handle(ctx, r)
}

// run starts a gateway that the test's end stops. change may set what New
// has made.
func run(t testing.TB, c Config, change ...func(*Gateway)) *running {
	t.Helper()
	up := make(chan [2]string, 1)
	c.Log = slog.New(heard{slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}), up})
	if testing.Verbose() {
		c.Log = slog.New(heard{slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}), up})
	}
	r := &running{t: t, site: getSite(t), gw: must[*Gateway](t)(New(c)), done: make(chan struct{})}
	r.gw.limits.settle = 50 * time.Millisecond
	r.gw.limits.report = time.Hour // the inside of a test counts streams
	for _, f := range change {
		f(r.gw)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		defer close(r.done)
		r.err = r.gw.Run(ctx)
	}()
	t.Cleanup(r.end)
	select {
	case a := <-up:
		r.clients, r.points = a[0], a[1]
	case <-r.done:
		t.Fatal(r.err)
	}
	return r
}

// end stops the gateway and waits for it.
func (r *running) end() {
	r.stop()
	within(r.t, "the gateway ends", r.done)
	if r.err != nil {
		r.t.Error(r.err)
	}
}

// start runs a gateway with a publication and one connection point.
func start(t testing.TB, handler func(*request), change ...func(*Gateway)) (*running, *inside) {
	t.Helper()
	r := run(t, getSite(t).config(t), change...)
	in := r.connect("cp-1", handler)
	in.publish(r.site.publication(t, 1))
	return r, in
}

// An inside plays a connection point on one connection.
type inside struct {
	t       testing.TB
	gw      *running
	name    string
	raw     net.Conn
	s       *channel.Session
	handler func(*request)
	acks    chan string
	streams atomic.Int64 // opened by the gateway
	ended   chan struct{}
	busy    sync.WaitGroup
}

// connect dials the gateway as a connection point, and waits until the
// gateway counts on it.
func (r *running) connect(name string, handler func(*request)) *inside {
	r.t.Helper()
	in := &inside{t: r.t, gw: r, name: name, handler: handler, acks: make(chan string, 16), ended: make(chan struct{})}
	in.raw = must[net.Conn](r.t)(net.Dial("tcp", r.points))
	t := tls.Client(channel.NewGather(in.raw, 0), r.site.point(r.t, name).ChannelClient())
	var err error
	if in.s, err = channel.Inside(t, channel.Config{Name: name, Handler: in.handle, Acknowledged: func(_ uint64, problem string) { in.acks <- problem }}); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(in.ended)
		in.s.Run(ctx)
		in.busy.Wait()
	}()
	r.t.Cleanup(func() {
		cancel()
		within(r.t, "the inside ends", in.ended)
	})
	eventually(r.t, name+" is connected", func() bool { return r.channels(name) > 0 })
	return in
}

// channels is how many connections the gateway counts on.
func (r *running) channels(name string) int {
	for _, pt := range *r.gw.siteNamed(r.site.code).points.list.Load() {
		if pt.name == name {
			return len(*pt.sessions.Load())
		}
	}
	return 0
}

func (in *inside) handle(st *channel.Stream) {
	in.streams.Add(1)
	in.busy.Go(func() {
		defer st.Close()
		q := &request{in: in, st: st}
		h, err := st.Head()
		if err != nil {
			return
		}
		if err := q.head.ParseCompact(bytes.Clone(h)); err != nil {
			in.t.Errorf("the gateway sent a head that is none: %v", err)
			return
		}
		in.handler(q)
	})
}

// kill cuts the connection as kill -9 would.
func (in *inside) kill() { in.raw.Close() }

// publish sends a publication and gives the gateway's answer.
func (in *inside) publish(version uint64, doc []byte) (problem string) {
	in.t.Helper()
	if err := in.s.Publish(version, doc); err != nil {
		in.t.Fatal(err)
	}
	return within(in.t, "the publication is answered", in.acks)
}

// settled waits until the gateway has read every frame sent so far.
func (in *inside) settled() { in.publish(in.gw.gw.version(), nil) }

// A request is a stream as the inside's handler sees it.
type request struct {
	in   *inside
	st   *channel.Stream
	head h1.Request
}

func (q *request) field(name string) string {
	for _, f := range q.head.Fields {
		if string(f.Name) == name {
			return string(f.Value)
		}
	}
	return ""
}

// body reads the whole body.
func (q *request) body() ([]byte, error) {
	p, _ := q.st.First()
	all := bytes.Clone(p)
	for {
		p, err := q.st.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, p...)
	}
}

// take reads n bytes of the body.
func (q *request) take(n int) {
	p, _ := q.st.First()
	for err := error(nil); len(p) < n && err == nil; {
		n -= len(p)
		p, err = q.st.Next()
	}
}

// begin answers with a head.
func (q *request) begin(status int, length int64, first []byte, end bool, fields ...string) error {
	r := h1.Response{Status: status, Reason: []byte(http.StatusText(status)), Length: length}
	for i := 0; i+1 < len(fields); i += 2 {
		r.Add(fields[i], []byte(fields[i+1]))
	}
	return q.st.Respond(r.AppendCompact(nil), first, end)
}

// answer answers with a whole body.
func (q *request) answer(status int, b []byte, fields ...string) error {
	if len(b) <= channel.MaxInline {
		return q.begin(status, int64(len(b)), b, true, fields...)
	}
	if err := q.begin(status, int64(len(b)), nil, false, fields...); err != nil {
		return err
	}
	return q.st.WriteEnd(b)
}

// echo answers with what was sent.
func echo(q *request) {
	if b, err := q.body(); err == nil {
		q.answer(200, b, "Content-Type", "application/x-echo", "X-Method", string(q.head.Method), "X-Target", string(q.head.Target), "X-By", q.in.name)
	}
}

// settings makes a client's TLS settings; cert may be nil.
func (r *running) settings(cert *tls.Certificate, protocols ...string) *tls.Config {
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "gw.cmg.test", NextProtos: protocols}
	c.RootCAs.AddCert(r.site.roots.Certificate())
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	return c
}

// client makes an HTTP client of the standard library.
func (r *running) client(cert *tls.Certificate, h2 bool) *http.Client {
	tr := &http.Transport{TLSClientConfig: r.settings(cert), ForceAttemptHTTP2: h2, DisableCompression: true, MaxIdleConnsPerHost: 64}
	r.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// request makes a request for c; path goes out as it is.
func (r *running) request(method, path string, body io.Reader) *http.Request {
	q := must[*http.Request](r.t)(http.NewRequest(method, "https://"+r.clients+"/", body))
	if p, query, _ := strings.Cut(path, "?"); true {
		q.URL.Opaque, q.URL.RawQuery = p, query
	}
	return q
}

// do sends a request and reads the answer.
func do(t testing.TB, c *http.Client, q *http.Request) (*http.Response, []byte) {
	t.Helper()
	resp, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

// A wire is a client's connection on which a test writes what it likes.
type wire struct {
	t testing.TB
	*tls.Conn
	br *bufio.Reader
}

func (r *running) dial(cert *tls.Certificate) *wire {
	r.t.Helper()
	c := must[*tls.Conn](r.t)(tls.Dial("tcp", r.clients, r.settings(cert)))
	r.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &wire{r.t, c, bufio.NewReader(c)}
}

func (w *wire) send(s string) {
	w.t.Helper()
	if _, err := io.WriteString(w, s); err != nil {
		w.t.Fatal(err)
	}
}

// read reads one answer to a request with the method.
func (w *wire) read(method string) (*http.Response, []byte) {
	w.t.Helper()
	resp, err := http.ReadResponse(w.br, &http.Request{Method: method})
	if err != nil {
		w.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, b
}

// over wants the connection to be at its end.
func (w *wire) over() {
	w.t.Helper()
	if b, err := w.br.ReadByte(); err == nil {
		w.t.Errorf("there is more to read: %q", b)
	} else if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
		w.t.Errorf("the connection is still open")
	}
}
