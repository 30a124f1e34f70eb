package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// sockets is a server inside that takes WebSockets: one that sends back what
// comes, one that sends without being asked, one that only waits.
func sockets(t *testing.T, over chan<- error) *httptest.Server {
	accept := func(f func(context.Context, *websocket.Conn) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"lab"}})
			if err != nil {
				return
			}
			c.SetReadLimit(-1)
			defer c.CloseNow()
			err = f(context.WithoutCancel(r.Context()), c)
			select {
			case over <- err:
			default:
			}
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", accept(func(ctx context.Context, c *websocket.Conn) error {
		for {
			kind, b, err := c.Read(ctx)
			if err == nil {
				err = c.Write(ctx, kind, b)
			}
			if err != nil {
				return err
			}
		}
	}))
	mux.HandleFunc("/pour", accept(func(ctx context.Context, c *websocket.Conn) error {
		for range 256 {
			if err := c.Write(ctx, websocket.MessageBinary, make([]byte, 64<<10)); err != nil {
				return err
			}
		}
		return c.Close(websocket.StatusNormalClosure, "all of it")
	}))
	mux.HandleFunc("/drop", accept(func(ctx context.Context, c *websocket.Conn) error {
		_, _, err := c.Read(ctx)
		return err // without a word of goodbye
	}))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// socket opens a WebSocket as a client on the internet does.
func (l *lab) socket(t *testing.T, path string) *websocket.Conn {
	t.Helper()
	c, resp, err := websocket.Dial(t.Context(), l.env["CMG_URL"]+path, &websocket.DialOptions{HTTPClient: l.client(true), Subprotocols: []string{"lab"}})
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("CMG-Request-Id") == "" || c.Subprotocol() != "lab" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	c.SetReadLimit(-1)
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// ends wants the socket to end, before a lot of time has passed.
func ends(t *testing.T, c *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the client was not told: %v", err)
	}
}

// TestWebSocket goes through both roles with a real client and server: 16 MiB
// each way, a client that reads slowly, then each end and each role between
// them taken away.
func TestWebSocket(t *testing.T) {
	over := make(chan error, 16)
	s := sockets(t, over)
	l := startLab(t, "--map", "/ws="+s.URL)
	heard := func(t *testing.T) {
		t.Helper()
		select {
		case <-over:
		case <-time.After(time.Minute):
			t.Error("the server was not told")
		}
	}
	t.Run("16 MiB each way", func(t *testing.T) {
		c := l.socket(t, "/ws/echo")
		data := make([]byte, 16<<20)
		rand.Read(data)
		if err := c.Write(t.Context(), websocket.MessageBinary, data); err != nil {
			t.Fatal(err)
		}
		_, got, err := c.Read(t.Context())
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes came back, %v", len(got), err)
		}
		if err := c.Ping(c.CloseRead(t.Context())); err != nil {
			t.Error(err)
		}
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
		heard(t)
	})
	t.Run("slow reader", func(t *testing.T) {
		c := l.socket(t, "/ws/pour")
		quick := l.socket(t, "/ws/echo") // is not held up
		n := 0
		for {
			_, r, err := c.Reader(t.Context())
			if err != nil {
				if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
					t.Error(err)
				}
				break
			}
			m, err := io.Copy(io.Discard, r)
			if err != nil {
				t.Fatal(err)
			}
			if n += int(m); n%(1<<20) == 0 {
				if err := quick.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
					t.Fatal(err)
				}
				if _, b, err := quick.Read(t.Context()); err != nil || string(b) != "hello" {
					t.Fatalf("%q, %v", b, err)
				}
			}
		}
		if n != 16<<20 {
			t.Errorf("%d bytes came", n)
		}
		heard(t)
		quick.CloseNow()
		heard(t)
	})
	t.Run("refused", func(t *testing.T) {
		_, resp, err := websocket.Dial(t.Context(), l.env["CMG_URL"]+"/ws/nowhere", &websocket.DialOptions{HTTPClient: l.client(true)})
		if err == nil || resp.StatusCode != 404 {
			t.Errorf("%v, %v", resp, err)
		}
	})
	t.Run("client leaves", func(t *testing.T) {
		l.socket(t, "/ws/echo").CloseNow()
		heard(t)
	})
	t.Run("server leaves", func(t *testing.T) {
		c := l.socket(t, "/ws/drop")
		if err := c.Write(t.Context(), websocket.MessageText, []byte("go")); err != nil {
			t.Fatal(err)
		}
		ends(t, c)
		heard(t)
	})
	for role, both := range map[string][]string{"connection point": {"connection-point-1", "connection-point-2"}, "gateway": {"gateway-1", "gateway-2"}} {
		t.Run(role+" is killed", func(t *testing.T) {
			c := l.socket(t, "/ws/echo")
			for _, name := range both {
				l.kill(name)
			}
			ends(t, c)
			heard(t)
			for _, name := range both {
				l.again(name)
			}
			for _, name := range []string{"gateway-1", "gateway-2", "connection-point-1", "connection-point-2"} {
				l.until(name+" is back", func() error { return l.ready(name) })
			}
		})
	}
}
