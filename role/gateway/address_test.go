package gateway

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/opencmg/cmg/web"
)

func TestAddresses(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAddresses(CallerLimits{Rate: 10, Burst: 5})
	for i := range 5 {
		if wait := a.take("192.0.2.1", now); wait != 0 {
			t.Fatalf("request %d waits %v", i, wait)
		}
	}
	if wait := a.take("192.0.2.1", now); wait <= 0 || wait > 100*time.Millisecond || a.refused() != 1 {
		t.Errorf("the sixth waits %v; %d refused", wait, a.refused())
	}
	if wait := a.take("192.0.2.1", now.Add(100*time.Millisecond)); wait != 0 {
		t.Errorf("a tenth of a second later: %v", wait)
	}
	for range 5 {
		a.take("2001:db8:0:1::1", now)
	}
	if a.take("2001:db8:0:1:ffff::2", now) == 0 {
		t.Error("another address of the same /64 has a bucket of its own")
	}
	if a.take("2001:db8:0:2::1", now) != 0 {
		t.Error("another /64 waits")
	}
	// One flood takes hardly anybody along: two buckets have to be met.
	flooded := 0
	for i := range 10000 {
		if a.take(fmt.Sprintf("10.%d.%d.1", i/256, i%256), now) != 0 {
			flooded++
		}
	}
	if flooded > 10 {
		t.Errorf("%d of 10,000 others wait", flooded)
	}
	var none *addresses
	if newAddresses(CallerLimits{}) != nil || none.take("192.0.2.1", now) != 0 || none.refused() != 0 {
		t.Error("no limit is one")
	}
	if n := testing.AllocsPerRun(100, func() { a.take("192.0.2.9", now) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAddressLimits(t *testing.T) {
	t.Parallel()
	c := getSite(t).config(t)
	c.AddressLimits = AddressLimits{Rate: 0.001, Burst: 3}
	r := run(t, c)
	in := r.connect("cp-1", echo)
	in.publish(r.site.publication(t, 1))
	before := in.streams.Load()
	client := r.client(&r.site.device, false)
	for range 3 {
		if resp, _ := do(t, client, r.request("GET", "/any/x", nil)); resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
	}
	resp, _ := do(t, client, r.request("GET", "/any/x", nil))
	if resp.StatusCode != 429 || resp.Header.Get(web.RefusalHeader) != "CMGService_Address_Limited" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the fourth: %s %v", resp.Status, resp.Header)
	}
	if n := in.streams.Load() - before; n != 3 {
		t.Errorf("%d reached the inside", n)
	}
	for _, bad := range []AddressLimits{{Rate: -1}, {HandshakeRate: 1e9}, {Burst: -1}, {HandshakeRate: 1, HandshakeBurst: -1}} {
		c.AddressLimits = bad
		if _, err := New(c); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}

func TestHandshakeLimits(t *testing.T) {
	t.Parallel()
	c := getSite(t).config(t)
	c.AddressLimits = AddressLimits{HandshakeRate: 0.001, HandshakeBurst: 2}
	r := run(t, c)
	r.connect("cp-1", echo).publish(r.site.publication(t, 1))
	for range 2 {
		if resp, _ := do(t, r.client(&r.site.device, false), r.request("GET", "/any/x", nil)); resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
	}
	conn := must[net.Conn](t)(net.Dial("tcp", r.clients))
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	conn.Write([]byte{22}) // the kernel may wait for a first byte; whether it still goes does not matter
	if n, err := conn.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("a third connection was greeted")
	}
	if n := r.gw.live.Load().greetings.refused(); n != 1 {
		t.Errorf("%d handshakes refused", n)
	}
}
