package web

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type files struct {
	Key string `json:"key"`
}

type settings struct {
	Listen   string        `json:"listen"`
	Drain    time.Duration `json:"drain"`
	Identity files         `json:"identity"`
	Gateways []files       `json:"gateways"`
	Log      *slog.Logger  `json:"-"`
}

func TestDifferences(t *testing.T) {
	old := settings{Listen: ":1", Drain: 1, Identity: files{"a"}, Gateways: []files{{"x"}}, Log: slog.Default()}
	for name, tt := range map[string]struct {
		change         func(*settings)
		changed, later []string
		listen         string
	}{
		"nothing": {func(*settings) {}, nil, nil, ":1"},
		"parts":   {func(c *settings) { c.Log = nil }, nil, nil, ":1"},
		"some":    {func(c *settings) { c.Drain, c.Identity.Key = 2, "b" }, []string{"drain", "identity.key"}, nil, ":1"},
		"a list":  {func(c *settings) { c.Gateways = []files{{"x"}, {"y"}} }, []string{"gateways"}, nil, ":1"},
		"fixed":   {func(c *settings) { c.Listen, c.Drain = ":2", 3 }, []string{"listen", "drain"}, []string{"listen"}, ":1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := old
			c.Gateways = append([]files(nil), old.Gateways...)
			tt.change(&c)
			changed, later := Differences(old, &c, "listen")
			if d := cmp.Diff([][]string{tt.changed, tt.later}, [][]string{changed, later}); d != "" {
				t.Error(d)
			}
			if c.Listen != tt.listen {
				t.Errorf("listen is %s", c.Listen)
			}
		})
	}
}

// A reloading is a role with a configuration of one word.
type reloading struct {
	*Reloader
	mu      sync.Mutex
	file    string
	in      string // what Read gives; empty: an error
	running string
	took    int
	log     bytes.Buffer
	page    http.Handler
}

func newReloading(t *testing.T, every time.Duration, asked <-chan struct{}) *reloading {
	r := &reloading{file: filepath.Join(t.TempDir(), "x.crt"), in: "first", running: "first"}
	if err := os.WriteFile(r.file, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := NewHealth("role")
	r.Reloader = NewReloader(h, slog.New(slog.NewTextHandler(&locked{w: &r.log, mu: &r.mu}, nil)),
		Again[string]{Asked: asked, Every: every, Read: func() (string, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.in == "" {
				return "", errors.New("line 3: it is broken\nline 4: that too")
			}
			return r.in, nil
		}},
		func() string { return r.now() },
		func(c string) ([]string, []string, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.running = c
			r.took++
			return []string{"word"}, []string{"listen"}, nil
		},
		func() []string { return []string{r.file, ""} })
	r.page = h.Handler()
	return r
}

type locked struct {
	w  *bytes.Buffer
	mu *sync.Mutex
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func (r *reloading) set(in string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.in = in
}

func (r *reloading) now() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running
}

func (r *reloading) post(header bool) *httptest.ResponseRecorder {
	req := httptest.NewRequest("POST", "/reload", nil)
	if header {
		req.Header.Set(ReloadHeader, "1")
	}
	w := httptest.NewRecorder()
	r.page.ServeHTTP(w, req)
	return w
}

func TestReload(t *testing.T) {
	r := newReloading(t, time.Hour, nil)
	if w := r.post(false); w.Code != 403 || r.now() != "first" {
		t.Errorf("without the header: %d", w.Code)
	}
	r.set("second")
	if w := r.post(true); w.Code != 200 || r.now() != "second" || !strings.Contains(w.Body.String(), `"needs_restart":["listen"]`) {
		t.Errorf("a good one: %d %s", w.Code, w.Body)
	}
	r.set("")
	w := r.post(true)
	if w.Code != 409 || r.now() != "second" || !strings.Contains(w.Body.String(), "line 3: it is broken") {
		t.Errorf("a bad one: %d %s", w.Code, w.Body)
	}
	if !r.Bad() || r.Badness() != 1 || r.Taken() != 1 || r.Refused() != 1 {
		t.Errorf("taken %d, refused %d, bad %v", r.Taken(), r.Refused(), r.Bad())
	}
	if n := strings.Count(r.log.String(), "level=ERROR"); n != 1 || !strings.Contains(r.log.String(), "line 3: it is broken; line 4: that too") {
		t.Errorf("the log says it %d times: %s", n, &r.log)
	}
	r.set("third")
	if err := r.Reload("again"); err != nil || r.Bad() || r.now() != "third" {
		t.Errorf("mended: %v", err)
	}
}

// TestReloadAsked has the wish come by a channel, and the change of a file be
// seen.
func TestReloadAsked(t *testing.T) {
	asked := make(chan struct{})
	r := newReloading(t, time.Millisecond, asked)
	var running sync.WaitGroup
	running.Go(func() { r.Run(t.Context()) }) // which ends before what Cleanup does
	t.Cleanup(running.Wait)
	r.set("second")
	asked <- struct{}{}
	until(t, func() bool { return r.now() == "second" })
	before := r.Taken()
	r.set("unwanted") // the configuration's file is not looked at by itself
	if err := os.WriteFile(r.file, []byte("longer"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return r.Taken() > before })
	if r.now() != "second" {
		t.Errorf("a changed certificate brought %s along", r.now())
	}
	before = r.Taken()
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return r.Taken() > before })
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}
