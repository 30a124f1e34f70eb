package gateway

import (
	"crypto/tls"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
)

// TestMemorySteps climbs the steps and comes down again, over real
// connections.
func TestMemorySteps(t *testing.T) {
	var held atomic.Int64
	release := make(chan struct{})
	r, _ := start(t, func(q *request) {
		if strings.HasSuffix(string(q.head.Path), "/slow") {
			select {
			case <-release:
			case <-q.in.ended:
			}
		}
		q.answer(200, nil)
	}, func(g *Gateway) { g.memory = &memoryGuard{limit: 1000, used: held.Load} })
	step := func(n int64, level int) {
		held.Store(n)
		eventually(t, "the step is taken", func() bool { return r.gw.memory.level() == level })
	}
	ask := func(method string) *wire {
		w := r.dial(&r.site.device)
		w.send(method + " /any/slow HTTP/1.1\r\nHost: h\r\n\r\n")
		return w
	}
	refused := func(w *wire, method string) {
		t.Helper()
		if resp, _ := w.read(method); resp.StatusCode != 503 || resp.Header.Get("CMG-Refusal") != "CMGService_Memory_Short" || !resp.Close || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
	}
	gets, post, kept := []*wire{ask("GET"), ask("GET"), ask("GET")}, ask("POST"), r.dial(&r.site.device)
	eventually(t, "four are parked", func() bool { return r.gw.counts.parked.Load() == 4 })

	step(860, memoryTight)
	kept.send("GET /any/x HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, _ := kept.read("GET"); resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("%s, close %v", resp.Status, resp.Close)
	}
	refused(ask("GET"), "GET") // would be parked
	if n := r.gw.counts.parked.Load(); n != 4 {
		t.Errorf("%d are parked", n)
	}
	step(930, memoryShort)
	if c, err := tls.Dial("tcp", r.clients, r.settings(nil)); err == nil {
		c.Close()
		t.Error("a connection was taken")
	}
	step(960, memoryOut)
	for _, w := range gets {
		refused(w, "GET")
	}
	if n := r.gw.memory.ended.Load(); n != 3 {
		t.Errorf("%d were ended, want 3", n)
	}
	step(100, memoryFine)
	close(release)
	if resp, _ := post.read("POST"); resp.StatusCode != http.StatusOK {
		t.Errorf("the request that may not be sent again: %s", resp.Status)
	}
}

func TestMemoryHeld(t *testing.T) {
	before := memoryHeld()
	b := make([]byte, 64<<20)
	debug.FreeOSMemory()
	if more := memoryHeld() - before; more < 60<<20 || more > 80<<20 {
		t.Errorf("64 MiB more are held as %d", more)
	}
	runtime.KeepAlive(b)
	debug.FreeOSMemory()
	if more := memoryHeld() - before; more > 16<<20 {
		t.Errorf("%d bytes are held of what was given back", more)
	}
}
