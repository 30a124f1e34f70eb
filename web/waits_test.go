package web

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
)

// TestWaits has more requests wait on one connection than net/http takes of
// its own accord.
func TestWaits(t *testing.T) {
	const n = 400
	var waiting atomic.Int64
	all := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/first" {
			return
		}
		if waiting.Add(1) == n {
			close(all)
		}
		<-all
	}))
	s.EnableHTTP2, s.Config.HTTP2 = true, Waits()
	s.StartTLS()
	defer s.Close()
	tr := s.Client().Transport.(*http.Transport)
	tr.HTTP2 = &http.HTTP2Config{StrictMaxConcurrentRequests: true}
	tr.TLSClientConfig = &tls.Config{RootCAs: tr.TLSClientConfig.RootCAs}
	defer tr.CloseIdleConnections()
	get := func(path string) {
		resp, err := s.Client().Get(s.URL + path)
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Errorf("%s", resp.Proto)
		}
	}
	get("/first") // makes the connection that all others share
	var clients sync.WaitGroup
	for range n {
		clients.Go(func() { get("/") })
	}
	clients.Wait()
}
