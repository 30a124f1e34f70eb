package connectionpoint

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"encoding/json"
	"encoding/pem"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// A door plays the gateway instances of a service, by every transport.
type door struct {
	t        testing.TB
	dir      string
	roots    *auth.Authority
	identity *auth.Identity
	front    *tls.Config
	noPort   bool // the clients' port takes no channel by ALPN

	mu       sync.Mutex
	sessions map[*channel.Session]arrival
	opened   atomic.Int64 // channels ever
}

// An arrival is how a channel came.
type arrival struct{ instance, transport string }

func pemText(a *auth.Authority) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
}

func ok[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// soon waits for a condition that nobody signals.
func soon(t testing.TB, what string, limit time.Duration, true func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !true(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func newDoor(t testing.TB) *door {
	t.Helper()
	d := &door{t: t, dir: t.TempDir(), roots: ok[*auth.Authority](t)(auth.NewAuthority("site", time.Hour)), sessions: map[*channel.Session]arrival{}}
	issue := func(file string, r auth.CertRequest) auth.Issued {
		c := ok[auth.Issued](t)(d.roots.Issue(r))
		if err := c.Save(d.file(file+".crt"), d.file(file+".key")); err != nil {
			t.Fatal(err)
		}
		return c
	}
	if err := os.WriteFile(d.file("roots.crt"), pemText(d.roots), 0o644); err != nil {
		t.Fatal(err)
	}
	own := issue("gw", auth.CertRequest{Site: "LAB", Role: cmg.RoleGateway, Name: "gw", Server: true})
	issue("front", auth.CertRequest{Name: "gw.cmg.test", DNS: []string{"gw.cmg.test", "localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, Server: true})
	issue("cp", auth.CertRequest{Site: "LAB", Role: cmg.RoleConnectionPoint, Name: "cp-1", Client: true})
	d.identity = ok[*auth.Identity](t)(auth.NewIdentity(own.CertPEM, own.KeyPEM, pemText(d.roots)))
	d.front = ok[*auth.Sites](t)(auth.NewSites(d.identity)).WithChannel(ok[*tls.Config](t)(auth.GatewayFront(d.file("front.crt"), d.file("front.key"))))
	site := ok[auth.Issued](t)(d.roots.Issue(auth.CertRequest{Site: "LAB", Role: cmg.RoleSite, Name: "LAB", RSA: true}))
	signer := ok[*auth.Identity](t)(auth.NewIdentity(site.CertPEM, site.KeyPEM, pemText(d.roots)))
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "here") }))
	t.Cleanup(inner.Close)
	m := cmg.Map{Mappings: []cmg.Mapping{{Prefix: "/nothing", Target: inner.URL}}, Publication: ok[string](t)(auth.SignPublication(signer, cmg.Publication{Version: 1, Site: "LAB", Issued: time.Now()}))}
	if err := os.WriteFile(d.file("map.json"), ok[[]byte](t)(json.Marshal(m)), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *door) file(name string) string { return filepath.Join(d.dir, name) }

// listen opens a door for the transport; names are those of the instances
// behind it, of which each connection meets any.
func (d *door) listen(transport, addr string, names ...string) (at string, close func()) {
	d.t.Helper()
	ln := ok[net.Listener](d.t)(net.Listen("tcp", addr))
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			running.Go(func() {
				d.meet(c, arrival{names[rand.N(len(names))], transport})
				c.Close()
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	close = sync.OnceFunc(func() {
		ln.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
	})
	d.t.Cleanup(func() { close(); running.Wait() })
	return ln.Addr().String(), close
}

func (d *door) meet(c net.Conn, a arrival) {
	t := tls.Server(channel.NewGather(c, 0), d.identity.ChannelServer())
	if a.transport == transportHTTPS {
		outer := tls.Server(channel.NewGather(c, 0), d.front)
		if outer.Handshake() != nil {
			return
		}
		state := outer.ConnectionState()
		if auth.IsChannel(&state) {
			if d.noPort {
				return
			}
			t, a.transport = outer, transportTCP
		} else if t = d.socket(outer, a.instance); t == nil {
			return
		}
	}
	s, err := channel.Outside(t, channel.Config{Name: a.instance, Connection: a.instance + "-x", Published: func(uint64, []byte) error { return nil }})
	if err != nil {
		return
	}
	d.mu.Lock()
	d.sessions[s] = a
	d.mu.Unlock()
	d.opened.Add(1)
	s.Run(context.Background())
	d.mu.Lock()
	delete(d.sessions, s)
	d.mu.Unlock()
}

func (d *door) socket(outer *tls.Conn, instance string) *tls.Conn {
	r, err := http.ReadRequest(bufio.NewReader(outer))
	if err != nil {
		return nil
	}
	switch want := r.URL.Path[len(cmg.ChannelPath):]; {
	case r.Header.Get("Upgrade") == "":
		io.WriteString(outer, "HTTP/1.1 426 CMGService_Upgrade_Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return nil
	case want != "" && want != "/"+instance:
		io.WriteString(outer, "HTTP/1.1 421 CMGService_Other_Instance\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return nil
	}
	s, err := channel.AcceptWebSocket(outer, r.Host, r.Header)
	if err != nil {
		return nil
	}
	return tls.Server(channel.NewGather(s, 0), d.identity.ChannelServer())
}

// held counts the channels by how they came.
func (d *door) held() map[arrival]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := map[arrival]int{}
	for _, a := range d.sessions {
		n[a]++
	}
	return n
}

// exchange sends one request on any channel that takes it.
func (d *door) exchange() error {
	var q h1.Request
	if err := q.Begin("GET", "gw", "/nothing", 0); err != nil {
		return err
	}
	d.mu.Lock()
	var all []*channel.Session
	for s := range d.sessions {
		all = append(all, s)
	}
	d.mu.Unlock()
	err := fmt.Errorf("there is no channel")
	for _, s := range all {
		if !s.Usable() {
			continue
		}
		var st *channel.Stream
		if st, err = s.Open(q.AppendCompact(nil), nil, true); err != nil {
			continue // it has just begun to drain
		}
		_, err = st.Head()
		st.Close()
		return err
	}
	return err
}

func (d *door) config(gateways ...Gateway) Config {
	return Config{
		Gateways: gateways, Identity: auth.IdentityFiles{Certificate: d.file("cp.crt"), Key: d.file("cp.key"), Roots: d.file("roots.crt")},
		Map: d.file("map.json"), StateDir: d.file("state"), Connections: 1, Drain: 2 * time.Second, BetterEvery: 50 * time.Millisecond,
		Proxy: Proxy{URL: "none"},
	}
}

// through runs a connection point that the test's end stops.
func (d *door) through(c Config, change ...func(*Point)) *Point {
	d.t.Helper()
	if testing.Verbose() {
		c.Log = slog.New(slog.NewTextHandler(d.t.Output(), nil))
	}
	p := ok[*Point](d.t)(New(c))
	for _, f := range change {
		f(p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	d.t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				d.t.Error(err)
			}
		case <-time.After(20 * time.Second):
			d.t.Error("the connection point does not end")
		}
	})
	return p
}

// shown is the status of the first link.
func shown(p *Point) map[string]any { return p.fleet.links()[0].status().(map[string]any) }

func states(p *Point) (all []string) {
	for _, l := range p.fleet.links() {
		all = append(all, fmt.Sprint(l.status()))
	}
	return all
}
