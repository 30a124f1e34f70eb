//go:build unix

package gateway

import (
	"bufio"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/meter"
)

// cpu is what this process has used, in microseconds.
func cpu(b *testing.B) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec)*1e6 + float64(u.Utime.Usec+u.Stime.Usec)
}

// BenchmarkPass sends small requests with a token over real TLS on 32
// connections. CPU is that of client, gateway and the inside together.
func BenchmarkPass(b *testing.B) {
	answer := make([]byte, 1024)
	r, _ := start(b, func(q *request) { q.answer(200, answer, "Content-Type", "application/octet-stream") })
	message := []byte("GET /any/x HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer " + r.site.session(b) + "\r\nUser-Agent: bench\r\n\r\n")
	const conns = 32
	var wires []*wire
	for range conns {
		w := r.dial(nil)
		w.SetDeadline(time.Time{})
		wires = append(wires, w)
	}
	var left atomic.Int64
	round := func(n int) {
		left.Store(int64(n))
		var wg sync.WaitGroup
		for _, w := range wires {
			wg.Go(func() {
				br := bufio.NewReader(w)
				for left.Add(-1) >= 0 {
					if _, err := w.Write(message); err != nil {
						b.Error(err)
						return
					}
					resp, err := http.ReadResponse(br, nil)
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, resp.Body)
				}
			})
		}
		wg.Wait()
	}
	round(1000)
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu(b)
	round(b.N)
	b.StopTimer()
	b.ReportMetric((cpu(b)-before)/float64(b.N), "cpu-µs/op")
}

// BenchmarkAccount is what accounting, limits and the sampled log cost a
// request, without the request.
func BenchmarkAccount(b *testing.B) {
	r, _ := start(b, echo)
	x := exchange{g: r.gw, bill: bill{shard: meter.Pick()}, begun: true, started: time.Now()}
	x.res.Status, x.id, x.route = 200, "c5ecnccu-5", r.gw.edge.Load().match([]byte("/any"))
	x.caller = cmg.Caller{Proof: cmg.ProofToken, Device: deviceID}
	b.ReportAllocs()
	for b.Loop() {
		x.bill.begin()
		x.bill.endpoint = x.route.endpoint
		x.prove(&x.caller)
		if x.limit() != nil || x.g.gate.Enter(b.Context(), x.route.Class) != nil {
			b.Fatal("refused")
		}
		x.give(1200)
		x.g.gate.Leave()
		x.account(300)
	}
}
