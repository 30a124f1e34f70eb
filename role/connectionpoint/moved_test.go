package connectionpoint

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// TestLargeWhileMoving has the channels move to a better way while large
// bodies pass in both directions at once: each arrives whole.
func TestLargeWhileMoving(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	half := make(chan bool)
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		io.Copy(w, r.Body)
	}))
	t.Cleanup(inner.Close)
	var m cmg.Map
	if err := json.Unmarshal(ok[[]byte](t)(os.ReadFile(d.file("map.json"))), &m); err != nil {
		t.Fatal(err)
	}
	m.Mappings[0].Target = inner.URL
	if err := os.WriteFile(d.file("map.json"), ok[[]byte](t)(json.Marshal(m)), 0o600); err != nil {
		t.Fatal(err)
	}
	https, _ := d.listen(transportHTTPS, "127.0.0.1:0", "gw-1")
	closed := ok[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	tcp := closed.Addr().String()
	closed.Close()
	d.through(d.config(Gateway{Name: "gw-1", TCP: tcp, HTTPS: https}))
	soon(t, "a channel by HTTPS", 5*time.Second, func() bool { return d.held()[arrival{"gw-1", transportHTTPS}] == 1 })
	d.mu.Lock()
	var s *channel.Session
	for x := range d.sessions {
		s = x
	}
	d.mu.Unlock()

	body := noise(8 << 20)
	var all sync.WaitGroup
	for range 3 {
		var q h1.Request
		if err := q.Begin("POST", "gw", "/nothing", int64(len(body))); err != nil {
			t.Fatal(err)
		}
		st := ok[*channel.Stream](t)(s.Open(q.AppendCompact(nil), nil, false))
		all.Go(func() {
			rest := body
			for first := true; len(rest) > 0; first = false {
				n := min(len(rest), 256<<10)
				send := func(p []byte) error { _, err := st.Write(p); return err }
				if n == len(rest) {
					send = st.WriteEnd
				}
				if err := send(rest[:n]); err != nil {
					t.Errorf("after %d bytes: %v", len(body)-len(rest), err)
					return
				}
				if rest = rest[n:]; first {
					<-half // the rest goes while the channel moves
				}
			}
		})
		all.Go(func() {
			defer st.Close()
			if _, err := st.Head(); err != nil {
				t.Error(err)
				return
			}
			got, end := st.First()
			got = bytes.Clone(got)
			for !end {
				p, err := st.Next()
				if got = append(got, p...); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Errorf("after %d bytes: %v", len(got), err)
					return
				}
			}
			if !bytes.Equal(got, body) {
				t.Errorf("%d bytes came back of %d", len(got), len(body))
			}
		})
	}
	d.listen(transportTCP, tcp, "gw-1")
	soon(t, "a channel by TCP beside it", 10*time.Second, func() bool { return d.held()[arrival{"gw-1", transportTCP}] == 1 })
	close(half)
	all.Wait()
	soon(t, "the old one ends", 10*time.Second, func() bool { return cmp.Equal(d.held(), map[arrival]int{{"gw-1", transportTCP}: 1}) })
}

// TestSixteen holds channels to sixteen instances: behind one port, and each
// at ports of its own as the field has them.
func TestSixteen(t *testing.T) {
	var names []string
	for i := range maxFieldPorts {
		names = append(names, fmt.Sprintf("gw-%d", i))
	}
	t.Run("one port", func(t *testing.T) {
		d := newDoor(t)
		at, _ := d.listen(transportHTTPS, "127.0.0.1:0", names...)
		p := d.through(d.config(Gateway{Service: at, Instances: len(names)}))
		soon(t, "one channel to each", 60*time.Second, func() bool { return len(d.held()) == len(names) })
		soon(t, "it is ready", 5*time.Second, func() bool { return p.fleet.places()[0].found() == len(names) })
	})
	t.Run("multi-port", func(t *testing.T) {
		d := newDoor(t)
		want := map[arrival]int{}
		for i, name := range names {
			transport, port := transportTCP, portTCPFirst+i
			if i%2 == 1 { // its TCP port is closed
				transport, port = transportHTTPS, portHTTPSFirst+i
			}
			if ln, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)); err != nil {
				t.Skipf("the field's port %d is in use here: %v", port, err)
			} else {
				ln.Close()
			}
			d.listen(transport, fmt.Sprint("127.0.0.1:", port), name)
			want[arrival{name, transport}] = 1
		}
		d.through(d.config(Gateway{Service: "127.0.0.1", Instances: len(names), Mode: modeMultiPort}))
		soon(t, "one channel to each, by its own port", 30*time.Second, func() bool { return cmp.Equal(d.held(), want) })
	})
}

// TestNTLMRefused has a proxy make its challenge and then refuse the answer,
// as a real one does with a wrong password.
func TestNTLMRefused(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	https, _ := d.listen(transportHTTPS, "127.0.0.1:0", "gw-1")
	ln := ok[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	var mu sync.Mutex
	var said []string
	var serving sync.WaitGroup
	t.Cleanup(func() { ln.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				rd := bufio.NewReader(c)
				for step := 0; ; step++ {
					req, err := http.ReadRequest(rd)
					if err != nil {
						return
					}
					mu.Lock()
					said = append(said, req.Header.Get("Proxy-Authorization"))
					mu.Unlock()
					challenge := "NTLM"
					if step == 1 { // MS-NLMP 2.2.1.2: a challenge with flags and a nonce
						challenge = "NTLM TlRMTVNTUAACAAAAAAAAADgAAAABAoEAASNFZ4mrze8AAAAAAAAAAAAAAAAAAAAA"
					}
					fmt.Fprintf(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: %s\r\nContent-Length: 0\r\n\r\n", challenge)
				}
			})
		}
	})
	const password = "wrong-secret"
	file := d.file("password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := d.config(Gateway{HTTPS: https})
	c.Proxy = Proxy{URL: "http://" + ln.Addr().String(), User: "user1", PasswordFile: file, Domain: "HOUSE", Authentication: schemeNTLM}
	p := ok[*Point](t)(New(c))
	_, err := p.fleet.links()[0].dial(t.Context(), p.fleet.places()[0].ways, "")
	if !errors.Is(err, cmg.ErrUnauthenticated) || !strings.Contains(err.Error(), "does not take the user and the password") || strings.Contains(err.Error(), password) {
		t.Errorf("got %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(said) != 3 || said[0] != "" || !strings.HasPrefix(said[1], "NTLM TlRMTVNTUAAB") || !strings.HasPrefix(said[2], "NTLM TlRMTVNTUAAD") {
		t.Errorf("%d requests: %q", len(said), said)
	}
}

// TestDeclined sends requests on every connection that comes, also those that
// the connection point finds that it does not want: none is lost without the
// word that it was not handed on.
func TestDeclined(t *testing.T) {
	t.Parallel()
	d := newDoor(t)
	at, _ := d.listen(transportHTTPS, "127.0.0.1:0", "gw-1")
	d.through(d.config(Gateway{Service: at, Instances: 2})) // it looks for a second one, and meets the first
	var refused, served int
	tried := map[*channel.Session]bool{}
	soon(t, "connections were not wanted", 60*time.Second, func() bool {
		d.mu.Lock()
		var fresh []*channel.Session
		for s := range d.sessions {
			if !tried[s] {
				tried[s] = true
				fresh = append(fresh, s)
			}
		}
		d.mu.Unlock()
		for _, s := range fresh {
			for range 5 {
				var q h1.Request
				if err := q.Begin("POST", "gw", "/nothing", 0); err != nil {
					t.Fatal(err)
				}
				st, err := s.Open(q.AppendCompact(nil), nil, true)
				if err != nil {
					continue
				}
				_, err = st.Head()
				var e *channel.StreamError
				switch {
				case err == nil:
					served++
				case errors.As(err, &e) && e.Untouched:
					refused++
				default:
					t.Errorf("it may have been handed on: %v", err)
				}
				st.Close()
			}
		}
		return len(tried) > 10
	})
	if served != 5 || refused == 0 {
		t.Errorf("%d served, %d refused", served, refused)
	}
}
