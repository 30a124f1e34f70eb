package web

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"sync"
	"testing"
)

func TestHealth(t *testing.T) {
	h := NewHealth("gateway")
	srv := httptest.NewServer(h.Handler())
	defer srv.Close()
	ask := func(path string, status int) (v map[string]any) {
		t.Helper()
		resp, body := get(t, srv.Client(), "GET", srv.URL+path)
		if resp.StatusCode != status {
			t.Errorf("%s: status %d, want %d", path, resp.StatusCode, status)
		}
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Errorf("%s: %v in %q", path, err, body)
		}
		return v
	}
	ask("/livez", 200)
	ask("/readyz", 200)
	h.Set("channel", errors.New("no connection point"))
	h.Set("disk", nil)
	ask("/livez", 200)
	if v := ask("/readyz", 503); v["ready"] != false || v["reasons"].(map[string]any)["channel"] != "no connection point" || len(v["reasons"].(map[string]any)) != 1 {
		t.Errorf("readyz: %v", v)
	}
	n := 0
	h.Publish("requests", func() any { n++; h.Set("seen", nil); return n })
	h.Publish("bad", func() any { return make(chan int) })
	h.Publish("role", func() any { return "impostor" })
	v := ask("/status", 200)
	checks := v["checks"].(map[string]any)
	if v["role"] != "gateway" || v["ready"] != false || v["requests"] != 1.0 || checks["channel"] != "no connection point" || checks["disk"] != "ok" {
		t.Errorf("status: %v", v)
	}
	if _, ok := v["bad"].(string); !ok || v["build"].(map[string]any)["go"] == "" || v["uptime_seconds"] == nil {
		t.Errorf("status: %v", v)
	}
	h.Set("channel", nil)
	ask("/readyz", 200)
	if resp, _ := get(t, srv.Client(), "POST", srv.URL+"/status"); resp.StatusCode != 405 {
		t.Errorf("POST: status %d", resp.StatusCode)
	}
}

func TestHealthByManyAtOnce(t *testing.T) {
	h := NewHealth("agent")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				h.Set("x", errors.New("y"))
				h.Publish("p", func() any { return 1 })
				h.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/status", nil))
			}
		})
	}
	wg.Wait()
}
