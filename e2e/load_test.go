package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An origin is a server inside that counts which requests it was given.
type origin struct {
	*httptest.Server
	mu   sync.Mutex
	seen map[string]int // POSTs, by id
}

func startOrigin(t *testing.T, takes time.Duration) *origin {
	o := &origin{seen: map[string]int{}}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		id := r.Header.Get("X-Test-Id")
		if r.Method == "POST" {
			o.mu.Lock()
			o.seen[id]++
			o.mu.Unlock()
		}
		time.Sleep(takes) // so that some are under way at any time
		if err != nil {
			return
		}
		fmt.Fprintf(w, "did %s with %d", id, n)
	}))
	t.Cleanup(o.Close)
	return o
}

// twice lists the POSTs that were carried out more than once.
func (o *origin) twice() (ids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, n := range o.seen {
		if n > 1 {
			ids = append(ids, fmt.Sprintf("%s %d times", id, n))
		}
	}
	return ids
}

// A load is clients that send requests until they are told to stop: over
// HTTP/1.1 and HTTP/2, on connections that are kept and on fresh ones, GETs
// and POSTs.
type load struct {
	l    *lab
	url  string
	next atomic.Int64

	good, resumed, fresh atomic.Int64

	mu     sync.Mutex
	bad    []string
	counts map[string]int // of answers that are no 200, by status

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// loadKinds are the ways a client of a load can be.
var loadKinds = []struct {
	name     string
	h2, keep bool
}{{"http/1.1 kept", false, true}, {"http/1.1 fresh", false, false}, {"http/2 kept", true, true}, {"http/2 fresh", true, false}}

// startLoad starts so many clients of each kind. refused says of an answer
// that is no 200 whether it is allowed to be.
func startLoad(l *lab, url string, each int, may func(method, status string, err error) bool) *load {
	ctx, stop := context.WithCancel(context.Background())
	d := &load{l: l, url: url, counts: map[string]int{}, stop: stop}
	for _, k := range loadKinds {
		for i := range each {
			d.wg.Go(func() {
				c := l.client(true)
				tr := c.Transport.(*http.Transport)
				tr.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8)
				tr.DisableKeepAlives, tr.ForceAttemptHTTP2 = !k.keep, k.h2
				if k.h2 {
					tr.TLSClientConfig.NextProtos = []string{"h2"}
				}
				defer tr.CloseIdleConnections()
				for ctx.Err() == nil {
					d.one(c, fmt.Sprintf("%s %d", k.name, i), k.keep, may)
				}
			})
		}
	}
	return d
}

func (d *load) one(c *http.Client, who string, keep bool, may func(method, status string, err error) bool) {
	n := d.next.Add(1)
	method, payload := "GET", ""
	if n%2 == 0 {
		method, payload = "POST", strings.Repeat("x", int(n%7)*3000)
	}
	id := fmt.Sprintf("%s-%d", method, n)
	trace := &httptrace.ClientTrace{TLSHandshakeDone: func(s tls.ConnectionState, err error) {
		if err == nil && !keep {
			d.fresh.Add(1)
			if s.DidResume {
				d.resumed.Add(1)
			}
		}
	}}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), method, d.url, nil)
	if err != nil {
		d.fail("%v", err)
		return
	}
	if payload != "" {
		// No GetBody: Go's client is not to send a POST again by itself, but
		// for what it knows never to have left.
		req.Body, req.ContentLength = io.NopCloser(strings.NewReader(payload)), int64(len(payload))
	}
	req.Header.Set("X-Test-Id", id)
	began := time.Now()
	resp, err := c.Do(req)
	status, body := "", ""
	if err == nil {
		var b []byte
		b, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		status, body = resp.Status, string(b)
		if code := resp.Header.Get("CMG-Refusal"); code != "" { // HTTP/2 has no reason phrase
			status = fmt.Sprint(resp.StatusCode, " ", code)
		}
	}
	switch {
	case err == nil && status == "200 OK" && body == fmt.Sprintf("did %s with %d", id, len(payload)):
		d.good.Add(1)
	case err == nil && status == "200 OK":
		d.fail("%s by %s: another's answer: %q", id, who, body)
	case may != nil && may(method, status, err):
		d.mu.Lock()
		if err != nil {
			status = "no answer"
		}
		d.counts[status]++
		d.mu.Unlock()
	default:
		d.fail("%s by %s after %v at %s: %s %.200s %v", id, who, time.Since(began).Round(time.Millisecond), time.Now().UTC().Format("05.000"), status, body, err)
	}
}

func (d *load) fail(format string, a ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bad = append(d.bad, fmt.Sprintf(format, a...))
}

// end stops the clients and tells what went wrong.
func (d *load) end(o *origin) {
	d.l.t.Helper()
	d.stop()
	d.wg.Wait()
	for i, b := range d.bad {
		if i < 20 {
			d.l.t.Error(b)
		}
	}
	if n := len(d.bad); n > 20 {
		d.l.t.Errorf("and %d more", n-20)
	}
	for _, id := range o.twice() {
		d.l.t.Errorf("carried out: %s", id)
	}
	d.l.t.Logf("%d answered, %d of %d fresh connections resumed a session, others: %v", d.good.Load(), d.resumed.Load(), d.fresh.Load(), d.counts)
}
