package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// chaosTime is how long TestChaos lasts: CMG_CHAOS, such as 5m.
func chaosTime(t *testing.T) time.Duration {
	text := os.Getenv("CMG_CHAOS")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal("CMG_CHAOS: ", err)
	}
	return d
}

// TestChaos kills or freezes gateways and connection points at random while
// clients of all kinds send requests. Each request has its own whole answer,
// a refusal that says that it may have been carried out or was not, or a
// connection that ends; no POST is carried out twice; and afterwards
// everything is as before. CMG_CHAOS_SEED repeats a run's choices.
func TestChaos(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("CMG_CHAOS_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal("CMG_CHAOS_SEED: ", err)
		}
	}
	length := chaosTime(t)
	t.Logf("CMG_CHAOS=%s CMG_CHAOS_SEED=%d", length, seed)
	dice := rand.New(rand.NewPCG(seed, 1))
	o := startOrigin(t, 20*time.Millisecond)
	l := startLab(t, "--map", "/shop="+o.URL)
	d := startLoad(l, l.env["CMG_URL"]+"/shop/cart", 4, func(method, status string, err error) bool {
		switch {
		case err != nil: // its gateway is gone: the connection ended, and nobody waits
			return !os.IsTimeout(err)
		case strings.HasPrefix(status, "503 "): // it was not handed on
			return true
		}
		return method == "POST" && strings.HasPrefix(status, "502 CMGService_Channel_Lost")
	})
	roles := []string{"gateway-1", "gateway-2", "connection-point-1", "connection-point-2"}
	killed, frozen := 0, 0
	for end := time.Now().Add(length); time.Now().Before(end); {
		name := roles[dice.IntN(len(roles))]
		pause := time.Duration(dice.IntN(1000)) * time.Millisecond
		if dice.IntN(2) == 0 {
			killed++
			l.kill(name)
			time.Sleep(pause)
			l.again(name)
		} else {
			frozen++
			if length > time.Minute && dice.IntN(4) == 0 {
				pause += 16 * time.Second // longer than a peer is waited for
			}
			l.freeze(name, 500*time.Millisecond+pause)
		}
		l.until(name+" is ready again", func() error { return l.ready(name) })
		time.Sleep(time.Duration(dice.IntN(1000)) * time.Millisecond)
	}
	for _, name := range roles {
		l.until(name+" is ready", func() error { return l.ready(name) })
	}
	d.end(o)
	t.Logf("%d times killed, %d times frozen", killed, frozen)
	if d.good.Load() == 0 {
		t.Error("no request was answered")
	}
	l.recovered(o)
}

// freeze stops a process for a while, which it does not notice.
func (l *lab) freeze(name string, d time.Duration) {
	l.t.Helper()
	pid := l.pids()[name]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		l.t.Fatalf("freeze %s: %v", name, err)
	}
	time.Sleep(d)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		l.t.Fatalf("thaw %s: %v", name, err)
	}
}

// recovered shows that every channel is there and that nothing fails.
func (l *lab) recovered(o *origin) {
	l.t.Helper()
	for _, gw := range []string{"gateway-1", "gateway-2"} {
		l.until(gw+" has all its channels", func() error {
			var s struct {
				Points map[string]struct {
					Channels int `json:"channels"`
				} `json:"connection_points"`
			}
			if err := l.status(gw, &s); err != nil {
				return err
			}
			for _, cp := range []string{"connection-point-1", "connection-point-2"} {
				if s.Points[cp].Channels != 2 {
					return fmt.Errorf("%+v", s.Points)
				}
			}
			return nil
		})
	}
	d := startLoad(l, l.env["CMG_URL"]+"/shop/again", 2, nil)
	l.until("requests pass", func() error {
		if n := d.good.Load(); n < 500 {
			return fmt.Errorf("%d answers", n)
		}
		return nil
	})
	o.mu.Lock()
	clear(o.seen) // the ids begin anew
	o.mu.Unlock()
	d.end(o)
}
