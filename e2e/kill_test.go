package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestKillConnectionPoint kills one of two connection points in the middle
// of a thousand requests. Safe ones all succeed; of the others each has one
// answer and was carried out at most once; nothing hangs; and the connection
// point comes back.
func TestKillConnectionPoint(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.Method == "POST" {
			mu.Lock()
			seen[r.Header.Get("X-Test-Id")]++
			mu.Unlock()
		}
		time.Sleep(20 * time.Millisecond) // so that many are under way
		fmt.Fprintf(w, "did %s", r.Header.Get("X-Test-Id"))
	}))
	defer origin.Close()
	l := startLab(t, "--map", "/shop="+origin.URL)
	client := l.client(true)

	const requests, workers = 1000, 32
	var next, good, refused atomic.Int64
	var killed sync.Once
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > requests {
					return
				}
				if n == requests/2 {
					killed.Do(func() { l.kill("connection-point-1") })
				}
				method := "GET"
				if n%2 == 0 {
					method = "POST"
				}
				id := fmt.Sprint(method, "-", n)
				status, body, err := send(client, method, l.env["CMG_URL"]+"/shop/cart", id)
				switch {
				case err != nil:
					t.Errorf("%s: %v", id, err)
				case status == "200 OK" && body == "did "+id:
					good.Add(1)
				case method == "POST" && strings.HasPrefix(status, "502 CMGService_Channel_Lost"):
					refused.Add(1)
				default:
					t.Errorf("%s: %s: %s", id, status, body)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d answered, %d refused with a reason", good.Load(), refused.Load())
	mu.Lock()
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was carried out %d times", id, n)
		}
	}
	mu.Unlock()

	began := time.Now()
	l.again("connection-point-1")
	l.until("the channels are back", func() error {
		var s struct {
			Points map[string]struct {
				Channels int `json:"channels"`
			} `json:"connection_points"`
		}
		for _, gw := range []string{"gateway-1", "gateway-2"} {
			if err := l.status(gw, &s); err != nil {
				return err
			}
			if s.Points["connection-point-1"].Channels < 2 {
				return fmt.Errorf("%s has %+v", gw, s.Points)
			}
		}
		return nil
	})
	t.Logf("back after %v", time.Since(began).Round(time.Millisecond))
	if status, body, err := send(client, "POST", l.env["CMG_URL"]+"/shop/cart", "last"); err != nil || status != "200 OK" {
		t.Errorf("afterwards: %s %s %v", status, body, err)
	}
}

func send(c *http.Client, method, url, id string) (status, body string, err error) {
	var payload io.Reader
	if method == "POST" {
		payload = strings.NewReader(strings.Repeat("x", 1000))
	}
	req, err := http.NewRequest(method, url, payload)
	if err != nil {
		return "", "", err
	}
	req.Header.Set("X-Test-Id", id)
	resp, err := c.Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.Status, string(b), err
}
