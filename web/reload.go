package web

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// lookEvery is how often the files that a configuration names are looked at.
const lookEvery = 30 * time.Second

// Again says how a role takes its configuration anew while it runs.
type Again[C any] struct {
	Read  func() (C, error) // as on starting; nil: the configuration stays as it is, its files are read again
	Parts func(*C) error    // makes the parts that the configuration only names; nil: there are none
	Asked <-chan struct{}   // each word is a wish, such as SIGHUP; nil: none comes
	Every time.Duration     // how often the files are looked at; 0: 30 s
}

// A Reloader has a role take its configuration anew: when it is asked to, by
// Again.Asked or POST /reload of the status page, and when a file that the
// configuration names has changed. A configuration that is wrong changes
// nothing: the role goes on with the one it has, and the log, the status page
// and a metric say so.
type Reloader struct {
	log   *slog.Logger
	asked <-chan struct{}
	every time.Duration
	// take builds a snapshot of what was read beside the running one and
	// swaps the two. changed names the keys that differ, later those of them
	// that need a restart.
	take  func(configuration bool) (changed, later []string, err error)
	files func() []string

	one sync.Mutex // reload at a time

	mu             sync.Mutex
	taken, refused int64
	last           reloadRow
	seen           map[string]stamp
}

// reloadRow is what the status page shows.
type reloadRow struct {
	State   string     `json:"state"` // ok, or why the last attempt was refused
	At      *time.Time `json:"at,omitempty"`
	Why     string     `json:"why,omitempty"` // what it was tried for
	Changed []string   `json:"changed,omitempty"`
	Restart []string   `json:"needs_restart,omitempty"` // keys whose new value counts after a restart
	Taken   int64      `json:"taken"`
	Refused int64      `json:"refused"`
}

// stamp tells whether a file changed.
type stamp struct {
	size int64
	at   time.Time
	gone bool
}

// NewReloader makes a Reloader for a role whose configuration running gives.
// install makes a configuration the running one, but for what cannot change;
// files lists the files that the running one names.
func NewReloader[C any](h *Health, log *slog.Logger, again Again[C], running func() C, install func(C) (changed, later []string, err error), files func() []string) *Reloader {
	r := &Reloader{log: Log(log), asked: again.Asked, every: again.Every, files: files, last: reloadRow{State: "ok"}}
	if r.every == 0 {
		r.every = lookEvery
	}
	r.take = func(configuration bool) (changed, later []string, err error) {
		c := running()
		if configuration && again.Read != nil {
			if c, err = again.Read(); err != nil {
				return nil, nil, err
			}
		}
		if again.Parts != nil {
			if err := again.Parts(&c); err != nil {
				return nil, nil, err
			}
		}
		return install(c)
	}
	r.seen = r.look()
	h.Publish("configuration", func() any { return r.row() })
	h.Mount("POST /reload", http.HandlerFunc(r.serve))
	return r
}

func (r *Reloader) row() reloadRow {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.last
	row.Taken, row.Refused = r.taken, r.refused
	return row
}

// Taken is how often a configuration was taken anew, Refused how often it was
// refused, and Bad says that the last attempt was.
func (r *Reloader) Taken() int64   { return r.row().Taken }
func (r *Reloader) Refused() int64 { return r.row().Refused }
func (r *Reloader) Bad() bool      { return r.row().State != "ok" }

// Badness is 1 while the last attempt was refused, for a metric.
func (r *Reloader) Badness() float64 {
	if r.Bad() {
		return 1
	}
	return 0
}

// Reload tries to take the configuration, and the files it names, anew. why
// is for the log.
func (r *Reloader) Reload(why string) error { return r.reload(why, true) }

func (r *Reloader) reload(why string, configuration bool) error {
	r.one.Lock()
	defer r.one.Unlock()
	seen := r.look()
	changed, later, err := r.take(configuration)
	now := time.Now().UTC().Truncate(time.Second)
	r.mu.Lock()
	row := reloadRow{State: "ok", At: &now, Why: why, Changed: changed, Restart: later}
	r.seen = seen
	if err != nil {
		row.State, row.Restart = err.Error(), r.last.Restart
		r.refused++
	} else {
		r.taken++
		if !configuration {
			row.Restart = r.last.Restart
		}
	}
	r.last = row
	r.mu.Unlock()
	switch {
	case err != nil:
		r.log.Error("the configuration was not taken: going on with the one before", "why", why, "err", strings.ReplaceAll(err.Error(), "\n", "; "))
		return err
	case len(later) > 0:
		r.log.Warn("configuration taken, but for what needs a restart", "why", why, "changed", changed, "needs_restart", later)
	default:
		r.log.Info("configuration taken", "why", why, "changed", changed)
	}
	return nil
}

// Run reloads on demand and when a file changes, until ctx ends. Now and then
// it tries a refused one again: whoever replaces a certificate and its key
// does so one after the other.
func (r *Reloader) Run(ctx context.Context) {
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.asked:
			r.Reload("asked by a signal")
		case <-tick.C:
			if name := r.changed(); name != "" {
				r.reload("the file "+name+" changed", false)
			}
		}
	}
}

// look notes how the files are.
func (r *Reloader) look() map[string]stamp {
	m := map[string]stamp{}
	for _, f := range r.files() {
		if f == "" {
			continue
		}
		info, err := os.Stat(f)
		if err != nil {
			m[f] = stamp{gone: true}
			continue
		}
		m[f] = stamp{size: info.Size(), at: info.ModTime()}
	}
	return m
}

// changed names a file that is not as it was at the last attempt.
func (r *Reloader) changed() string {
	now := r.look()
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []string
	for f, s := range now {
		if was, ok := r.seen[f]; ok && was != s {
			names = append(names, f)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// ReloadHeader has to stand, with any value, in a request POST /reload: a web
// page that a browser on this machine shows cannot set it.
const ReloadHeader = "CMG-Reload"

// serve answers POST /reload.
func (r *Reloader) serve(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get(ReloadHeader) == "" {
		http.Error(w, "the header "+ReloadHeader+" is missing", http.StatusForbidden)
		return
	}
	status := http.StatusOK
	if r.Reload("asked on the status page") != nil {
		status = http.StatusConflict
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(r.row()); err != nil {
		r.log.Debug("answer", "err", fmt.Errorf("reload: %w", err))
	}
}
