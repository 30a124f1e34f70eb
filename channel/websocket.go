package channel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Subprotocol is what a WebSocket that carries a channel is called (RFC 6455,
// section 1.9).
const Subprotocol = "cmg.1"

// A socket is the byte stream of a WebSocket: each Write is one binary
// message, and one write of what lies beneath; messages mean nothing to the
// reader.
type socket struct {
	under *batch
	ws    *websocket.Conn
	rest  io.Reader // of the message that is being read
	once  sync.Once
}

// DialWebSocket asks, on a connection that was made to a gateway's listener
// for clients, for a channel over HTTPS, and gives the byte stream that
// [Inside] takes once TLS lies on it. under is TLS over a [Gather] and belongs
// to the stream afterwards; on an error it is left for the caller to close. An
// answer that is none to a WebSocket is a [*WebSocketRefused].
func DialWebSocket(ctx context.Context, under net.Conn, host, path string) (net.Conn, error) {
	b := &batch{Conn: under}
	taken := false
	tr := &http.Transport{
		MaxResponseHeaderBytes: 32 << 10,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if taken {
				return nil, errors.New("the connection is used up")
			}
			taken = true
			return b, nil
		},
	}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ws, resp, err := websocket.Dial(ctx, "ws://"+host+path, &websocket.DialOptions{
		HTTPClient: client, Subprotocols: []string{Subprotocol}, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, refusedWebSocket(resp)
		}
		return nil, fmt.Errorf("websocket: %w", err)
	}
	if ws.Subprotocol() != Subprotocol {
		ws.CloseNow()
		return nil, fmt.Errorf("websocket: who answered does not speak %s", Subprotocol)
	}
	return newSocket(b, ws), nil
}

// WebSocketRefused is an answer other than 101.
type WebSocketRefused struct {
	Status int
	Reason string // of the status line
	Via    string // the proxies the answer came through, as they say
	Text   string // begin of the body
}

func (e *WebSocketRefused) Error() string {
	s := fmt.Sprintf("websocket: the answer is %d %s", e.Status, e.Reason)
	if e.Via != "" {
		s += ", by way of " + e.Via
	}
	return s
}

func refusedWebSocket(resp *http.Response) error {
	_, reason, _ := strings.Cut(resp.Status, " ")
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	return &WebSocketRefused{Status: resp.StatusCode, Reason: cut(reason), Via: cut(resp.Header.Get("Via")), Text: string(text)}
}

// AcceptWebSocket answers a request for a channel over HTTPS with 101, and
// gives the byte stream that [Outside] takes once TLS lies on it. under is TLS
// over a [Gather], read up to the end of the request's head; h holds the
// request's Sec-WebSocket fields.
func AcceptWebSocket(under net.Conn, host string, h http.Header) (net.Conn, error) {
	b := &batch{Conn: under}
	h = h.Clone()
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	r := &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Host: host, Header: h}
	w := &switching{conn: b, header: http.Header{}}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{Subprotocol}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, fmt.Errorf("websocket: %w", err)
	}
	if ws.Subprotocol() != Subprotocol {
		ws.CloseNow()
		return nil, fmt.Errorf("websocket: the peer does not ask for %s", Subprotocol)
	}
	return newSocket(b, ws), nil
}

func newSocket(b *batch, ws *websocket.Conn) *socket {
	ws.SetReadLimit(-1) // a message is never held whole
	return &socket{under: b, ws: ws}
}

func (s *socket) Read(p []byte) (int, error) {
	for {
		if s.rest == nil {
			kind, r, err := s.ws.Reader(context.Background())
			if err != nil {
				return 0, err
			}
			if kind != websocket.MessageBinary {
				return 0, errors.New("websocket: a message that is not binary")
			}
			s.rest = r
		}
		n, err := s.rest.Read(p)
		if err == io.EOF {
			s.rest, err = nil, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

func (s *socket) Write(p []byte) (int, error) {
	s.under.begin()
	err := s.ws.Write(context.Background(), websocket.MessageBinary, p)
	if e := s.under.end(); err == nil {
		err = e
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close ends the connection beneath at once: what lies on top said good-bye.
func (s *socket) Close() error {
	s.once.Do(func() {
		s.under.closeNow()
		s.ws.CloseNow()
	})
	return nil
}

// A batch lies between a WebSocket and the TLS connection beneath it: the
// library writes 4 KiB at a time, each of which would be a TLS record and a
// system call.
type batch struct {
	net.Conn

	mu   sync.Mutex
	hold bool
	out  *[]byte
}

func (b *batch) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold, b.out = true, gatherBufs.Get().(*[]byte)
}

func (b *batch) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.hold {
		return b.Conn.Write(p)
	}
	*b.out = append(*b.out, p...)
	return len(p), nil
}

func (b *batch) end() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.out
	b.hold, b.out = false, nil
	var err error
	if t, g := gathered(b.Conn); g != nil {
		err = g.Flush(t, *out)
	} else if len(*out) > 0 {
		_, err = b.Conn.Write(*out)
	}
	if cap(*out) <= 2*gatherSize {
		*out = (*out)[:0]
		gatherBufs.Put(out)
	}
	return err
}

func (b *batch) closeNow() {
	if _, g := gathered(b.Conn); g != nil {
		g.CloseNow()
		return
	}
	b.Conn.Close()
}

// switching is the answer to a request that becomes a WebSocket.
type switching struct {
	conn   net.Conn
	header http.Header
	status int
}

func (w *switching) Header() http.Header    { return w.header }
func (w *switching) WriteHeader(status int) { w.status = status }

// Write is for the text of a refusal, which the caller answers itself.
func (w *switching) Write(p []byte) (int, error) { return len(p), nil }

func (w *switching) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", w.status, http.StatusText(w.status))
	w.header.Write(&head)
	head.WriteString("\r\n")
	if _, err := w.conn.Write(head.Bytes()); err != nil {
		return nil, nil, err
	}
	return w.conn, bufio.NewReadWriter(bufio.NewReader(w.conn), bufio.NewWriter(w.conn)), nil
}

// The rest of net.Conn is of the connection beneath.

func (s *socket) LocalAddr() net.Addr                { return s.under.LocalAddr() }
func (s *socket) RemoteAddr() net.Addr               { return s.under.RemoteAddr() }
func (s *socket) SetDeadline(t time.Time) error      { return s.under.SetDeadline(t) }
func (s *socket) SetReadDeadline(t time.Time) error  { return s.under.SetReadDeadline(t) }
func (s *socket) SetWriteDeadline(t time.Time) error { return s.under.SetWriteDeadline(t) }
