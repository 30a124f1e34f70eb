package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// replace has a process start its successor, and waits until the successor
// serves alone and the process has ended.
func (l *lab) replace(name string) {
	l.t.Helper()
	old := l.pids()[name]
	if err := syscall.Kill(old, syscall.SIGUSR2); err != nil {
		l.t.Fatalf("%s: %v", name, err)
	}
	l.until(name+" has ended", func() error {
		if alive(old) {
			return fmt.Errorf("process %d is still there", old)
		}
		return nil
	})
	var s struct {
		Process int `json:"process"`
	}
	l.until(name+"'s successor is ready", func() error {
		if err := l.status(name, &s); err != nil {
			return err
		}
		if s.Process == old || s.Process == 0 {
			return fmt.Errorf("it is process %d", s.Process)
		}
		return l.ready(name)
	})
	if err := os.WriteFile(filepath.Join(l.dir, "run", name+".pid"), []byte(strconv.Itoa(s.Process)+"\n"), 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// TestUpgrade replaces every process of a site, one after the other, while
// clients of all kinds send GETs and POSTs: no request fails, none is carried
// out twice, and a client resumes its TLS session at whatever process it
// meets.
func TestUpgrade(t *testing.T) {
	o := startOrigin(t, 5*time.Millisecond)
	l := startLab(t, "--map", "/shop="+o.URL)
	d := startLoad(l, l.env["CMG_URL"]+"/shop/cart", 3, nil)
	for _, name := range []string{"gateway-1", "gateway-2", "connection-point-1", "connection-point-2", "management-point-1", "content-store-1", "gateway-1"} {
		before := d.good.Load()
		began := time.Now()
		l.replace(name)
		t.Logf("%s took %v, %d requests meanwhile", name, time.Since(began).Round(time.Millisecond), d.good.Load()-before)
		l.until("requests pass", func() error {
			if n := d.good.Load() - before; n < 200 {
				return fmt.Errorf("%d answers", n)
			}
			return nil
		})
	}
	d.end(o)
	if fresh := d.fresh.Load(); d.resumed.Load() < fresh*8/10 {
		t.Errorf("%d of %d fresh connections resumed", d.resumed.Load(), fresh)
	}
	// What only the management point knows is there as well.
	req, err := http.NewRequest("GET", l.env["CMG_URL"]+l.env["CMG_MP_SERVER"]+"/SMS_MP/.sms_aut?MPLIST", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+l.env["CMG_TOKEN"])
	resp, err := l.client(false).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}
