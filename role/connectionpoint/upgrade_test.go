package connectionpoint

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// ask opens a stream for a request that offers protocols.
func (g *outside) ask(target, protocols string) *channel.Stream {
	g.t.Helper()
	var q h1.Request
	if err := q.Begin("GET", "gw.cmg.test", target, 0); err != nil {
		g.t.Fatal(err)
	}
	q.Upgrade = []byte(protocols)
	return g.raise(&q, nil, false)
}

// agreed reads the head of an answer.
func agreed(t testing.TB, st *channel.Stream) (r h1.Response) {
	t.Helper()
	h, err := st.Head()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.ParseCompact(bytes.Clone(h)); err != nil {
		t.Fatal(err)
	}
	return r
}

// taken is what a server says that goes along.
const taken = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n"

// hijacked serves one connection that is no more HTTP's. It is the standard
// library's server that has read the request.
func hijacked(f func(c net.Conn, br io.Reader)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Connection") != "Upgrade" || r.Header.Get("Upgrade") != "websocket, foo" || r.ContentLength != 0 {
			http.Error(w, "no upgrade", http.StatusBadRequest)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, taken)
		f(c, rw)
	}
}

// TestUpgrade carries 16 MiB each way to a server that sends back what comes,
// plain and by TLS; what looks like requests is carried as well. Each
// direction ends alone.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	h := hijacked(func(c net.Conn, br io.Reader) {
		io.Copy(c, br)
		c.(interface{ CloseWrite() error }).CloseWrite()
	})
	inner := getSite(t)
	conf := settings(t, inner.roots, auth.CertRequest{Name: "inner", DNS: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true})
	g, _ := start(t, "/plain", server(t, h).URL, "/tls", newTLSServer(t, conf, h).URL)
	data := append([]byte("GET /plain/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"), noise(16<<20)...)
	for _, path := range []string{"/plain", "/tls"} {
		t.Run(path, func(t *testing.T) {
			st := g.ask(path+"/x", "websocket, foo")
			defer st.Close()
			r := agreed(t, st)
			if r.Status != 101 || string(r.Upgrade) != "websocket" || len(r.Fields) != 1 || string(r.Fields[0].Name) != "Sec-WebSocket-Accept" {
				t.Fatalf("answered %+v", r)
			}
			first, _ := st.First()
			got := bytes.Clone(first)
			sent := make(chan error, 1)
			go func() { sent <- st.WriteEnd(data) }()
			for {
				p, err := st.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, p...)
			}
			if err := within(t, "all is sent", sent); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, data) {
				t.Errorf("%d bytes came back, not the %d that were sent", len(got), len(data))
			}
		})
	}
}

// TestUpgradeAnswers: what a server may say to an offer, and what it may not.
func TestUpgradeAnswers(t *testing.T) {
	t.Parallel()
	answers := map[string]struct {
		text   string
		status int // 0: failed
	}{
		"taken":            {taken, 101},
		"after interim":    {"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + taken, 101},
		"not taken":        {empty, 200},
		"426":              {"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n", 426},
		"another protocol": {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bar\r\n\r\n", 0},
		"h2c":              {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", 0},
		"two protocols":    {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket, foo\r\n\r\n", 0},
		"no protocol":      {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n", 0},
		"not nominated":    {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n", 0},
		"with a length":    {strings.Replace(taken, "\r\n\r\n", "\r\nContent-Length: 5\r\n\r\n", 1), 0},
		"chunked":          {strings.Replace(taken, "\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n", 1), 0},
	}
	at := byHand(t, func(w *wire) {
		var q h1.Request
		if w.rd.Request(&q) != nil {
			return
		}
		w.say(answers[strings.ReplaceAll(strings.TrimPrefix(string(q.Target), "/"), "_", " ")].text)
		w.next()
	})
	g, _ := start(t, "/x", "http://"+at)
	for name, c := range answers {
		t.Run(name, func(t *testing.T) {
			st := g.ask("/x/"+strings.ReplaceAll(name, " ", "_"), "websocket, foo")
			defer st.Close()
			if _, err := st.Head(); c.status == 0 {
				var se *channel.StreamError
				if !errors.As(err, &se) || se.Code != channel.CodeFailed {
					t.Errorf("got %v, want %v", err, channel.CodeFailed)
				}
				return
			}
			if r := agreed(t, st); r.Status != c.status {
				t.Errorf("status %d, want %d", r.Status, c.status)
			}
		})
	}
	t.Run("unasked", func(t *testing.T) {
		failure(t, "a 101 nobody asked for", g.do("GET", "/x/taken", nil), channel.CodeFailed)
	})
}

// TestUpgradeHeads: heads that a gateway may not send.
func TestUpgradeHeads(t *testing.T) {
	t.Parallel()
	g, _ := start(t, "/x", "http://127.0.0.1:1")
	for name, change := range map[string]func(*h1.Request){
		"http again": func(q *h1.Request) { q.Upgrade = []byte("websocket, h2c") },
		"no list":    func(q *h1.Request) { q.Upgrade = []byte("a b") },
		"with body":  func(q *h1.Request) { q.Upgrade, q.Length = []byte("websocket"), 5 },
		"of 1.0":     func(q *h1.Request) { q.Upgrade, q.HTTP10 = []byte("websocket"), true },
	} {
		var q h1.Request
		if err := q.Begin("GET", "gw.cmg.test", "/x/", 0); err != nil {
			t.Fatal(err)
		}
		change(&q)
		failure(t, name, finish(g.raise(&q, nil, false)), channel.CodeProtocol)
	}
}

// TestUpgradeEnds: the end of either side reaches the other.
func TestUpgradeEnds(t *testing.T) {
	t.Parallel()
	hear := make(chan error, 1)
	reset := make(chan struct{})
	g, r := start(t, "/gateway", server(t, hijacked(func(c net.Conn, br io.Reader) {
		_, err := br.Read(make([]byte, 1))
		hear <- err
	})).URL, "/server", server(t, hijacked(func(c net.Conn, br io.Reader) {
		<-reset
		c.(*net.TCPConn).SetLinger(0)
	})).URL)
	t.Run("gateway gives up", func(t *testing.T) {
		st := g.ask("/gateway/x", "websocket, foo")
		agreed(t, st)
		st.Close()
		if err := within(t, "the server hears of it", hear); err == nil {
			t.Error("there was something to read")
		}
	})
	t.Run("channel is lost", func(t *testing.T) {
		st := g.ask("/gateway/x", "websocket, foo")
		defer st.Close()
		agreed(t, st)
		g.cut()
		if err := within(t, "the server hears of it", hear); err == nil {
			t.Error("there was something to read")
		}
		eventually(t, "another channel is there", func() bool { return g.connected() == 1 && g.newest() != st.Session() })
	})
	t.Run("server breaks off", func(t *testing.T) {
		st := g.ask("/server/x", "websocket, foo")
		defer st.Close()
		agreed(t, st)
		st.First()
		close(reset)
		if _, err := st.Next(); err == nil || err == io.EOF {
			t.Errorf("got %v", err)
		}
	})
	eventually(t, "nothing is left", func() bool { return r.p.active.Load() == 0 })
}
