package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
)

// socket opens a WebSocket on the clients' port, as a connection point does.
func (r *running) socket(path string) (net.Conn, error) {
	raw := must[net.Conn](r.t)(net.Dial("tcp", r.clients))
	under := tls.Client(channel.NewGather(raw, 0), r.settings(nil, "http/1.1"))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := channel.DialWebSocket(ctx, under, "gw.cmg.test", path)
	if err != nil {
		raw.Close()
	}
	return s, err
}

// over opens a channel on c, whatever that is, and serves it with echo.
func (r *running) over(c net.Conn, id *auth.Identity) (*channel.Session, error) {
	t := tls.Client(channel.NewGather(c, 0), id.ChannelClient())
	in := &inside{t: r.t, gw: r, name: id.Name().Name, raw: c, handler: echo, acks: make(chan string, 16), ended: make(chan struct{})}
	s, err := channel.Inside(t, channel.Config{Name: in.name, Handler: in.handle, Acknowledged: func(_ uint64, problem string) { in.acks <- problem }})
	if err != nil {
		c.Close()
		return nil, err
	}
	in.s = s
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(in.ended)
		s.Run(ctx)
		in.busy.Wait()
	}()
	r.t.Cleanup(func() {
		cancel()
		within(r.t, "the inside ends", in.ended)
	})
	return s, nil
}

// TestChannelOnClientsPort: a channel comes up on the clients' port, by
// either way, carries large bodies both ways and a publication, and holds no
// client's slot.
func TestChannelOnClientsPort(t *testing.T) {
	dial := map[string]func(r *running) (net.Conn, error){
		"tls":                func(r *running) (net.Conn, error) { return net.Dial("tcp", r.clients) },
		"websocket":          func(r *running) (net.Conn, error) { return r.socket(cmg.ChannelPath) },
		"websocket, by name": func(r *running) (net.Conn, error) { return r.socket(cmg.ChannelPath + "/gw-1") },
	}
	for name, way := range dial {
		t.Run(name, func(t *testing.T) {
			r := run(t, getSite(t).config(t))
			s, err := r.over(must[net.Conn](t)(way(r)), r.site.point(t, "cp-1"))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the channel is up", func() bool { return r.channels("cp-1") == 1 })
			if n := len(r.gw.clients.slots); n != 0 {
				t.Errorf("the channel holds %d slots of clients", n)
			}
			version, doc := r.site.publication(t, 1)
			if err := s.Publish(version, doc); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the publication arrives", func() bool { return r.gw.version() == 1 })
			sent := noise(3 << 20)
			for _, h2 := range []bool{false, true} {
				q := r.request("POST", "/any/x", strings.NewReader(string(sent)))
				resp, got := do(t, r.client(&r.site.device, h2), q)
				if resp.StatusCode != 200 {
					t.Fatalf("status %s: %s", resp.Status, got)
				}
				sameBytes(t, "the echo", got, sent)
			}
		})
	}
}

// TestChannelOnClientsPortRefused: who is no connection point of the site is
// refused by either way, whatever the TLS beneath said.
func TestChannelOnClientsPortRefused(t *testing.T) {
	r := run(t, getSite(t).config(t))
	stranger := func(a *auth.Authority, role cmg.RoleKind) *auth.Identity {
		c := must[auth.Issued](t)(a.Issue(auth.CertRequest{Site: testSite, Role: role, Name: "cp-x", Client: true, Server: true}))
		id := must[*auth.Identity](t)(auth.NewIdentity(c.CertPEM, c.KeyPEM, pemOf(a)))
		if a == r.site.strangers { // it believes the gateway, which does not believe it
			return must[*auth.Identity](t)(auth.NewIdentity(c.CertPEM, c.KeyPEM, append(pemOf(a), pemOf(r.site.roots)...)))
		}
		return id
	}
	for name, id := range map[string]*auth.Identity{
		"another site's":  stranger(r.site.strangers, cmg.RoleConnectionPoint),
		"another role":    stranger(r.site.roots, cmg.RoleManagementPoint),
		"another gateway": stranger(r.site.roots, cmg.RoleGateway),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := r.over(must[net.Conn](t)(net.Dial("tcp", r.clients)), id); err == nil {
				t.Error("a channel by TLS was taken")
			}
			if _, err := r.over(must[net.Conn](t)(r.socket(cmg.ChannelPath)), id); err == nil {
				t.Error("a channel by WebSocket was taken")
			}
		})
	}
	if n := r.channels("cp-x"); n != 0 {
		t.Errorf("%d channels of a stranger", n)
	}
	eventually(t, "nobody is being greeted any more", func() bool { return len(r.gw.channels.greeting) == 0 })
}

// TestChannelPathAnswers: what else is asked for at the channel's path.
func TestChannelPathAnswers(t *testing.T) {
	r, _ := start(t, echo)
	_, err := r.socket(cmg.ChannelPath + "/gw-2")
	var refused *channel.WebSocketRefused
	if !errors.As(err, &refused) || refused.Status != http.StatusMisdirectedRequest {
		t.Errorf("another instance: %v, want 421", err)
	}
	if _, err = r.socket("/any"); !errors.As(err, &refused) || refused.Status == http.StatusSwitchingProtocols {
		t.Errorf("a published path as a WebSocket: %v", err)
	}
	resp, body := do(t, r.client(&r.site.device, false), r.request("GET", cmg.ChannelPath, nil))
	if resp.StatusCode != http.StatusUpgradeRequired || !strings.Contains(string(body), "CMGService_Upgrade_Required") {
		t.Errorf("no wish for a WebSocket: %s, %s", resp.Status, body)
	}
	resp, _ = do(t, r.client(&r.site.device, false), r.request("GET", cmg.ChannelPath+"lings", nil))
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a path beside it: %s, want 403", resp.Status)
	}
	w := r.dial(nil)
	w.send("POST " + cmg.ChannelPath + " HTTP/1.1\r\nHost: gw\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx")
	if resp, _ := w.read("POST"); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a body: %s, want 400", resp.Status)
	}
	w = r.dial(nil)
	w.send("GET " + cmg.ChannelPath + " HTTP/1.1\r\nHost: gw\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	w.over() // no key: not even an answer
	eventually(t, "nobody is being greeted any more", func() bool { return len(r.gw.channels.greeting) == 0 })
}

// TestNoChannelPort: an instance whose channel address is "none" takes
// connection points on the clients' port, and on one more for HTTPS.
func TestNoChannelPort(t *testing.T) {
	c := getSite(t).config(t)
	c.Channel, c.ChannelHTTPS = "none", "127.0.0.1:0"
	r := run(t, c)
	if r.points != "none" {
		t.Errorf("it listens for channels at %s", r.points)
	}
	if _, err := r.over(must[net.Conn](t)(r.socket(cmg.ChannelPath)), r.site.point(t, "cp-1")); err != nil {
		t.Error(err)
	}
}

// TestSilentSocket: who opens a WebSocket and says no more is not waited for.
func TestSilentSocket(t *testing.T) {
	if testing.Short() {
		t.Skip("takes the time of a handshake")
	}
	r := run(t, getSite(t).config(t))
	s := must[net.Conn](t)(r.socket(cmg.ChannelPath))
	defer s.Close()
	s.SetReadDeadline(time.Now().Add(handshakeTime + patience))
	if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the gateway goes on waiting: %v", err)
	}
	eventually(t, "nobody is being greeted any more", func() bool { return len(r.gw.channels.greeting) == 0 })
}
