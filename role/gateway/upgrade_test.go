package gateway

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// wish is a request for a WebSocket.
func wish(path string, more string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: gw.cmg.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" + more + "\r\n"
}

// agree answers 101.
func (q *request) agree(protocol string) error {
	q.st.Duplex()
	r := h1.Response{Status: 101, Reason: []byte("Switching Protocols"), Upgrade: []byte(protocol)}
	r.Add("Sec-WebSocket-Accept", []byte("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
	return q.st.Respond(r.AppendCompact(nil), nil, false)
}

// echoed sends back what comes, and ends when the client does.
func echoed(q *request) {
	q.st.First()
	if q.agree(string(q.head.Upgrade)) != nil {
		return
	}
	for {
		p, err := q.st.Next()
		if err == io.EOF {
			q.st.WriteEnd(nil)
			return
		}
		if err != nil {
			return
		}
		if _, err := q.st.Write(p); err != nil {
			return
		}
	}
}

// upgraded makes a connection that is no more HTTP's.
func (r *running) upgraded() *wire {
	r.t.Helper()
	w := r.dial(&r.site.device)
	w.send(wish("/any/ws", ""))
	w.switched()
	return w
}

// switched reads a 101 and nothing behind it.
func (w *wire) switched() (head string) {
	w.t.Helper()
	for !strings.HasSuffix(head, "\r\n\r\n") {
		line, err := w.br.ReadString('\n')
		if err != nil {
			w.t.Fatalf("%q: %v", head, err)
		}
		head += line
	}
	if !strings.HasPrefix(head, "HTTP/1.1 101 Switching Protocols\r\n") {
		w.t.Fatalf("answered %q", head)
	}
	return head
}

// TestUpgrade goes on with another protocol. What follows the 101 looks like
// requests and is none; each direction ends alone; every byte is accounted
// for.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	r, in := start(t, echoed)
	w := r.dial(&r.site.device)
	early := "GET /any/early HTTP/1.1\r\nHost: x\r\n\r\n"
	text := wish("/any/ws", "Sec-WebSocket-Key: x\r\n")
	w.send(text + early)
	head := w.switched()
	for _, want := range []string{"\r\nConnection: Upgrade\r\n", "\r\nUpgrade: websocket\r\n", "\r\nSec-WebSocket-Accept: ", "\r\nCMG-Request-Id: "} {
		if !strings.Contains(head, want) {
			t.Errorf("no %q in %q", want, head)
		}
	}
	if strings.Contains(head, "Content-Length") || strings.Contains(head, "Transfer-Encoding") {
		t.Errorf("101 with a body: %q", head)
	}
	eventually(t, "it is counted while it lasts", func() bool { return r.gw.counts.upgraded.Load() == 1 })
	sent := early + strings.Repeat("GET /any/later HTTP/1.1\r\nHost: x\r\n\r\n", 3)
	w.send(sent[len(early):])
	if err := w.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got := must[[]byte](t)(io.ReadAll(w.br))
	sameBytes(t, "what came back", got, []byte(sent))
	if n := in.streams.Load(); n != 1 {
		t.Errorf("%d requests went inward", n)
	}
	eventually(t, "it is over", func() bool { return r.gw.counts.upgraded.Load() == 0 && r.gw.counts.inFlight.Load() == 0 })
	in1, out := r.passed(t, "1xx")
	if want := int64(len(text) + len(sent)); in1 != want {
		t.Errorf("%d bytes in, want %d", in1, want)
	}
	if want := int64(len(head) + len(sent)); out != want {
		t.Errorf("%d bytes out, want %d", out, want)
	}
}

// passed gives the bytes of the requests of a class, once they are accounted.
func (r *running) passed(t *testing.T, class string) (in, out int64) {
	t.Helper()
	eventually(t, "it is accounted for", func() bool {
		in, out = 0, 0
		for _, e := range r.gw.accounts.all() {
			for s := range e.shards {
				for slot := range e.shards[s].points {
					if tl := e.shards[s].points[slot].Load(); tl != nil {
						for p := range proofs {
							for c := range classes {
								if classNames[c] == class {
									x := tl.by[p][c].Load()
									in, out = in+x.In, out+x.Out
								}
							}
						}
					}
				}
			}
		}
		return in > 0
	})
	return in, out
}

// TestUpgradeOffers looks at what of an offer reaches the inside. None of it
// that would be HTTP again does: behind it requests would go unchecked.
func TestUpgradeOffers(t *testing.T) {
	t.Parallel()
	r, _ := start(t, func(q *request) { q.answer(200, nil, "X-Offer", string(q.head.Upgrade)) })
	for name, c := range map[string]struct {
		head   string
		status int
		want   string
	}{
		"websocket":          {"GET /any/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n", 200, "WebSocket"},
		"another":            {"GET /any/x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo/2, connect-udp\r\n\r\n", 200, "foo/2, connect-udp"},
		"by POST":            {"POST /any/x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: foo\r\nContent-Length: 0\r\n\r\n", 200, "foo"},
		"h2c":                {"GET /any/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n", 200, ""},
		"h2c beside another": {"GET /any/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket , TLS/1.2, HTTP/2.0\r\n\r\n", 200, "websocket"},
		"not nominated":      {"GET /any/x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", 200, ""},
		"in 1.0":             {"GET /any/x HTTP/1.0\r\nHost: a\r\nConnection: Upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n", 200, ""},
		"with a body":        {"POST /any/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab", 200, ""},
		"with chunks":        {"POST /any/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, ""},
		"twice":              {"GET /any/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: foo\r\n\r\n", 400, ""},
		"no list":            {"GET /any/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a b\r\n\r\n", 400, ""},
		"endless":            {"GET /any/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: " + strings.Repeat("a", 300) + "\r\n\r\n", 400, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := r.dial(&r.site.device)
			w.send(c.head)
			resp, _ := w.read(strings.Fields(c.head)[0])
			if resp.StatusCode != c.status || resp.Header.Get("X-Offer") != c.want {
				t.Errorf("%s, offered %q; want %d, %q", resp.Status, resp.Header.Get("X-Offer"), c.status, c.want)
			}
		})
	}
}

// TestUpgradeRefused: a server that does not go along gives an ordinary
// answer, and the connection stays HTTP's, unless the client has begun to
// speak the other protocol.
func TestUpgradeRefused(t *testing.T) {
	t.Parallel()
	r, in := start(t, func(q *request) { q.answer(403, []byte("no")) })
	w := r.dial(&r.site.device)
	for range 2 {
		w.send(wish("/any/ws", ""))
		if resp, b := w.read("GET"); resp.StatusCode != 403 || string(b) != "no" || resp.Close {
			t.Errorf("%s %q, close %v", resp.Status, b, resp.Close)
		}
	}
	w.send(wish("/any/ws", "") + "GET /any/smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, _ := w.read("GET"); resp.StatusCode != 403 || !resp.Close {
		t.Errorf("%s, close %v", resp.Status, resp.Close)
	}
	w.over()
	if n := in.streams.Load(); n != 3 {
		t.Errorf("%d requests went inward", n)
	}
	w = r.dial(nil)
	w.send(wish(mutual+"/SMS_MP/x", ""))
	if resp, _ := w.read("GET"); !strings.Contains(resp.Status, "CMGService_Client_Certificate_Required") {
		t.Errorf("without proof: %s", resp.Status)
	}
}

// TestUpgradeUnasked: a 101 that was not offered is no answer.
func TestUpgradeUnasked(t *testing.T) {
	t.Parallel()
	r, _ := start(t, func(q *request) { q.agree("other") })
	for name, head := range map[string]string{"another protocol": wish("/any/ws", ""), "no offer": "GET /any/x HTTP/1.1\r\nHost: a\r\n\r\n"} {
		w := r.dial(&r.site.device)
		w.send(head)
		if resp, _ := w.read("GET"); resp.Status != "502 CMGConnector_Failed" {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
}

// TestUpgradeEnds ends what goes on behind a 101 in each way there is, and
// wants the other end to hear of it.
func TestUpgradeEnds(t *testing.T) {
	t.Parallel()
	type ended struct{ err error }
	open := func(t *testing.T, change ...func(*Gateway)) (*running, *inside, *wire, chan *request, chan ended) {
		asked, over := make(chan *request, 1), make(chan ended, 1)
		r, in := start(t, func(q *request) {
			q.st.First()
			q.agree("websocket")
			asked <- q
			_, err := q.st.Next()
			over <- ended{err}
		}, change...)
		w := r.upgraded()
		return r, in, w, asked, over
	}
	t.Run("client leaves", func(t *testing.T) {
		_, _, w, _, over := open(t)
		w.NetConn().(*net.TCPConn).SetLinger(0)
		w.NetConn().Close()
		if e := within(t, "the inside hears of it", over); e.err == nil {
			t.Error("there was something to read")
		}
	})
	t.Run("server breaks off", func(t *testing.T) {
		_, _, w, asked, _ := open(t)
		within(t, "asked", asked).st.Abort(channel.CodeFailed, "gone")
		w.over()
	})
	t.Run("channel is lost", func(t *testing.T) {
		_, in, w, _, _ := open(t)
		in.kill()
		w.over()
	})
	t.Run("nothing passes", func(t *testing.T) {
		_, _, w, _, over := open(t, func(g *Gateway) { g.limits.tunnel = 50 * time.Millisecond })
		w.over()
		within(t, "the inside hears of it", over)
	})
	t.Run("the proof ends", func(t *testing.T) {
		over := make(chan ended, 1)
		r, _ := start(t, func(q *request) {
			q.st.First()
			q.agree("websocket")
			_, err := q.st.Next()
			over <- ended{err}
		})
		w := r.dial(nil)
		w.send(wish(server+"/SMS_MP/x", "Authorization: Bearer "+r.site.token(t, auth.TokenSession, 0, 2*time.Second)+"\r\n"))
		w.switched()
		w.over()
		within(t, "the inside hears of it", over)
	})
	t.Run("drain", func(t *testing.T) {
		r, _, w, _, over := open(t, func(g *Gateway) { g.cfg.Drain = 100 * time.Millisecond })
		r.stop()
		w.over()
		within(t, "the inside hears of it", over)
		r.end()
	})
	t.Run("budget", func(t *testing.T) {
		r, _, w, asked, _ := open(t, func(g *Gateway) {
			g.budget = &budget{conf: BudgetConfig{Bytes: 1 << 40, Window: time.Hour, Warn: 50, Critical: 90, Stop: true}, log: g.log, sent: g.accounts.sent.Load, file: t.TempDir() + "/budget"}
		})
		r.gw.budget.mu.Lock()
		r.gw.budget.conf.Bytes = 1
		r.gw.budget.mu.Unlock()
		eventually(t, "the budget is used up", func() bool { return r.gw.budget.ended.Load() })
		within(t, "asked", asked).st.Write([]byte("more"))
		w.over()
	})
}

// TestUpgradeSlowReader: a client that does not read holds up the server, not
// the gateway's memory, and gets every byte once it reads.
func TestUpgradeSlowReader(t *testing.T) {
	t.Parallel()
	data := noise(16 << 20)
	const rounds = 4
	var sent atomic.Int64
	r, _ := start(t, func(q *request) {
		q.st.First()
		q.agree("websocket")
		var got bytes.Buffer
		var reading sync.WaitGroup
		reading.Go(func() {
			for p, err := q.st.Next(); err == nil; p, err = q.st.Next() {
				got.Write(p)
			}
		})
		for range rounds {
			for p := data; len(p) > 0; p = p[64<<10:] {
				if _, err := q.st.Write(p[:64<<10]); err != nil {
					return
				}
				sent.Add(64 << 10)
			}
		}
		reading.Wait()
		if err := q.st.WriteEnd(nil); err != nil {
			t.Error(err)
		}
		sameBytes(t, "what the client sent", got.Bytes(), data)
	})
	w := r.upgraded()
	w.SetDeadline(time.Now().Add(4 * patience))
	if err := w.NetConn().(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil { // one direction goes on while the other stands
		t.Fatal(err)
	}
	if err := w.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n := sent.Load(); n == rounds*int64(len(data)) {
		t.Errorf("the server could send %d bytes to a client that reads none", n)
	}
	sameBytes(t, "what came", must[[]byte](t)(io.ReadAll(w.br)), bytes.Repeat(data, rounds))
}

// TestUpgradeOlderInside: a connection point that does not know of other
// protocols is sent the request without its offer.
func TestUpgradeOlderInside(t *testing.T) {
	t.Parallel()
	r, in := start(t, echo)
	in.kill()
	eventually(t, "it is gone", func() bool { return r.channels("cp-1") == 0 })
	raw := must[net.Conn](t)(net.Dial("tcp", r.points))
	c := tls.Client(raw, r.site.point(t, "cp-old").ChannelClient())
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	hello := append([]byte("CMGc\x00\x01\x00\x01"), make([]byte, 8)...)                          // no feature
	hello = append(append(hello, 0, 1, 0, 0, 0, 0, 0, 9), append(make([]byte, 8), 1, 'o', 0)...) // credit, streams, publication, names
	frame := func(kind, flags byte, stream byte, p []byte) {
		b := []byte{byte(len(p) >> 16), byte(len(p) >> 8), byte(len(p)), kind, flags, 0, 0, 0, stream}
		if _, err := c.Write(append(b, p...)); err != nil {
			t.Error(err)
		}
	}
	frame(0, 0, 0, hello)
	eventually(t, "it is connected", func() bool { return r.channels("cp-old") > 0 })
	w := r.dial(&r.site.device)
	w.send(wish("/any/ws", ""))
	var h [9]byte
	for {
		if _, err := io.ReadFull(c, h[:]); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
		if _, err := io.ReadFull(c, p); err != nil {
			t.Fatal(err)
		}
		if h[3] != 1 {
			continue
		}
		if p[2] != 0 { // behind the head's length, of two bytes here: flags
			t.Errorf("the head's flags are %d", p[2])
		}
		a := h1.Response{Status: 200, Reason: []byte("OK")}
		head := a.AppendCompact(nil)
		frame(2, 1, h[8], append([]byte{byte(len(head))}, head...))
		break
	}
	if resp, _ := w.read("GET"); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}
