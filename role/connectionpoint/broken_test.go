package connectionpoint

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// TestBrokenServers meets servers that fail in every way: the gateway is
// told how far the request came.
func TestBrokenServers(t *testing.T) {
	t.Parallel()
	nobody := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	gone := nobody.Addr().String()
	nobody.Close()
	const half = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf"
	answers := map[string]string{
		"/closes": "", "/junk": "SSH-2.0-OpenSSH\r\n\r\n", "/cuthead": "HTTP/1.1 200 OK\r\nConte", "/half": half, "/small": strings.Replace(half, "100000", "10", 1),
		"/chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", "/badchunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
		"/switch": "HTTP/1.1 101 Switching Protocols\r\n\r\n", "/lengths": "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
	}
	address := byHand(t, func(w *wire) {
		var q h1.Request
		if w.rd.Request(&q) == nil {
			w.say(answers[string(q.Path)])
			if string(q.Path) == "/hangs" || string(q.Path) == "/stops" {
				if string(q.Path) == "/stops" {
					w.say(half)
				}
				io.Copy(io.Discard, w)
			}
		}
	})
	stranger := newTLSServer(t, settings(t, getSite(t).strangers, auth.CertRequest{Name: "x"}), echo)
	plain := server(t, echo)
	g := listen(t)
	conf := g.site.config(t, g.addr, "/gone", "http://"+gone, "/stranger", stranger.URL, "/notls", "https"+strings.TrimPrefix(plain.URL, "http"), "/noname", "http://name.invalid", "/by", "http://"+address)
	conf.AnswerTime = 300 * time.Millisecond
	run(t, conf)
	g.up(1)
	for _, c := range []struct {
		method, path string
		code         channel.Code
		untouched    bool
		body         string // that arrived before
	}{
		{"POST", "/gone", channel.CodeUnreachable, true, ""},
		{"POST", "/stranger", channel.CodeUnreachable, true, ""},
		{"POST", "/notls", channel.CodeUnreachable, true, ""},
		{"POST", "/noname", channel.CodeUnreachable, true, ""},
		{"GET", "/by/closes", channel.CodeFailed, false, ""},
		{"POST", "/by/closes", channel.CodeFailed, false, ""},
		{"GET", "/by/junk", channel.CodeFailed, false, ""},
		{"GET", "/by/cuthead", channel.CodeFailed, false, ""},
		{"GET", "/by/switch", channel.CodeFailed, false, ""},
		{"GET", "/by/lengths", channel.CodeFailed, false, ""},
		{"GET", "/by/half", channel.CodeFailed, false, "half"},
		{"GET", "/by/small", channel.CodeFailed, false, ""},
		{"GET", "/by/chunks", channel.CodeFailed, false, "half"},
		{"GET", "/by/badchunk", channel.CodeFailed, false, "half"},
		{"POST", "/by/hangs", channel.CodeTimeout, false, ""},
		{"GET", "/by/stops", channel.CodeTimeout, false, "half"},
	} {
		var body []byte
		if c.method == "POST" {
			body = []byte("body")
		}
		a := g.do(c.method, c.path, body)
		e := failure(t, c.method+" "+c.path, a, c.code)
		if e.Untouched != c.untouched || string(a.body) != c.body || (c.method == "POST" && !c.untouched) != e.Started {
			t.Errorf("%s %s: untouched %v, started %v, %q", c.method, c.path, e.Untouched, e.Started, a.body)
		}
	}
}

// TestEarlyAnswer has servers answer before the upload ends: with its end
// still to come, kept open or cut.
func TestEarlyAnswer(t *testing.T) {
	t.Parallel()
	address := byHand(t, func(w *wire) {
		var q h1.Request
		if w.rd.Request(&q) != nil {
			return
		}
		w.say("HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\n\r\ntoo much")
		if string(q.Path) == "/open" {
			io.Copy(io.Discard, w)
		}
	})
	g, r := start(t, "/pub", "http://"+address)
	for _, path := range []string{"/open", "/cut"} {
		st := g.begin("POST", "/pub"+path, 100<<20, noise(100), false)
		var err error
		for b := noise(32 << 10); err == nil; {
			if path == "/cut" { // slowly, so that the answer overtakes the reset
				st.HasHead()
				<-time.After(time.Millisecond)
			}
			_, err = st.Write(b)
		}
		if a := finish(st); !channel.Stopped(err) || a.status != 413 || a.reason != "CMGConnector_TooLarge" || string(a.body) != "too much" || a.err != nil {
			t.Errorf("%s: %v; %+v", path, err, a)
		}
	}
	eventually(t, "nothing is in flight", func() bool { return r.p.active.Load() == 0 })
}

// TestHalfUpload has a server answer in the middle of a chunked upload and
// read on: it must not take what it has for the whole.
func TestHalfUpload(t *testing.T) {
	t.Parallel()
	rest := make(chan error, 1)
	address := byHand(t, func(w *wire) {
		var q h1.Request
		if w.rd.Request(&q) != nil {
			return
		}
		b := w.rd.Body(q.Length)
		io.ReadFull(&b, make([]byte, 100))
		w.say(empty)
		_, err := io.Copy(io.Discard, &b)
		rest <- err
	})
	g, _ := start(t, "/pub", "http://"+address)
	for range 20 {
		st := g.begin("POST", "/pub", h1.Chunked, noise(100), false)
		if a := finish(st); a.status != 200 || a.err != nil {
			t.Errorf("%+v", a)
		}
		if err := within(t, "the server sees an end", rest); err == nil {
			t.Error("the server takes half an upload for a whole one")
		}
	}
}

// TestTimeRunsFromTheEnd shows that answer_time begins when the request is
// sent: an upload may take longer.
func TestTimeRunsFromTheEnd(t *testing.T) {
	t.Parallel()
	s := server(t, echo)
	g := listen(t)
	conf := g.site.config(t, g.addr, "/pub", s.URL)
	conf.AnswerTime = 200 * time.Millisecond
	run(t, conf)
	g.up(1)
	for _, length := range []int64{20, h1.Chunked} {
		st := g.begin("POST", "/pub", length, nil, false)
		for range 19 {
			st.Write([]byte("x"))
			<-time.After(20 * time.Millisecond)
		}
		st.WriteEnd([]byte("x"))
		if a := finish(st); a.status != 200 || len(a.body) != 20 || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
}

// TestGatewayGivesUp shows that a server is let go when nobody waits for its
// answer: while it thinks, while it sends, while it takes the request, and
// while it is being dialed.
func TestGatewayGivesUp(t *testing.T) {
	t.Parallel()
	let := make(chan bool, 4)
	begun := make(chan bool, 4)
	address := byHand(t, func(w *wire) {
		var q h1.Request
		if w.rd.Request(&q) != nil {
			let <- true // of TLS: its hello is no request
			return
		}
		begun <- true
		if string(q.Path) == "/sends" {
			w.say("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf")
		}
		io.Copy(io.Discard, w)
		let <- true
	})
	hello := byHand(t, func(w *wire) {
		begun <- true
		io.Copy(io.Discard, w)
		let <- true
	})
	g, r := start(t, "/by", "http://"+address, "/tls", "https://"+hello)
	for _, c := range []struct {
		path   string
		length int64
	}{{"/by/thinks", 0}, {"/by/sends", 0}, {"/by/takes", 1000}, {"/tls", 0}} {
		st := g.begin("GET", c.path, c.length, nil, c.length == 0)
		within(t, c.path+": the server has it", begun)
		if c.path == "/by/sends" {
			st.Head()
		}
		st.Close()
		within(t, c.path+": the server is let go", let)
	}
	eventually(t, "nothing is in flight", func() bool { return r.p.active.Load() == 0 })
	if n := r.p.failed.Load(); n != 0 {
		t.Errorf("%d requests count as failed", n)
	}
}

// TestUpstreamClosesWithAnswer has a server end connections with its answers.
func TestUpstreamClosesWithAnswer(t *testing.T) {
	t.Parallel()
	address := byHand(t, func(w *wire) {
		_, _, err := w.next()
		switch {
		case err != nil:
		case w.n%2 == 0:
			w.say("HTTP/1.0 200 OK\r\n\r\n" + "until the end")
		default:
			w.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 13\r\n\r\nuntil the end")
		}
	})
	g, _ := start(t, "/pub", "http://"+address)
	for range 6 {
		if a := g.do("POST", "/pub", []byte("x")); a.status != 200 || string(a.body) != "until the end" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
}
