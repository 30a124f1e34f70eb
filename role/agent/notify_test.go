package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
)

// A noticeBoard is the lab's client notification: it tells what was pushed
// until it is acknowledged.
type noticeBoard struct {
	mu      sync.Mutex
	changed chan struct{} // closed at every change
	tasks   []ccm.Task
	answers []ccm.TaskAnswer
	kinds   []string // of requests, in order
	waiting int
	deaf    bool // forgets what is acknowledged, as where an answer was lost
}

// change does something and wakes whoever waits.
func (b *noticeBoard) change(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f(); b.changed != nil {
		close(b.changed)
	}
	b.changed = make(chan struct{})
}

func (b *noticeBoard) push(t ccm.Task) { b.change(func() { b.tasks = append(b.tasks, t) }) }

// until waits until what it is told holds.
func (b *noticeBoard) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	over := time.After(20 * time.Second) // only ends a test that hangs
	for {
		b.change(func() {})
		b.mu.Lock()
		ok, changed := holds(), b.changed
		b.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond): // not all that holds is on the board
		case <-over:
			t.Fatalf("never: %s", what)
		}
	}
}

func (l *lab) notification(w http.ResponseWriter, r *http.Request, c auth.Claims) error {
	if c.Kind != "" && c.Kind != auth.TokenSession {
		return errNotForThisToken
	}
	if err := l.asked("notification"); err != nil {
		return err
	}
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	q, err := ccm.ReadNotifyRequest(string(text))
	if err != nil || q.Type != r.URL.Query().Get("RequestType") {
		return cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "not a notification request", err)
	}
	if c.Kind == "" {
		l.mu.Lock()
		d := l.devices[q.Device]
		l.mu.Unlock()
		key, err := ccm.SigningKey(d.Signing)
		if err != nil {
			return err
		}
		id, err := ccm.ReadClientToken(r.Header.Get(ccm.HeaderClientToken), r.Header.Get(ccm.HeaderClientTokenSignature), key, l.now(), time.Hour)
		if err != nil || id != q.Device {
			return cmg.Refuse(http.StatusUnauthorized, "CMGMP_Proof_Invalid", "wrong key or time", err)
		}
	} else if c.Device != q.Device {
		return errNotForThisToken
	}
	b := &l.notified
	b.change(func() {
		b.kinds = append(b.kinds, q.Type)
		b.answers = append(b.answers, q.Answers...)
		for _, a := range q.Answers {
			if !b.deaf {
				b.tasks = slices.DeleteFunc(b.tasks, func(t ccm.Task) bool { return t.PushID == a.PushID })
			}
		}
		b.waiting++
	})
	defer b.change(func() { b.waiting-- })
	for {
		b.mu.Lock()
		tasks, changed := slices.Clone(b.tasks), b.changed
		b.mu.Unlock()
		if len(tasks) > 0 || q.Type != ccm.NotifyContinue {
			_, err := io.WriteString(w, ccm.NotifyReply{Time: l.now(), Wait: 15 * time.Minute, Tasks: tasks}.XML())
			return err
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}
}

// stay runs an agent until the test, or end, ends it.
func (l *lab) stay(c Config) (a *Agent, end func()) {
	l.t.Helper()
	c.Once, c.PolicyInterval = false, 24*time.Hour
	a, err := New(c)
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
	l.t.Cleanup(end)
	return a, end
}

func (l *lab) waits() bool {
	return l.notified.waiting > 0 && l.notified.kinds[len(l.notified.kinds)-1] == ccm.NotifyContinue
}

// TestNotifiedPolicy: a push brings a new policy into force at once, though
// the next look is a day away; one that is told again does nothing.
func TestNotifiedPolicy(t *testing.T) {
	for _, proof := range []string{"tokens", "certificate"} {
		t.Run(proof, func(t *testing.T) {
			l := newLab(t)
			c := l.config(l.file("state"))
			if proof == "certificate" {
				c.RegistrationTokenFile = ""
				c.ClientCertificate, c.ClientKey = l.file("client.pem"), l.file("client.key")
				issued, err := l.authority.Issue(auth.CertRequest{Name: "PC1", Client: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := issued.Save(c.ClientCertificate, c.ClientKey); err != nil {
					t.Fatal(err)
				}
			}
			_, end := l.stay(c)
			b := &l.notified
			b.until(t, "it waits", l.waits)
			l.addPackage("LAB00001", "tools", tools)
			b.mu.Lock()
			b.deaf = true // tells it again and again
			b.mu.Unlock()
			b.push(ccm.Task{PushID: 1, GUID: "{1}", Type: ccm.TaskPolicy})
			b.until(t, "it obeyed and was told again", func() bool { return len(b.answers) > 1 && l.count("manifest") > 0 })
			b.change(func() { b.deaf = false })
			b.until(t, "it waits again", func() bool { return len(b.tasks) == 0 && l.waits() })
			end()
			checkFiles(t, filepath.Join(c.StateDir, "content", "tools"), tools)
			if n := l.count("manifest"); n != 1 {
				t.Errorf("the package was fetched %d times", n)
			}
			if k := b.kinds; k[0] != ccm.NotifyLogIn || k[len(k)-1] != ccm.NotifyLogOut {
				t.Errorf("requests %v", k)
			}
			for _, a := range b.answers {
				if a != (ccm.TaskAnswer{PushID: 1, Code: ccm.TaskOK}) {
					t.Errorf("answered %+v", a)
				}
			}
		})
	}
}

// TestNotifiedTasks: other tasks are done once, also where the agent is
// started again in between, and their outcome is told.
func TestNotifiedTasks(t *testing.T) {
	l := newLab(t)
	c := l.config(l.file("state"))
	var mu sync.Mutex
	var ran []string
	c.Tasks = map[int]func(context.Context, []byte) error{
		ccm.TaskScript: func(_ context.Context, param []byte) error {
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, string(param))
			if string(param) == "bad" {
				return errors.New("no")
			}
			return nil
		}}
	b := &l.notified
	b.deaf = true
	b.push(ccm.Task{PushID: 1, GUID: "{1}", Type: ccm.TaskScript, Param: []byte("good")})
	b.push(ccm.Task{PushID: 2, GUID: "{2}", Type: ccm.TaskScript, Param: []byte("bad")})
	b.push(ccm.Task{PushID: 3, GUID: "{3}", Type: ccm.TaskQuery})
	_, end := l.stay(c)
	b.until(t, "it answered", func() bool { return len(b.answers) >= 3 })
	end()
	b.change(func() { b.answers = nil })
	l.stay(c)
	b.until(t, "it answered again", func() bool { return len(b.answers) >= 3 })
	b.mu.Lock()
	defer b.mu.Unlock()
	want := []ccm.TaskAnswer{{PushID: 1, Code: ccm.TaskOK}, {PushID: 2, Code: ccm.TaskFailed}, {PushID: 3, Code: ccm.TaskUnknown}}
	if got := b.answers[:3]; !slices.Equal(got, want) {
		t.Errorf("answered %v", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(ran) != "[good bad]" {
		t.Errorf("ran %v", ran)
	}
}

// TestNotifiedAgain: whatever goes wrong on the way, the agent comes again;
// a session that is refused is opened anew.
func TestNotifiedAgain(t *testing.T) {
	l := newLab(t)
	c := l.config(l.file("state"))
	a, _ := l.stay(c)
	b := &l.notified
	b.until(t, "it waits", l.waits)
	l.forget()
	var mu sync.Mutex
	bad := 0
	l.setRefuse(func(what string) error {
		mu.Lock()
		defer mu.Unlock()
		if what != "notification" {
			return nil
		}
		if bad++; bad <= 2 {
			return []error{
				cmg.Refuse(http.StatusBadGateway, "CMGConnector_Unreachable", "away", nil),
				cmg.Refuse(http.StatusUnauthorized, "CMGService_Invalid_Token", "over", nil),
			}[bad-1]
		}
		return nil
	})
	b.push(ccm.Task{PushID: 1, GUID: "{1}", Type: ccm.TaskPolicy}) // ends the poll; what answers it is refused
	b.until(t, "it waits again with a new session", func() bool { return len(b.tasks) == 0 && l.waits() && l.count("session") > 0 })
	a.report.mu.Lock()
	defer a.report.mu.Unlock()
	if s := a.report.now.Notification; s.Tasks != 1 {
		t.Errorf("status %+v", s)
	}
}

// TestNotificationOff: an agent that is told not to poll does not.
func TestNotificationOff(t *testing.T) {
	l := newLab(t)
	c := l.config(l.file("state"))
	if err := c.Notification.UnmarshalText([]byte("false")); err != nil || c.Notification.String() != "false" {
		t.Fatal(err, c.Notification)
	}
	a, end := l.stay(c)
	l.notified.until(t, "a pass is done", func() bool {
		a.report.mu.Lock()
		defer a.report.mu.Unlock()
		return a.report.now.Passes > 0
	})
	end()
	if n := l.count("notification"); n != 0 {
		t.Errorf("%d requests", n)
	}
	var s SwitchedOff
	if err := s.UnmarshalText([]byte("off")); !errors.Is(err, cmg.ErrInvalid) {
		t.Error(err)
	}
}
