package gateway

import (
	"io"
	"testing"
	"time"
)

// TestUpgradeParked has a server take its time to agree: the request is parked
// meanwhile, and what proved its caller is there still when it is looked at
// again.
func TestUpgradeParked(t *testing.T) {
	t.Parallel()
	agree := make(chan struct{})
	r, _ := start(t, func(q *request) { <-agree; echoed(q) }, func(g *Gateway) { g.limits.park = time.Millisecond })
	w := r.dial(nil)
	w.send(wish(server+"/SMS_MP/x", "Authorization: Bearer "+r.site.session(t)+"\r\n"))
	eventually(t, "it is parked", func() bool { return r.gw.counts.parked.Load() == 1 })
	close(agree)
	w.switched()
	eventually(t, "it is a tunnel", func() bool { return len(r.gw.tunnels.all()) == 1 })
	r.gw.recheck(t.Context(), r.gw.served)
	w.send("still here")
	got := make([]byte, len("still here"))
	if _, err := io.ReadFull(w.br, got); err != nil || string(got) != "still here" {
		t.Errorf("%q, %v", got, err)
	}
}
