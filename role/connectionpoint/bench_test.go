//go:build unix

package connectionpoint

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkPass sends small requests through a connection point to a server.
// CPU is that of the gateway's stand-in, the connection point and the server
// together.
func BenchmarkPass(b *testing.B) {
	answer := make([]byte, 1024)
	g, _ := start(b, "/any", server(b, func(w http.ResponseWriter, _ *http.Request) { w.Write(answer) }).URL)
	var left atomic.Int64
	round := func(n int) {
		left.Store(int64(n))
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if a := g.do("GET", "/any/x", nil, "CMG-Request-Id", "c5ecnccu-5", "Authorization", "Bearer x"); a.status != 200 {
						b.Error(a.status, a.err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	used := func() float64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return float64(u.Utime.Sec+u.Stime.Sec)*1e6 + float64(u.Utime.Usec+u.Stime.Usec)
	}
	round(1000)
	b.ReportAllocs()
	b.ResetTimer()
	before := used()
	round(b.N)
	b.StopTimer()
	b.ReportMetric((used()-before)/float64(b.N), "cpu-µs/op")
}
