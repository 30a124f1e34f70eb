package web

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// running is a server under Serve.
type running struct {
	url  string
	addr string
	stop context.CancelFunc
	end  chan error
}

func run(t *testing.T, srv *http.Server, grace time.Duration) running {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := running{"http://" + ln.Addr().String(), ln.Addr().String(), cancel, make(chan error, 1)}
	go func() { r.end <- Serve(ctx, srv, ln, grace) }()
	t.Cleanup(cancel)
	return r
}

func newClient(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// A request under way when the end comes is answered in full; later ones are
// not taken.
func TestServeDrains(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	r := run(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		close(begun)
		<-finish
		if req.Context().Err() != nil {
			w.WriteHeader(500)
		}
		io.WriteString(w, "whole")
	})}, time.Minute)
	answer := make(chan string, 1)
	c := newClient(t)
	go func() {
		resp, err := c.Get(r.url)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- resp.Status + " " + string(b)
	}()
	<-begun
	r.stop()
	for { // until the listener is closed
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-r.end:
		t.Fatalf("Serve returned with a request under way: %v", err)
	default:
	}
	close(finish)
	if got := <-answer; got != "200 OK whole" {
		t.Errorf("got %q", got)
	}
	if err := <-r.end; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeCutsAfterGrace(t *testing.T) {
	begun := make(chan struct{})
	gone := make(chan struct{})
	r := run(t, &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		close(begun)
		<-req.Context().Done()
		close(gone)
	})}, 50*time.Millisecond)
	failed := make(chan error, 1)
	c := newClient(t)
	go func() {
		resp, err := c.Get(r.url)
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-begun
	r.stop()
	if err := <-r.end; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 connections") {
		t.Errorf("Serve: %v, want it to tell of one connection cut", err)
	}
	if err := <-failed; err == nil {
		t.Error("the request got an answer")
	}
	<-gone
}

// A connection that never asked for anything neither holds up the end nor
// makes it a bad one.
func TestServeDoesNotWaitForSilence(t *testing.T) {
	accepted := make(chan struct{}, 1)
	r := run(t, &http.Server{Handler: http.NotFoundHandler(), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			accepted <- struct{}{}
		}
	}}, 100*time.Millisecond)
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-accepted
	r.stop()
	if err := <-r.end; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeTLS(t *testing.T) {
	pair := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate and a client that trusts it
	defer pair.Close()
	settings := pair.TLS.Clone()
	settings.NextProtos = []string{"h2", "http/1.1"}
	r := run(t, &http.Server{TLSConfig: settings, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		io.WriteString(w, req.Proto)
	})}, time.Minute)
	tr := pair.Client().Transport.(*http.Transport).Clone()
	tr.ForceAttemptHTTP2 = true
	defer tr.CloseIdleConnections()
	resp, body := get(t, &http.Client{Transport: tr}, "GET", "https://"+r.addr)
	if resp.TLS == nil || body != "HTTP/2.0" {
		t.Errorf("got %q over %v", body, resp.TLS)
	}
	r.stop()
	if err := <-r.end; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestServeFaults(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := Serve(t.Context(), &http.Server{}, ln, time.Second); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed listener: %v", err)
	}
	if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), &http.Server{TLSConfig: &tls.Config{}}, ln, time.Second); err == nil {
		t.Error("TLS without a certificate: no error")
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := Serve(ended, &http.Server{}, ln, time.Second); err != nil {
		t.Errorf("ended before it began: %v", err)
	}
}

func TestCloseSilent(t *testing.T) {
	open := &connections{at: map[net.Conn]connection{}}
	var ends []net.Conn
	for _, at := range []connection{
		{http.StateNew, time.Now().Add(-2 * silent)}, // in store at a client
		{http.StateNew, time.Now()},                  // may be about to ask
		{http.StateActive, time.Now().Add(-time.Hour)},
	} {
		ours, theirs := net.Pipe()
		defer ours.Close()
		open.at[ours] = at
		ends = append(ends, theirs)
	}
	open.closeSilent()
	for i, end := range ends {
		end.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := end.Read(make([]byte, 1))
		if closed := errors.Is(err, io.EOF); closed != (i == 0) {
			t.Errorf("connection %d: closed is %v", i, closed)
		}
		end.Close()
	}
}
