package agent

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/web"
)

// A reporter keeps what /status tells. The pass writes it, listeners read it.
type reporter struct {
	health *web.Health

	mu  sync.Mutex
	now snapshot
}

// A snapshot is what /status tells under "agent".
type snapshot struct {
	Registered      bool         `json:"registered"`
	Device          cmg.DeviceID `json:"device"`
	Approval        cmg.Approval `json:"approval"`
	Proof           cmg.Proof    `json:"proof"`
	Passes          int          `json:"passes"`
	LastPass        time.Time    `json:"last_pass,omitzero"`
	SessionExpires  time.Time    `json:"session_expires,omitzero"`
	PoliciesApplied int          `json:"policies_applied"`
	PoliciesFailed  int          `json:"policies_failed"`
	Packages        []installed  `json:"packages"`
	ReportsWaiting  int          `json:"reports_waiting"`
	LastErrors      []string     `json:"last_errors"` // of the last pass

	Notification notificationStatus `json:"notification"`
}

// A notificationStatus is how client notification stands.
type notificationStatus struct {
	Listening bool      `json:"listening"` // the last request was answered, and the next one waits
	Since     time.Time `json:"since,omitzero"`
	Tasks     int       `json:"tasks"` // told of since the start
	LastError string    `json:"last_error,omitempty"`
}

// listening takes over how a poll went.
func (r *reporter) listening(at time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := &r.now.Notification
	if n.Listening != (err == nil) {
		n.Listening, n.Since = err == nil, at
	}
	if n.LastError = ""; err != nil {
		n.LastError = short(err.Error(), 500)
	}
}

// told counts a task.
func (r *reporter) told() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Notification.Tasks++
}

func (r *reporter) start(c Config, st state) {
	r.health = web.NewHealth(string(cmg.RoleAgent))
	r.now.Proof = c.proof()
	r.now.LastErrors = []string{}
	r.show(st)
	r.health.Publish("agent", func() any {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.now
	})
}

func (r *reporter) handler() http.Handler { return r.health.Handler() }

// show takes over what st says; the slices it makes are never written again.
func (r *reporter) show(st state) {
	packages := []installed{}
	var applied, broken int
	for _, p := range st.Policies {
		packages = append(packages, p.Content...)
		if p.State == succeeded {
			applied++
		} else {
			broken++
		}
	}
	slices.SortFunc(packages, func(a, b installed) int {
		return strings.Compare(string(a.ID)+a.Folder, string(b.ID)+b.Folder)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Registered, r.now.Device, r.now.Approval = st.Device != "", st.Device, st.Approval
	r.now.SessionExpires = st.Session.Expires
	r.now.PoliciesApplied, r.now.PoliciesFailed, r.now.Packages = applied, broken, packages
	r.now.ReportsWaiting = len(st.Outbox)
}

// passed takes over how a pass went.
func (r *reporter) passed(at time.Time, err error) {
	r.health.Set("pass", err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Passes++
	r.now.LastPass, r.now.LastErrors = at, []string{}
	if err != nil {
		r.now.LastErrors = strings.Split(err.Error(), "\n")
	}
}
