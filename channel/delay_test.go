package channel

import (
	"crypto/tls"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDelay counts the calls that a whole connection costs its server: a
// handshake that asks for a certificate, an answer and the alert behind it.
func TestDelay(t *testing.T) {
	for _, tt := range []struct {
		name    string
		version uint16
		delay   bool
		want    int64
	}{
		{"1.3 record by record", tls.VersionTLS13, false, 4}, // flight, ticket, answer, alert
		{"1.3", tls.VersionTLS13, true, 2},
		{"1.2", tls.VersionTLS12, true, 3}, // two flights
	} {
		t.Run(tt.name, func(t *testing.T) {
			outside, inside := pair(t, false)
			counted := &counted{Conn: outside}
			wire := NewGather(counted, 0)
			srv := tls.Server(wire, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, MaxVersion: tt.version, ClientAuth: tls.RequestClientCert})
			got := make(chan string, 1)
			go func() {
				c := tls.Client(inside, &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)})
				c.Write([]byte("ask"))
				b, err := io.ReadAll(c)
				if err != nil {
					b = []byte(err.Error())
				}
				got <- string(b)
			}()
			if tt.delay {
				wire.Delay()
			}
			if err := srv.Handshake(); err != nil {
				t.Fatal(err)
			}
			if tt.delay && tt.version == tls.VersionTLS13 {
				wire.DelayRest()
			} else if err := wire.Settle(); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 3)
			if _, err := io.ReadFull(srv, b); err != nil || string(b) != "ask" {
				t.Fatalf("read %q: %v", b, err)
			}
			if tt.delay {
				wire.Delay()
			}
			if _, err := srv.Write([]byte("answer")); err != nil {
				t.Fatal(err)
			}
			srv.Close()
			if diff := cmp.Diff("answer", <-got); diff != "" {
				t.Error(diff)
			}
			if n := counted.writes.Load(); n != tt.want {
				t.Errorf("%d writes, want %d", n, tt.want)
			}
		})
	}
}

// TestDelayEnds has a client read what waits although nothing was read or
// written since: before a read, and at the end of half a connection.
func TestDelayEnds(t *testing.T) {
	outside, inside := pair(t, false)
	g := NewGather(outside, 0)
	g.Delay()
	if _, err := g.Write([]byte("one")); err != nil {
		t.Fatal(err)
	}
	go inside.Write([]byte("x"))
	if _, err := io.ReadFull(g, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	g.Write([]byte("two"))
	g.DelayRest()
	g.Write([]byte("three"))
	g.Write([]byte("four"))
	g.Delay()
	g.Write(make([]byte, maxLate))
	g.Write([]byte("five"))
	g.Close()
	b, err := io.ReadAll(inside)
	if want := "onetwothreefour" + string(make([]byte, maxLate)) + "five"; err != nil || string(b) != want {
		t.Errorf("read %d bytes, want %d: %v", len(b), len(want), err)
	}
}
