package agent

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

const (
	usualPollWait   = 15 * time.Minute // until the management point has said another
	pollMargin      = time.Minute      // for the answer after that
	soonestPoll     = time.Second      // longest before the first try again, doubled for each further one
	latestPoll      = 2 * time.Minute
	latestUnwelcome = 15 * time.Minute // where the refusal will stand for a while
	farewell        = 2 * time.Second
)

// A notifier keeps a request waiting at the management point, by whose answer
// the agent is told what to do now (PROTOCOL 2.4). It runs beside the passes
// and shares nothing with them but what is below mu and two channels.
type notifier struct {
	cfg    Config
	ask    func(context.Context, call) error
	report *reporter
	tasks  *taskMemory

	wake    chan struct{} // get policy now
	refused chan string   // a session token that was refused

	mu    sync.Mutex
	known credentials
	news  chan struct{} // known has changed
}

// credentials are what a poll shows.
type credentials struct {
	device cmg.DeviceID
	token  string          // of the session; empty with a client certificate
	key    *rsa.PrivateKey // the device's
}

func newNotifier(c Config, l *link, s *stateStore, r *reporter) (*notifier, error) {
	tasks, err := openTaskMemory(s)
	if err != nil {
		return nil, err
	}
	ask := func(ctx context.Context, c call) error { return l.onceBy(ctx, l.poll, c) }
	return &notifier{cfg: c, ask: ask, report: r, tasks: tasks,
		wake: make(chan struct{}, 1), refused: make(chan string, 1), news: make(chan struct{}, 1)}, nil
}

// know takes over what the passes have learned.
func (n *notifier) know(c credentials) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == c {
		return
	}
	n.known = c
	select {
	case n.news <- struct{}{}:
	default:
	}
}

// await gives what to show, once there is something.
func (n *notifier) await(ctx context.Context) (credentials, error) {
	for {
		n.mu.Lock()
		c := n.known
		n.mu.Unlock()
		if c.device != "" && c.key != nil && (c.token != "" || n.cfg.mutual()) {
			return c, nil
		}
		select {
		case <-n.news:
		case <-ctx.Done():
			return c, ctx.Err()
		}
	}
}

// run polls until ctx ends.
func (n *notifier) run(ctx context.Context) {
	kind, failed, longest := ccm.NotifyLogIn, 0, usualPollWait
	var answers []ccm.TaskAnswer
	for {
		c, err := n.await(ctx)
		if err != nil {
			return
		}
		began := time.Now()
		reply, err := n.poll(ctx, c, kind, longest, answers)
		took := time.Since(began)
		if ctx.Err() != nil {
			n.leave(ctx, c, answers)
			return
		}
		if err != nil {
			if took > longest/2 {
				failed = 0 // it held: this is a new trouble
			}
			failed++
			kind = ccm.NotifyLogIn
			if !n.rest(ctx, c, failed, err) {
				return
			}
			continue
		}
		n.report.listening(n.cfg.Now(), nil)
		if reply.Wait > 0 {
			longest = min(reply.Wait, time.Hour)
		}
		var fresh int
		answers, fresh = n.take(ctx, reply.Tasks)
		switch {
		case fresh > 0:
			failed = 0
		case kind == ccm.NotifyLogIn: // what comes of it shows the next answer
		case took > longest/2:
			failed = 0
		default: // told to come again, or another agent calls itself as this one
			failed++
			if !sleep(ctx, backoff(failed, soonestPoll, latestPoll)) {
				n.leave(ctx, c, answers)
				return
			}
		}
		kind = ccm.NotifyContinue
	}
}

// rest waits after a failure, and says whether to go on.
func (n *notifier) rest(ctx context.Context, c credentials, failed int, err error) bool {
	n.report.listening(n.cfg.Now(), err)
	most := latestPoll
	switch {
	case refusedWith(err) == http.StatusUnauthorized && c.token != "":
		select {
		case n.refused <- c.token: // the passes get another
		default:
		}
	case !passing(err):
		most = latestUnwelcome
	}
	wait := backoff(failed, soonestPoll, most)
	var later *retryLater
	if errors.As(err, &later) {
		wait += later.after
	}
	n.cfg.Log.Info("not notified", "err", err, "again_in", wait.Round(time.Millisecond))
	return sleep(ctx, wait)
}

// leave says good-bye, so that nobody takes the device for online.
func (n *notifier) leave(ctx context.Context, c credentials, answers []ccm.TaskAnswer) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	if _, err := n.poll(last, c, ccm.NotifyLogOut, 0, answers); err != nil {
		n.cfg.Log.Debug("log-out not sent", "err", err)
	}
}

// poll makes one request. wait is how long its answer may take.
func (n *notifier) poll(ctx context.Context, c credentials, kind string, wait time.Duration, answers []ccm.TaskAnswer) (reply ccm.NotifyReply, err error) {
	now := n.cfg.Now()
	q := ccm.NotifyRequest{Type: kind, Device: c.device, Time: now, Answers: answers}
	err = n.ask(ctx, call{
		method: http.MethodPost, url: n.cfg.URL + n.cfg.prefix() + "/bgb/handler.ashx?RequestType=" + kind,
		body: []byte(q.XML()), within: wait + pollMargin,
		header: func(h http.Header) error {
			h.Set("Content-Type", "text/xml; charset=utf-8")
			h.Set("User-Agent", ccm.UserAgent)
			if c.token != "" {
				h.Set("Authorization", "Bearer "+c.token)
				return nil
			}
			value := ccm.ClientToken(c.device, now) // a client certificate may not name the device
			sig, err := ccm.SignText(c.key, value)
			h.Set(ccm.HeaderClientToken, value)
			h.Set(ccm.HeaderClientTokenSignature, sig)
			return err
		},
		read: func(r *http.Response) error {
			b, err := readBounded(r.Body, ccm.MaxNotifyReply)
			if err == nil {
				reply, err = ccm.ReadNotifyReply(string(b))
			}
			return err
		},
	})
	if err != nil {
		return reply, fmt.Errorf("ask for notification: %w", err)
	}
	return reply, nil
}

// take does what is new of tasks, and gives what to answer and how many were
// new. A task that was seen before is acknowledged again: the answer was lost.
func (n *notifier) take(ctx context.Context, tasks []ccm.Task) (answers []ccm.TaskAnswer, fresh int) {
	for _, t := range tasks {
		a := ccm.TaskAnswer{PushID: t.PushID, Code: ccm.TaskOK}
		if code, seen := n.tasks.codeOf(t.GUID); seen {
			a.Code = code
		} else {
			fresh++
			a.Code = n.do(ctx, t)
			if err := n.tasks.remember(t.GUID, a.Code, t.Type != ccm.TaskPolicy); err != nil {
				n.cfg.Log.Warn("task not remembered", "err", err)
			}
		}
		answers = append(answers, a)
	}
	return answers, fresh
}

// do carries a task out, or has it carried out, and gives the code of the
// answer.
func (n *notifier) do(ctx context.Context, t ccm.Task) int {
	n.report.told()
	n.cfg.Log.Info("notified", "task", t.Type, "push", t.PushID)
	if t.Type == ccm.TaskPolicy {
		select {
		case n.wake <- struct{}{}:
		default: // a pass is asked for already
		}
		return ccm.TaskOK
	}
	act := n.cfg.Tasks[t.Type]
	if act == nil {
		return ccm.TaskUnknown
	}
	if err := act(ctx, t.Param); err != nil {
		n.cfg.Log.Warn("task failed", "task", t.Type, "err", err)
		return ccm.TaskFailed
	}
	return ccm.TaskOK
}

// listen runs the notifier, unless it is switched off, and gives a function
// that waits for its end.
func (a *Agent) listen(ctx context.Context) (wait func()) {
	var running sync.WaitGroup
	if !a.cfg.Once && !bool(a.cfg.Notification) {
		running.Go(func() { a.notify.run(ctx) })
	}
	return running.Wait
}

// tellNotifier passes on what the passes have learned.
func (a *Agent) tellNotifier() {
	c := credentials{device: a.state.Device, key: a.identity.key}
	if !a.cfg.mutual() {
		c.token = a.state.Session.Value
	}
	a.notify.know(c)
}

// idle waits until the next pass is due, or asked for, and says whether ctx
// is still there. Devices told together do not all come in one instant.
func (a *Agent) idle(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-t.C:
			return true
		case <-a.notify.wake:
			return sleep(ctx, backoff(1, time.Second, time.Second))
		case token := <-a.notify.refused:
			a.replaceSession(ctx, token)
		}
	}
}

// replaceSession gets a session token where the one in use was refused.
func (a *Agent) replaceSession(ctx context.Context, refused string) {
	if a.state.Session.Value == refused {
		a.state.Session = token{}
	}
	if _, err := a.session(ctx); err != nil && ctx.Err() == nil {
		a.cfg.Log.Warn("session not opened again", "err", err)
	}
	a.tellNotifier()
}

// A SwitchedOff is a setting that is on unless its text is "false": its zero
// value is on.
type SwitchedOff bool

// UnmarshalText reads "true", which is on, or "false".
func (s *SwitchedOff) UnmarshalText(text []byte) error {
	switch strings.ToLower(string(text)) {
	case "true":
		*s = false
	case "false":
		*s = true
	default:
		return fmt.Errorf("%.40q is neither true nor false: %w", text, cmg.ErrInvalid)
	}
	return nil
}

// String gives what UnmarshalText reads.
func (s SwitchedOff) String() string {
	if s {
		return "false"
	}
	return "true"
}
