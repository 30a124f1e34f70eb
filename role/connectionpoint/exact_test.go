package connectionpoint

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A tapped listener counts what passes on its connections.
type tapped struct {
	net.Listener
	in, out atomic.Int64
}

type tappedConn struct {
	net.Conn
	l *tapped
}

func (l *tapped) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return tappedConn{c, l}, err
}

func (c tappedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.l.in.Add(int64(n))
	return n, err
}

func (c tappedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.l.out.Add(int64(n))
	return n, err
}

// TestTrafficIsExact compares the report with what a server counts on its own
// connections, byte by byte.
func TestTrafficIsExact(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/bad") {
			w.WriteHeader(500)
		}
		echo(w, r)
	}))
	l := &tapped{Listener: srv.Listener}
	srv.Listener = l
	srv.Start()
	defer srv.Close()
	g, r := start(t, "/CCM_Proxy_ServerAuth/1/x", srv.URL, "/plain", srv.URL)
	g.do("POST", "/CCM_Proxy_ServerAuth/1/x", noise(300_000))
	g.do("GET", "/CCM_Proxy_ServerAuth/1/x/y", nil)
	g.do("GET", "/plain/bad", nil)
	g.do("POST", "/plain/x", noise(10), "Authorization", "Bearer x")
	g.do("GET", "/unmapped", nil)
	eventually(t, "five requests are over", func() bool { return r.p.active.Load() == 0 && r.p.unmapped.Load() == 1 })
	rep := r.p.traffic.report(time.Now())
	var in, out int64
	got := map[string][3]int64{}
	for _, e := range rep.EndPoints {
		in, out = in+e.TotalRequestBytes, out+e.TotalResponseBytes
		got[e.Name] = [3]int64{e.TotalRequests, e.TotalRequestsWithBearerToken, e.FailedRequests}
		if e.MaxConcurrentRequests != 1 || e.TargetHost != l.Addr().String() || e.ProxyServer != r.p.fleet.places()[0].label {
			t.Errorf("%+v", e)
		}
	}
	if in != l.in.Load() || out != l.out.Load() {
		t.Errorf("reported %d sent and %d received, the server counted %d and %d", in, out, l.in.Load(), l.out.Load())
	}
	if got["x"] != [3]int64{2, 2, 0} || got["plain"] != [3]int64{2, 1, 1} || len(got) != 2 {
		t.Errorf("%v", got)
	}
}
