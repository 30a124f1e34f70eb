package connectionpoint

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

func TestGatewayPlaces(t *testing.T) {
	tests := []struct {
		g    Gateway
		want string // label, instances, ways; or what is wrong
	}{
		{Gateway{TCP: "gw:10140"}, "gw:10140 1 [tcp-tls to gw:10140]"},
		{Gateway{Name: "gw-1", TCP: "gw:1", HTTPS: "gw:2"}, "gw-1 1 [tcp-tls to gw:1 https to gw:2]"},
		{Gateway{HTTPS: "[::1]:443"}, "[::1]:443 1 [https to [::1]:443]"},
		{Gateway{Service: "gw"}, "gw:443 1 [tcp-tls to gw:443 https to gw:443]"},
		{Gateway{Service: "gw:8443", Instances: 16}, "gw:8443 16 [tcp-tls to gw:8443 https to gw:8443]"},
		{Gateway{Service: "::1", Instances: 2, Mode: "one-port"}, "[::1]:443 2 [tcp-tls to [::1]:443 https to [::1]:443]"},
		{Gateway{Service: "gw", Mode: "multi-port"}, "gw:10140 1 [tcp-tls to gw:10140 https to gw:443]"},
		{Gateway{Service: "gw", Instances: 2, Mode: "multi-port"}, "gw:10140 1 [tcp-tls to gw:10140 https to gw:10124], gw:10141 1 [tcp-tls to gw:10141 https to gw:10125]"},
		{Gateway{Service: "gw", Instances: 2, Mode: "tcp"}, "gw:10140 1 [tcp-tls to gw:10140], gw:10141 1 [tcp-tls to gw:10141]"},
		{Gateway{}, "tcp, https or service has to be set"},
		{Gateway{TCP: "gw"}, `"gw" is not host:port`},
		{Gateway{TCP: "gw:1", Instances: 2}, "instances and mode are for a service"},
		{Gateway{Service: "gw", TCP: "gw:1"}, "one or the other"},
		{Gateway{Service: "gw", Mode: "both"}, `mode "both" is not`},
		{Gateway{Service: "gw", Mode: "multi-port", Instances: 17}, "17 instances: mode multi-port has 16 ports"},
		{Gateway{Service: "gw", Instances: 257}, "257 instances, at most 256"},
		{Gateway{Service: "gw:1", Mode: "tcp"}, "has ports of its own"},
	}
	for _, tt := range tests {
		places, err := tt.g.places()
		var got []string
		for _, pl := range places {
			got = append(got, fmt.Sprintf("%s %d %v", pl.label, pl.want, pl.ways))
		}
		if err != nil {
			if !errors.Is(err, cmg.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%+v: %v, want %q", tt.g, err, tt.want)
			}
			continue
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%+v:\n%s, want\n%s", tt.g, s, tt.want)
		}
	}
	all, _ := Gateway{Service: "gw", Instances: 16, Mode: "multi-port"}.places()
	if len(all) != 16 || all[15].ways[0].addr != "gw:10155" || all[15].ways[1].addr != "gw:10139" {
		t.Errorf("16 instances end at %v", all[len(all)-1].ways)
	}
}

// load sends requests until it is stopped; each that fails is counted.
func (d *door) load(workers int) (stop func() (done, failed int64)) {
	var doneN, failedN atomic.Int64
	var wg sync.WaitGroup
	quit := make(chan struct{})
	for range workers {
		wg.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				if err := d.exchange(); err != nil {
					failedN.Add(1)
					d.t.Errorf("a request failed: %v", err)
					return
				}
				doneN.Add(1)
			}
		})
	}
	return func() (int64, int64) {
		close(quit)
		wg.Wait()
		return doneN.Load(), failedN.Load()
	}
}

// TestFallBackAndReturn: TCP cannot be had, so the channel comes by HTTPS and
// says why; once TCP is there it moves, and no request of many is lost.
func TestFallBackAndReturn(t *testing.T) {
	d := newDoor(t)
	https, _ := d.listen(transportHTTPS, "127.0.0.1:0", "gw-1")
	tcp := ok[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")).(*net.TCPListener)
	addr := tcp.Addr().String()
	tcp.Close()
	c := d.config(Gateway{Name: "gw-1", TCP: addr, HTTPS: https})
	c.Connections = 3
	p := d.through(c)
	soon(t, "three channels by HTTPS", 5*time.Second, func() bool { return d.held()[arrival{"gw-1", transportHTTPS}] == 3 })
	var r map[string]any
	soon(t, "the link is up", time.Second, func() bool { r = shown(p); return r["state"] == "up" })
	if r["transport"] != "https" || r["instance"] != "gw-1" {
		t.Errorf("status %v", r)
	}
	if why := r["instead_of"].([]wayRow); len(why) != 1 || why[0].Address != addr || !strings.Contains(why[0].Why, "refused") {
		t.Errorf("it says %+v, want that %s was refused", why, addr)
	}
	stop := d.load(4)
	d.listen(transportTCP, addr, "gw-1")
	soon(t, "three channels by TCP, none by HTTPS", 10*time.Second, func() bool {
		return cmp.Equal(d.held(), map[arrival]int{{"gw-1", transportTCP}: 3})
	})
	if done, failed := stop(); done == 0 || failed != 0 {
		t.Errorf("%d requests, %d failed", done, failed)
	}
	soon(t, "the status says so", time.Second, func() bool { r = shown(p); return r["transport"] == "tcp-tls" && r["instead_of"] == nil })
	if n := d.opened.Load(); n != 6 {
		t.Errorf("%d channels were opened, want 3 and 3", n)
	}
}

// TestOnePort: behind one port that several instances share, a connection
// point finds each of them, as often as it should, by either way, and again
// after all was lost.
func TestOnePort(t *testing.T) {
	for _, noPort := range []bool{false, true} {
		t.Run(map[bool]string{false: "tls", true: "websocket"}[noPort], func(t *testing.T) {
			d := newDoor(t)
			d.noPort = noPort
			transport := map[bool]string{false: transportTCP, true: transportHTTPS}[noPort]
			names := []string{"gw-1", "gw-2", "gw-3", "gw-4"}
			at, close := d.listen(transportHTTPS, "127.0.0.1:0", names...)
			c := d.config(Gateway{Service: at, Instances: 4})
			c.Connections, c.BetterEvery = 2, time.Minute
			p := d.through(c)
			want := map[arrival]int{}
			for _, n := range names {
				want[arrival{n, transport}] = 2
			}
			found := func() bool { return cmp.Equal(d.held(), want) }
			soon(t, "two channels to each of four instances", 20*time.Second, found)
			close()
			soon(t, "all channels are lost", 5*time.Second, func() bool { return len(d.held()) == 0 })
			if p.fleet.places()[0].found() > 0 {
				soon(t, "that is noticed", 5*time.Second, func() bool { return p.fleet.places()[0].found() == 0 })
			}
			d.listen(transportHTTPS, at, names...)
			soon(t, "all are there again", 30*time.Second, found)
		})
	}
}

// TestOneInstanceTooFew: it says which instances it has not found, and holds
// what it has.
func TestOneInstanceTooFew(t *testing.T) {
	d := newDoor(t)
	at, _ := d.listen(transportHTTPS, "127.0.0.1:0", "gw-1")
	p := d.through(d.config(Gateway{Service: at, Instances: 2}))
	soon(t, "one link looks", 10*time.Second, func() bool {
		return strings.Contains(strings.Join(states(p), " "), "gw-1 again, to which there are 1 channels already (1 of 2 instances found)")
	})
	soon(t, "one channel is held, and the other given up", 5*time.Second, func() bool { return d.held()[arrival{"gw-1", transportTCP}] == 1 })
	if err := d.exchange(); err != nil {
		t.Error(err)
	}
}

// TestNamedInstance: behind an address shared with others it waits for the
// one it wants.
func TestNamedInstance(t *testing.T) {
	d := newDoor(t)
	d.noPort = true
	at, _ := d.listen(transportHTTPS, "127.0.0.1:0", "gw-1", "gw-2", "gw-3")
	c := d.config(Gateway{Name: "gw-2", HTTPS: at})
	c.Connections = 2
	d.through(c)
	soon(t, "two channels to gw-2 alone", 20*time.Second, func() bool { return cmp.Equal(d.held(), map[arrival]int{{"gw-2", transportHTTPS}: 2}) })
}

// TestAddressFamilies: every leg outward by IPv6, by IPv4, and by a name that
// has both while only one answers.
func TestAddressFamilies(t *testing.T) {
	if ln, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("no IPv6 here: ", err)
	} else {
		ln.Close()
	}
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		t.Run(host, func(t *testing.T) {
			d := newDoor(t)
			tcp, _ := d.listen(transportTCP, host+":0", "gw-1")
			https, _ := d.listen(transportHTTPS, host+":0", "gw-1")
			d.through(d.config(Gateway{TCP: tcp}, Gateway{HTTPS: https}, Gateway{Service: https}))
			soon(t, "a channel by each", 5*time.Second, func() bool {
				return cmp.Equal(d.held(), map[arrival]int{{"gw-1", transportTCP}: 2, {"gw-1", transportHTTPS}: 1})
			})
			_, port, _ := net.SplitHostPort(https)
			if names, _ := net.LookupHost("localhost"); !slices.Contains(names, strings.Trim(host, "[]")) {
				return // the name has one address here
			}
			d.through(func() Config {
				c := d.config(Gateway{HTTPS: "localhost:" + port})
				c.StateDir = d.file("other")
				return c
			}())
			soon(t, "one by name", 5*time.Second, func() bool { return d.held()[arrival{"gw-1", transportHTTPS}] == 2 })
		})
	}
}
