package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/meter"
)

// A counted is a client's connection that counts what passes above TLS.
type counted struct {
	*tls.Conn
	in, out *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.Add(int64(n))
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out.Add(int64(n))
	return n, err
}

func (a *accounts) total() (t meter.Traffic) {
	for _, e := range a.all() {
		e.each(func(_, _, _ int, more meter.Traffic) { t = t.Plus(more) })
	}
	return t
}

// big answers with three megabytes in pieces, others with what was sent.
func big(q *request) {
	if !strings.HasSuffix(string(q.head.Path), "/big") {
		echo(q)
		return
	}
	q.begin(200, -1, nil, false)
	for range 3 {
		if _, err := q.st.Write(noise(1 << 20)); err != nil {
			return
		}
	}
	q.st.WriteEnd([]byte("end"))
}

// TestAccountsAreExact compares the accounts with what a client counts on
// its own connections, byte by byte.
func TestAccountsAreExact(t *testing.T) {
	r, _ := start(t, big)
	token := "Authorization: Bearer " + r.site.session(t) + "\r\n"
	for _, messages := range [][]string{
		{"GET /any/x HTTP/1.1\r\nHost: h\r\n" + token + "\r\n", "HEAD /any/x HTTP/1.1\r\nHost: h\r\n" + token + "\r\n"},
		{"\r\nPOST /any/x HTTP/1.1\r\nHost: h\r\n" + token + "Content-Length: 5\r\n\r\nhello", "GET /any/big HTTP/1.1\r\nHost: h\r\n" + token + "\r\n"},
		{"POST /any/x HTTP/1.1\r\nHost: h\r\n" + token + "Transfer-Encoding: chunked\r\n\r\n" + chunks(300<<10) + "0\r\n\r\n"},
		{"POST /any/x HTTP/1.1\r\nHost: h\r\n" + token + "Content-Length: 200000\r\n\r\n" + string(noise(200000)), "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n"},
		{"POST /any/x HTTP/1.1\r\nHost: h\r\nContent-Length: 30000\r\n\r\n" + string(noise(30000)), "GET /any/x HTTP/1.1\r\nHost: h\r\n" + token + "\r\n"},
		{"POST /small/x HTTP/1.1\r\nHost: h\r\n" + token + "Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"},
		{"GET /any/x HTTP/1.1\nHost: h\n\n"},
		{"GET /an"},
	} {
		var in, out atomic.Int64
		before := r.gw.accounts.total()
		c := counted{r.dial(nil).Conn, &in, &out}
		go func() {
			for _, m := range messages {
				io.WriteString(c, m)
			}
		}()
		br := bufio.NewReader(c)
		for _, m := range messages {
			method, _, _ := strings.Cut(strings.TrimSpace(m), " ")
			if m == "GET /an" {
				eventually(t, "the piece is sent", func() bool { return out.Load() == int64(len(m)) })
				c.CloseWrite()
				continue
			}
			resp, err := http.ReadResponse(br, &http.Request{Method: method})
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
			}
			if err != nil {
				t.Fatal(m[:20], err)
			}
		}
		c.CloseWrite()
		io.Copy(io.Discard, br)
		c.Close()
		eventually(t, "the sums are equal", func() bool {
			got := r.gw.accounts.total()
			if got.In-before.In == out.Load() && got.Out-before.Out == in.Load() {
				return true
			}
			t.Logf("%.20q: accounts %d in, %d out; the client sent %d, read %d", messages, got.In-before.In, got.Out-before.Out, out.Load(), in.Load())
			return false
		})
	}
	if sent, total := r.gw.accounts.sent.Load(), r.gw.accounts.total().Out; sent != total {
		t.Errorf("%d bytes piece by piece, %d by request", sent, total)
	}
}

func chunks(n int) string {
	return fmt.Sprintf("%x\r\n%s\r\n", n, noise(n))
}

// TestAccountsByKind looks at who was charged for what, over both protocols.
func TestAccountsByKind(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("h2=", h2), func(t *testing.T) {
			r, _ := start(t, func(q *request) {
				q.answer(map[bool]int{true: 500, false: 200}[strings.HasSuffix(string(q.head.Path), "bad")], []byte("12345"))
			})
			withCert, without := r.client(&r.site.device, h2), r.client(nil, h2)
			do(t, withCert, r.request("GET", "/any/x", nil))
			do(t, withCert, r.request("GET", "/any/bad", nil))
			do(t, without, r.request("GET", "/any/x", nil))
			q := r.request("POST", "/any/x", strings.NewReader("1234567"))
			q.Header.Set("Authorization", "Bearer "+r.site.session(t))
			do(t, without, q)
			want := map[string]int64{"any/certificate/2xx/cp-1": 1, "any/certificate/5xx/cp-1": 1, "any/none/4xx/": 1, "any/token/2xx/cp-1": 1}
			got := map[string]int64{}
			names := r.gw.slots.names()
			eventually(t, "four requests are accounted for", func() bool { return r.gw.accounts.total().Requests == 4 })
			for _, e := range r.gw.accounts.all() {
				e.each(func(slot, proof, class int, tr meter.Traffic) {
					if tr.Requests == 0 {
						return
					}
					got[e.name+"/"+proofNames[proof]+"/"+classNames[class]+"/"+names[slot]] += tr.Requests
					if tr.In < 50*tr.Requests || tr.Out < 50*tr.Requests || tr.In > 3000*tr.Requests || tr.Out > 1000*tr.Requests {
						t.Errorf("%s: %+v", e.name, tr)
					}
				})
				if e.name == "any" && e.latency().Count != 4 {
					t.Errorf("the histogram has %d requests", e.latency().Count)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %v, want %v", got, want)
			}
			all := r.gw.accounts.callers.list()
			if len(all) != 1 || all[0].Caller != string(deviceID) || all[0].Requests != 3 {
				t.Errorf("callers: %+v", all)
			}
		})
	}
}

// TestCallersAreBounded wants the sums kept while places change hands.
func TestCallersAreBounded(t *testing.T) {
	cs := newCallers(slog.New(slog.DiscardHandler), callerShards) // a row a shard
	now := time.Unix(1e9, 0)
	for n := range 3 {
		for i := range 1000 {
			row := cs.of(&cmg.Caller{TokenID: fmt.Sprint("t", i)}, nil, now)
			now := now
			if n == 1 {
				now = now.Add(2 * restful) // another takes its place before it is charged
			}
			cs.of(&cmg.Caller{TokenID: fmt.Sprint("u", i)}, row, now)
			cs.add(row, 1, 2)
		}
	}
	var sum meter.Traffic
	for _, c := range cs.list() {
		sum = sum.Plus(meter.Traffic{Requests: c.Requests, In: c.In, Out: c.Out})
	}
	if want := (meter.Traffic{Requests: 3000, In: 3000, Out: 6000}); sum != want || cs.rows() > callerShards || cs.full.Load() == 0 {
		t.Errorf("%+v in %d rows, want %+v in at most %d", sum, cs.rows(), want, callerShards)
	}
}
