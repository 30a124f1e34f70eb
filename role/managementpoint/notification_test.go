package managementpoint

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

// notified makes one request as a device does and gives the reply.
func (a *agent) notified(kind string, by cmg.Caller, wait time.Duration, answers ...ccm.TaskAnswer) (ccm.NotifyReply, error) {
	a.t.Helper()
	q := ccm.NotifyRequest{Type: kind, Device: a.id, Time: a.now(), Wait: wait, Answers: answers}
	_, body, err := a.do(call{method: "POST", path: "/BGB/Handler.ashx?requesttype=" + kind, body: q.XML(), caller: by})
	if err != nil {
		return ccm.NotifyReply{}, err
	}
	return must(ccm.ReadNotifyReply(string(body)))(a.t), nil
}

// poll waits for what is pushed; a long wait only ends a test that hangs.
func (a *agent) poll(answers ...ccm.TaskAnswer) ccm.NotifyReply {
	a.t.Helper()
	return must(a.notified(ccm.NotifyContinue, a.bySession(), 20*time.Second, answers...))(a.t)
}

func (l *lab) push(task int, to ...cmg.DeviceID) {
	l.t.Helper()
	if err := l.site.Push(l.t.Context(), task, []byte("p"), 0, to...); err != nil {
		l.t.Fatal(err)
	}
}

// until waits for something that has to come true.
func (l *lab) until(what string, f func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("never: %s; %+v", what, l.point.hub.counts())
		}
	}
}

func kinds(r ccm.NotifyReply) (all []int) {
	for _, t := range r.Tasks {
		all = append(all, t.Type)
	}
	return all
}

// TestNotificationWakes: a push by another process ends the polls of those it
// is for, and of nobody else.
func TestNotificationWakes(t *testing.T) {
	l := newLab(t)
	a, b := l.registered(), l.registered()
	other := must(site.Open(t.Context(), l.file("site.db")))(t) // as the command line
	defer other.Close()
	got := make(chan ccm.NotifyReply, 2)
	for _, who := range []*agent{a, b} {
		go func() { got <- who.poll() }()
	}
	l.until("both wait", func() bool { return l.point.hub.counts().Waiting == 2 })
	if err := other.Push(t.Context(), ccm.TaskScript, []byte("script"), 0, a.id); err != nil {
		t.Fatal(err)
	}
	first := <-got
	if k := kinds(first); len(k) != 1 || k[0] != ccm.TaskScript || string(first.Tasks[0].Param) != "script" {
		t.Fatalf("told %+v", first)
	}
	if n := l.point.hub.counts().Waiting; n != 1 {
		t.Errorf("%d wait: the push was for one", n)
	}
	if err := other.Push(t.Context(), ccm.TaskPolicy, nil, 0); err != nil {
		t.Fatal(err)
	}
	if k := kinds(<-got); len(k) != 1 || k[0] != ccm.TaskPolicy {
		t.Errorf("the other was told %v", k)
	}
}

// TestNotificationKeeps: what is pushed is told until it is acknowledged,
// across a restart too, and not again.
func TestNotificationKeeps(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	l.push(ccm.TaskScript, a.id)
	l.push(ccm.TaskPolicy)
	l.push(ccm.TaskPolicy) // stands for both
	first := a.poll()
	if k := kinds(first); len(k) != 2 || k[0] != ccm.TaskScript || k[1] != ccm.TaskPolicy {
		t.Fatalf("told %+v", first)
	}
	again := a.poll() // nothing was acknowledged
	if len(again.Tasks) != 2 || again.Tasks[0].GUID != first.Tasks[0].GUID {
		t.Fatalf("then %+v", again)
	}
	ack := ccm.TaskAnswer{PushID: first.Tasks[0].PushID, Code: ccm.TaskOK}
	if r := must(a.notified(ccm.NotifyLogIn, a.bySession(), 0, ack))(t); len(r.Tasks) != 1 || r.Tasks[0].Type != ccm.TaskPolicy || r.Wait != 15*time.Minute {
		t.Fatalf("after one was acknowledged: %+v", r)
	}
	l.end()
	l.start()
	r := a.poll()
	if k := kinds(r); len(k) != 1 || k[0] != ccm.TaskPolicy {
		t.Fatalf("after a restart: %+v", r)
	}
	ack.PushID = r.Tasks[0].PushID
	if r := must(a.notified(ccm.NotifyContinue, a.bySession(), time.Second, ack))(t); len(r.Tasks) != 0 {
		t.Errorf("after all were acknowledged: %+v", r)
	}
	l.push(ccm.TaskScript, a.id)
	l.clock.Add(int64((4 * 24 * time.Hour).Seconds()))
	l.until("the push has expired", func() bool {
		return len(must(a.notified(ccm.NotifyLogIn, a.bySession(), 0))(t).Tasks) == 0
	})
}

// TestNotificationAckOfNothing: a device cannot take what has not been made.
func TestNotificationAckOfNothing(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	must(a.notified(ccm.NotifyLogIn, a.bySession(), 0, ccm.TaskAnswer{PushID: 1 << 62, Code: ccm.TaskOK}))(t)
	l.push(ccm.TaskScript, a.id)
	if r := a.poll(); len(r.Tasks) != 1 {
		t.Errorf("told %+v", r)
	}
}

// TestNotificationReplaces: of two polls of a device the newer counts.
func TestNotificationReplaces(t *testing.T) {
	l := newLab(t, func(c *Config) { c.NotifyClients = 1 })
	a := l.registered()
	older, newer := make(chan ccm.NotifyReply, 1), make(chan ccm.NotifyReply, 1)
	go func() { older <- a.poll() }()
	l.until("one waits", func() bool { return l.point.hub.counts().Waiting == 1 })
	go func() { newer <- a.poll() }()
	if r := <-older; !r.Replaced || len(r.Tasks) != 0 {
		t.Errorf("the older: %+v", r)
	}
	// There is room for one: another device finds none.
	_, err := l.registered().notified(ccm.NotifyContinue, cmg.Caller{}, time.Second)
	refused(t, err, 401, "CMGMP_Proof_Invalid")
	b := l.registered()
	_, err = b.notified(ccm.NotifyContinue, b.bySession(), time.Second)
	refused(t, err, 503, "CMGMP_Too_Many_Waiting")
	l.push(ccm.TaskPolicy)
	if r := <-newer; r.Replaced || len(r.Tasks) != 1 {
		t.Errorf("the newer: %+v", r)
	}
}

// TestNotificationProof: who may hear what a device is told.
func TestNotificationProof(t *testing.T) {
	l := newLab(t)
	a, b := l.registered(), l.registered()
	sign := func(who *agent, id cmg.DeviceID, at time.Time) http.Header {
		value := ccm.ClientToken(id, at)
		return http.Header{http.CanonicalHeaderKey(ccm.HeaderClientToken): {value},
			http.CanonicalHeaderKey(ccm.HeaderClientTokenSignature): {must(ccm.SignText(who.key, value))(t)}}
	}
	blocked := l.registered()
	if err := l.site.SetApproval(t.Context(), blocked.id, cmg.Blocked); err != nil {
		t.Fatal(err)
	}
	body := ccm.NotifyRequest{Type: ccm.NotifyLogIn, Device: a.id}.XML()
	nameless := byCertificate("")
	for _, c := range []struct {
		name   string
		call   call
		status int
		code   string
	}{
		{"session", call{caller: a.bySession()}, 200, ""},
		{"certificate that names it", call{caller: byCertificate(a.id)}, 200, ""},
		{"certificate and signed time", call{caller: nameless, header: sign(a, a.id, l.now())}, 200, ""},
		{"signed time alone", call{header: sign(a, a.id, l.now())}, 200, ""},
		{"certificate alone", call{caller: nameless}, 401, "CMGMP_Proof_Invalid"},
		{"nothing", call{}, 401, "CMGMP_Proof_Invalid"},
		{"another's key", call{header: sign(b, a.id, l.now())}, 401, "CMGMP_Proof_Invalid"},
		{"an old time", call{header: sign(a, a.id, l.now().Add(-25*time.Hour))}, 401, "CMGMP_Proof_Invalid"},
		{"another's name", call{caller: b.bySession()}, 403, "CMGMP_Sender_Mismatch"},
		{"another's session", call{caller: b.bySession(), header: sign(a, a.id, l.now())}, 403, "CMGMP_Sender_Mismatch"},
		{"device token", call{caller: a.byDeviceToken()}, 403, "CMGMP_Token_Kind"},
		{"blocked", call{caller: blocked.bySession()}, 403, "CMGMP_Device_Blocked"},
		{"no type", call{caller: a.bySession(), path: "/bgb/handler.ashx"}, 400, "CMGMP_Bad_Request"},
		{"another type", call{caller: a.bySession(), path: "/bgb/handler.ashx?RequestType=Poke"}, 400, "CMGMP_Bad_Request"},
		{"no message", call{caller: a.bySession(), body: "<x/>"}, 400, "CMGMP_Bad_Request"},
		{"a long message", call{caller: a.bySession(), body: strings.Repeat(" ", ccm.MaxNotifyRequest) + body}, 413, "CMGMP_Too_Large"},
		{"another method", call{method: "GET", caller: a.bySession()}, 405, "CMGMP_Method_Not_Allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.call.method == "" {
				c.call.method = "POST"
			}
			if c.call.path == "" {
				c.call.path = "/bgb/handler.ashx?RequestType=LogIn"
			}
			if c.call.body == "" && c.call.method == "POST" {
				c.call.body = body
			}
			_, _, err := l.do(c.call)
			refused(t, err, c.status, c.code)
		})
	}
}

// countingSource counts what a hub writes.
type countingSource struct {
	*site.Site
	rows atomic.Int64
}

func (s *countingSource) NotePresence(ctx context.Context, all []site.Presence) error {
	s.rows.Add(int64(len(all)))
	return s.Site.NotePresence(ctx, all)
}

// TestPresenceIsBatched: a beat writes nothing; coming and going does, in
// batches, and at the end nobody is online.
func TestPresenceIsBatched(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	source := &countingSource{Site: l.site}
	now := l.now()
	h := newHub(source, func() time.Time { return now })
	beat := func() {
		t.Helper()
		w := &poll{wake: make(chan struct{}, 1)}
		if err := h.meet(t.Context(), a.id, nil); err != nil {
			t.Fatal(err)
		}
		if err := h.enter(a.id, w, 1); err != nil {
			t.Fatal(err)
		}
		h.leave(a.id, w)
	}
	record := func(all, ended bool, want int64) {
		t.Helper()
		if err := h.record(t.Context(), all, ended); err != nil {
			t.Fatal(err)
		}
		if n := source.rows.Swap(0); n != want {
			t.Errorf("%d rows were written, not %d", n, want)
		}
	}
	beat()
	record(false, false, 1)
	for range 10 {
		now = now.Add(30 * time.Second)
		beat()
		record(false, false, 0)
	}
	record(true, false, 1)
	p := must(l.site.Presence(t.Context(), a.id))(t)
	if !p.OnlineAt(now) || !p.LastOnline.Equal(now.Truncate(time.Second)) {
		t.Errorf("presence %+v at %s", p, now)
	}
	now = now.Add(stillOnline + time.Second)
	record(false, false, 1) // it went
	if must(l.site.Presence(t.Context(), a.id))(t).Online {
		t.Error("online though it went")
	}
	now = now.Add(forgetAfter)
	record(false, false, 0)
	if len(h.clients) != 0 {
		t.Error("remembered for ever")
	}
	beat()
	record(false, true, 0)
}

// TestNotificationStatus: who waits shows, and the end writes that nobody
// does any more.
func TestNotificationStatus(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	got := make(chan ccm.NotifyReply, 1)
	go func() { got <- a.poll() }()
	l.until("it waits", func() bool { c := l.point.hub.counts(); return c.Waiting == 1 && c.Online == 1 })
	if err := l.point.hub.record(t.Context(), false, false); err != nil {
		t.Fatal(err)
	}
	if p := must(l.site.Presence(t.Context(), a.id))(t); !p.OnlineAt(l.now()) {
		t.Errorf("while it waits: %+v", p)
	}
	l.end()
	if r := <-got; len(r.Tasks) != 0 || r.Replaced {
		t.Errorf("at the end: %+v", r)
	}
	if p := must(l.site.Presence(t.Context(), a.id))(t); p.Online || p.LastOnline.IsZero() {
		t.Errorf("afterwards: %+v", p)
	}
}
