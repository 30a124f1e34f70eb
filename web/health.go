package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/opencmg/cmg"
)

// A Health tells how a role fares. It belongs on a listener that only
// administrators reach: its reasons are errors in full. It may be used by
// many goroutines at once.
type Health struct {
	role    string
	started time.Time

	mu        sync.Mutex
	checks    map[string]error
	published map[string]func() any
	mounted   map[string]http.Handler
	changed   chan struct{} // closed and replaced when a check changes
}

// NewHealth makes the health of a role, without a check: ready.
func NewHealth(role string) *Health {
	return &Health{role: role, started: time.Now(), checks: map[string]error{}, published: map[string]func() any{}, mounted: map[string]http.Handler{}, changed: make(chan struct{})}
}

// Set says how a check stands: nil is good. A role that has something to
// wait for sets its check to an error before it serves.
func (h *Health) Set(check string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks[check] = err
	close(h.changed)
	h.changed = make(chan struct{})
}

// Await waits until the check is good, or all are where none is named.
func (h *Health) Await(ctx context.Context, check string) error {
	for {
		h.mu.Lock()
		changed, err := h.changed, h.checks[check]
		if check == "" {
			for _, e := range h.checks {
				err = errors.Join(err, e)
			}
		}
		h.mu.Unlock()
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
}

// Publish puts f's result under name into /status; it has to go into JSON. f
// is called for each request and may be called by several at once. The names
// that Health writes itself (role, process, build, started, uptime_seconds, ready,
// checks) stay its own.
func (h *Health) Publish(name string, f func() any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.published[name] = f
}

// Mount serves GET and HEAD of path with next, beside what Handler serves
// itself; a path behind a method, such as "POST /reload", is served for that
// method. It counts for handlers made afterwards.
func (h *Health) Mount(path string, next http.Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mounted[path] = next
}

// Handler serves GET and HEAD of
//
//	/livez   200 while the process answers
//	/readyz  200 {"ready":true}, or 503 {"ready":false,"reasons":{check: why}}
//	         while any check fails
//	/status  200 with everything published, the checks ("ok" or why not),
//	         the build and the uptime in seconds
//
// and of what was mounted.
func (h *Health) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]bool{"alive": true})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		reasons := h.failing()
		if len(reasons) == 0 {
			writeJSON(w, http.StatusOK, map[string]bool{"ready": true})
			return
		}
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "reasons": reasons})
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, h.status())
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	for path, next := range h.mounted {
		if !strings.Contains(path, " ") {
			path = "GET " + path
		}
		mux.Handle(path, next)
	}
	return mux
}

// failing gives the checks that fail, with their reasons.
func (h *Health) failing() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	reasons := map[string]string{}
	for name, err := range h.checks {
		if err != nil {
			reasons[name] = err.Error()
		}
	}
	return reasons
}

func (h *Health) status() map[string]any {
	h.mu.Lock()
	checks := make(map[string]string, len(h.checks))
	ready := true
	for name, err := range h.checks {
		checks[name] = "ok"
		if err != nil {
			checks[name], ready = err.Error(), false
		}
	}
	published := make(map[string]func() any, len(h.published))
	for name, f := range h.published {
		published[name] = f
	}
	h.mu.Unlock() // f may call Set

	status := make(map[string]any, len(published)+6)
	for name, f := range published {
		b, err := json.Marshal(f())
		if err != nil { // one bad part is not to hide the others
			b, _ = json.Marshal(fmt.Sprintf("cannot be written: %v", err))
		}
		status[name] = json.RawMessage(b)
	}
	status["role"] = h.role
	status["process"] = os.Getpid()
	status["build"] = cmg.BuildInfo()
	status["started"] = h.started.UTC().Truncate(time.Second)
	status["uptime_seconds"] = int64(time.Since(h.started).Seconds())
	status["ready"] = ready
	status["checks"] = checks
	return status
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		Answer(w, fmt.Errorf("write JSON: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
}
