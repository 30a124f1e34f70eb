package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// A rawServer is a server inside that a story serves byte by byte.
type rawServer struct {
	net.Listener
	heads chan string
}

// serveRaw answers each request, once its head and body are read, with the
// text that stands behind its path.
func serveRaw(t *testing.T, answers map[string]string) *rawServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &rawServer{ln, make(chan string, 64)}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go o.serve(c, answers)
		}
	}()
	return o
}

func (o *rawServer) serve(c net.Conn, answers map[string]string) {
	defer c.Close()
	br := bufio.NewReader(c)
	for {
		var head strings.Builder
		for !strings.HasSuffix(head.String(), "\r\n\r\n") {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			head.WriteString(line)
		}
		req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head.String()), br)))
		if err != nil {
			return
		}
		chunks := ""
		for req.TransferEncoding != nil && !strings.HasSuffix(chunks, "0\r\n\r\n") {
			line, err := br.ReadString('\n')
			if chunks += line; err != nil || strings.HasPrefix(line, "X-Trailer") {
				break
			}
		}
		if req.ContentLength > 0 {
			b := make([]byte, req.ContentLength)
			if _, err := io.ReadFull(br, b); err != nil {
				return
			}
		}
		o.heads <- head.String() + chunks
		answer := answers[req.URL.Path]
		if answer == "" {
			answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

// wire opens a connection to the gateway on which a story writes what it
// likes.
func (l *lab) wire(t *testing.T) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	roots, err := os.ReadFile(l.env["CMG_CA"])
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(l.env["CMG_CLIENT_CERT"], l.env["CMG_CLIENT_KEY"])
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(l.env["CMG_URL"], "https://"), ":")
	conf := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: name, Certificates: []tls.Certificate{pair}}
	conf.RootCAs.AppendCertsFromPEM(roots)
	c, err := tls.Dial("tcp", fmt.Sprint("127.0.0.1:", l.base+43), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c, bufio.NewReader(c)
}

// TestPasses looks at both ends of both roles: what a client writes and what
// a server reads, what a server writes and what a client reads.
func TestPasses(t *testing.T) {
	o := serveRaw(t, map[string]string{
		"/trailers": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n\r\n5;ext=1\r\nhello\r\n0\r\nX-Trailer: dropped\r\n\r\n",
		"/hints":    "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"/range":    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1,5-/9\r\nETag: \"a b\"\r\nContent-Length: 2\r\n\r\nok",
		"/lost":     "HTTP/1.1 404 Not  Here\r\nContent-Length: 0\r\n\r\n",
	})
	l := startLab(t, "--map", "/raw=http://"+o.Addr().String())
	for len(o.heads) > 0 {
		<-o.heads // of the lab's own walk
	}
	c, br := l.wire(t)
	ask := func(t *testing.T, method, text string) (*http.Response, string, string) {
		t.Helper()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b), <-o.heads
	}
	t.Run("methods", func(t *testing.T) {
		for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "CCM_POST", "BITS_POST"} {
			resp, _, head := ask(t, m, m+" /raw/x?a=%7B1%7d HTTP/1.1\r\nHost: a\r\n\r\n")
			if resp.StatusCode != 200 || !strings.HasPrefix(head, m+" /x?a=%7B1%7d HTTP/1.1\r\n") {
				t.Errorf("%s: %s, %.60q", m, resp.Status, head)
			}
		}
	})
	t.Run("fields", func(t *testing.T) {
		fields := "Range: bytes=0-1,5-\r\nCCMClientID: GUID:0f0e0d0c-0B0A-4908-8706-050403020100\r\nCCMClientIDSignature: 0A1b==\r\n" +
			"CCMClientTimestamp: 2026-11-22T05:00:00Z\r\nCCMClientTimestampsSignature: ff00  ff,; \x80\r\nuser-agent: SMS CCM 5.0\r\n"
		resp, b, head := ask(t, "GET", "GET /raw/range HTTP/1.1\r\nHost: a\r\n"+fields+"\r\n")
		if !strings.Contains(head, "\r\n"+fields) {
			t.Errorf("not byte for byte: %q", head)
		}
		if resp.StatusCode != 206 || b != "ok" || resp.Header.Get("Content-Range") != "bytes 0-1,5-/9" || resp.Header.Get("ETag") != `"a b"` {
			t.Errorf("%s %v %q", resp.Status, resp.Header, b)
		}
	})
	t.Run("trailers", func(t *testing.T) {
		resp, b, head := ask(t, "POST", "POST /raw/trailers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n\r\n2;e=1\r\nab\r\n1\r\nc\r\n0\r\nX-Trailer: 1\r\n\r\n")
		if strings.Contains(head, "Trailer") || strings.Contains(head, "e=1") || !strings.HasSuffix(head, "0\r\n\r\n") {
			t.Errorf("the server got %q", head)
		}
		if b != "hello" || len(resp.Trailer) > 0 || resp.Header.Get("Trailer") != "" {
			t.Errorf("%q, %v, %v", b, resp.Header, resp.Trailer)
		}
	})
	t.Run("continue", func(t *testing.T) {
		io.WriteString(c, "POST /raw/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
		if line, err := br.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" || err != nil {
			t.Fatalf("%q, %v", line, err)
		}
		br.ReadString('\n')
		resp, _, head := ask(t, "POST", "abc")
		if resp.StatusCode != 200 || strings.Contains(head, "Expect") || !strings.Contains(head, "Content-Length: 3") {
			t.Errorf("%s, %q", resp.Status, head)
		}
	})
	t.Run("early hints", func(t *testing.T) {
		resp, b, _ := ask(t, "GET", "GET /raw/hints HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp.StatusCode != 200 || b != "ok" || resp.Header.Get("Link") != "" {
			t.Errorf("%s %v %q", resp.Status, resp.Header, b)
		}
	})
	t.Run("reason", func(t *testing.T) {
		if resp, _, _ := ask(t, "GET", "GET /raw/lost HTTP/1.1\r\nHost: a\r\n\r\n"); resp.Status != "404 CMGConnector_NotHere" {
			t.Error(resp.Status)
		}
	})
	t.Run("http/2", func(t *testing.T) {
		cl := l.client(true)
		cl.Transport.(*http.Transport).ForceAttemptHTTP2 = true
		req, err := http.NewRequestWithContext(context.Background(), "CCM_POST", l.env["CMG_URL"]+"/raw/trailers", io.MultiReader(strings.NewReader("ab"), strings.NewReader("c")))
		if err != nil {
			t.Fatal(err)
		}
		req.Trailer = http.Header{"X-Trailer": {"1"}}
		req.Header.Set("Range", "bytes=0-1,5-")
		req.Header["Ccmclientid"] = []string{"GUID:1"}
		resp, err := cl.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		head := <-o.heads
		if resp.ProtoMajor != 2 || string(b) != "hello" || err != nil || len(resp.Trailer) > 0 || resp.Header.Get("X-Trailer") != "" {
			t.Errorf("%s %s %q %v %v", resp.Proto, resp.Status, b, err, resp.Trailer)
		}
		if !strings.HasPrefix(head, "CCM_POST /trailers HTTP/1.1\r\n") || !strings.Contains(head, "\r\nRange: bytes=0-1,5-\r\n") || strings.Contains(head, "Trailer") {
			t.Errorf("the server got %q", head)
		}
	})
}
