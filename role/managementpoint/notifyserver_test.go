package managementpoint

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// A wire is a client's side of client notification over TCP.
type wire struct {
	t *testing.T
	*tls.Conn
	in frame
}

func (l *lab) dialNotify() *wire {
	l.t.Helper()
	c := must(tls.Dial("tcp", l.notify, l.gateway.Client()))(l.t) // anybody who trusts the site's roots
	l.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second)) // only ends a test that hangs
	return &wire{t: l.t, Conn: c}
}

func (w *wire) send(q ccm.NotifyRequest) {
	w.t.Helper()
	for _, b := range appendFrame(nil, q.XML()) { // in the smallest pieces there are
		if _, err := w.Write([]byte{b}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *wire) receive() ccm.NotifyReply {
	w.t.Helper()
	return must(ccm.ReadNotifyReply(must(w.in.read(w, ccm.MaxNotifyReply))(w.t)))(w.t)
}

func (w *wire) over() {
	w.t.Helper()
	if text, err := w.in.read(w, ccm.MaxNotifyReply); err == nil {
		w.t.Errorf("the connection goes on with %q", text)
	}
}

func (a *agent) logIn() ccm.NotifyRequest {
	token := ccm.ClientToken(a.id, a.now())
	return ccm.NotifyRequest{Type: ccm.NotifyLogIn, Device: a.id, Time: a.now(), Token: token, Signature: must(ccm.SignText(a.key, token))(a.t)}
}

func overTCP(c *Config) { c.NotifyListen = "127.0.0.1:0" }

func TestNotifyOverTCP(t *testing.T) {
	l := newLab(t, overTCP)
	a := l.registered()
	w := l.dialNotify()
	w.send(a.logIn())
	if r := w.receive(); len(r.Tasks) != 0 || r.Wait != 15*time.Minute || r.Refusal != "" {
		t.Fatalf("log-in: %+v", r)
	}
	l.push(ccm.TaskPolicy)
	first := w.receive()
	if k := kinds(first); len(k) != 1 || k[0] != ccm.TaskPolicy {
		t.Fatalf("told %+v", first)
	}
	l.push(ccm.TaskScript, a.id)
	second := w.receive() // the first one is not told twice here
	if k := kinds(second); len(k) != 1 || k[0] != ccm.TaskScript {
		t.Fatalf("then %+v", second)
	}
	w.send(ccm.NotifyRequest{Type: ccm.NotifyContinue, Answers: []ccm.TaskAnswer{{PushID: first.Tasks[0].PushID, Code: ccm.TaskOK}}})
	if r := w.receive(); len(r.Tasks) != 0 {
		t.Errorf("confirmation: %+v", r)
	}
	if c := l.point.hub.counts(); c.Waiting != 1 || c.Online != 1 {
		t.Errorf("counts %+v", c)
	}

	// What was not acknowledged comes again on another connection, which
	// takes the first one's place.
	x := l.dialNotify()
	x.send(a.logIn())
	if r := x.receive(); len(r.Tasks) != 1 || r.Tasks[0].GUID != second.Tasks[0].GUID {
		t.Errorf("again: %+v", r)
	}
	if r := w.receive(); !r.Replaced {
		t.Errorf("the older connection: %+v", r)
	}
	w.over()
	x.send(ccm.NotifyRequest{Type: ccm.NotifyLogOut})
	x.over()
	l.until("it is offline", func() bool { c := l.point.hub.counts(); return c.Waiting == 0 && c.Online == 0 })
}

func TestNotifyOverTCPRefuses(t *testing.T) {
	l := newLab(t, overTCP)
	a, b := l.registered(), l.registered()
	forged := a.logIn()
	forged.Signature = b.logIn().Signature
	other := a.logIn()
	other.Device = b.id
	early := a.logIn()
	early.Type = ccm.NotifyContinue
	for name, c := range map[string]struct {
		first ccm.NotifyRequest
		code  string
	}{
		"no proof":       {ccm.NotifyRequest{Type: ccm.NotifyLogIn, Device: a.id}, "CMGMP_Proof_Invalid"},
		"another's key":  {forged, "CMGMP_Proof_Invalid"},
		"another's name": {other, "CMGMP_Sender_Mismatch"},
		"no log-in":      {early, "CMGMP_Bad_Request"},
	} {
		w := l.dialNotify()
		w.send(c.first)
		if r := w.receive(); r.Refusal != c.code {
			t.Errorf("%s: %+v", name, r)
		}
		w.over()
	}
	w := l.dialNotify()
	w.Write([]byte{0, 1, 0, 0})
	w.over()
	if err := l.site.SetApproval(t.Context(), a.id, cmg.Blocked); err != nil {
		t.Fatal(err)
	}
	w = l.dialNotify()
	w.send(a.logIn())
	if r := w.receive(); r.Refusal != "CMGMP_Device_Blocked" {
		t.Errorf("blocked: %+v", r)
	}
}

// FuzzFrame: frames are read alike in whatever pieces they come, and never
// beyond their limit.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(appendFrame(nil, "one"), "two"), 1)
	f.Add([]byte{0, 0, 0, 9, 'x'}, 3)
	f.Add([]byte{255, 255, 255, 255}, 2)
	f.Fuzz(func(t *testing.T, b []byte, piece int) {
		const most = 64
		read := func(r io.Reader) (all []string, last error) {
			var in frame
			for {
				text, err := in.read(r, most)
				if err != nil {
					return all, err
				}
				if len(text) == 0 || len(text) > most {
					t.Fatalf("a frame of %d bytes", len(text))
				}
				all = append(all, text)
			}
		}
		whole, err := read(bytes.NewReader(b))
		pieces, again := read(&inPieces{b, 1 + (piece&7+8)%8})
		if len(whole) != len(pieces) || errors.Is(err, io.EOF) != errors.Is(again, io.EOF) {
			t.Errorf("%q: %q then %v; in pieces %q then %v", b, whole, err, pieces, again)
		}
	})
}

type inPieces struct {
	b []byte
	n int
}

func (p *inPieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), p.n)], p.b)
	p.b = p.b[n:]
	return n, nil
}
