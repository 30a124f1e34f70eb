package e2e

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// honest asks as clients do while f runs, and gives the 99th percentile of
// their times.
func honest(t *testing.T, clients []*http.Client, url string, f func()) time.Duration {
	t.Helper()
	over := make(chan struct{})
	var mu sync.Mutex
	var times []time.Duration
	var asking sync.WaitGroup
	for _, c := range clients {
		asking.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-over:
					return
				case <-tick.C:
				}
				began := time.Now()
				resp, err := c.Get(url)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 {
					t.Error(resp.Status, err)
					return
				}
				mu.Lock()
				times = append(times, time.Since(began))
				mu.Unlock()
			}
		})
	}
	f()
	close(over)
	asking.Wait()
	if len(times) < 200 {
		t.Fatalf("only %d requests of honest clients", len(times))
	}
	slices.Sort(times)
	return times[len(times)*99/100]
}

// noise is what two cores that do other things as well make of any time.
const noise = 10 * time.Millisecond

// TestSlowAttacks runs slowhttptest's four modes against the clients'
// listener, by a caller that is proven: its slowness gets as far as it can.
// Meanwhile the 99th percentile of honest clients is to stay within twice of
// what it is without.
func TestSlowAttacks(t *testing.T) {
	tool := program(t, "slowhttptest", "slowhttptest")
	data := make([]byte, 512<<10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			io.WriteString(w, "small")
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		http.ServeContent(w, r, "data.bin", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	l := startLab(t, "--map", "/slow="+s.URL)
	url := l.env["CMG_URL"] + "/slow/"
	clients := make([]*http.Client, 8)
	for i := range clients {
		clients[i] = l.client(true)
	}
	proof := "a=b\r\nAuthorization: Bearer " + l.env["CMG_TOKEN"] // slowhttptest sends what it is given as it is
	at := strings.Replace(url, strings.Split(strings.TrimPrefix(url, "https://"), ":")[0], "127.0.0.1", 1)
	common := []string{"-c", "200", "-r", "40", "-l", "8", "-p", "5", "-u", at + "large", "-j", proof}
	for _, m := range []struct {
		name string
		args []string
	}{
		{"slow headers", []string{"-H", "-i", "2", "-x", "24"}},
		{"slow bodies", []string{"-B", "-i", "2", "-s", "65536", "-x", "10"}},
		{"many ranges", []string{"-R", "-a", "10", "-b", "3000", "-t", "HEAD"}},
		{"slow readers", []string{"-X", "-w", "16", "-y", "32", "-n", "1", "-z", "16", "-k", "3"}},
	} {
		t.Run(m.name, func(t *testing.T) {
			// The best of several tries, against what the machine itself made
			// of the times meanwhile.
			var before, during time.Duration
			for try := 1; ; try++ {
				before = max(before, noise, honest(t, clients, url+"small", func() { time.Sleep(3 * time.Second) }))
				var out []byte
				var err error
				p99 := honest(t, clients, url+"small", func() { out, err = exec.Command(tool, append(m.args, common...)...).CombinedOutput() })
				if err != nil {
					t.Fatalf("%v\n%s", err, out[max(0, len(out)-2000):])
				}
				if i := bytes.LastIndex(out, []byte("service available:")); i < 0 || !bytes.Contains(out[i:min(len(out), i+60)], []byte("YES")) {
					t.Errorf("slowhttptest says:\n%s", out[max(0, len(out)-2000):])
				}
				if during == 0 || p99 < during {
					during = p99
				}
				t.Logf("p99 of honest clients: %v before, %v during", before, during)
				if during <= 2*before {
					return
				}
				if try == 5 {
					t.Fatalf("more than twice as long in each try: %v before, %v during", before, during)
				}
			}
		})
	}
}
