package managementpoint

import (
	"net/http"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// signedHeader makes the CCMClient… headers, with the signature of the time
// under a name.
func (a *agent) signedHeader(at time.Time, name string) http.Header {
	a.t.Helper()
	text := at.UTC().Format(ccm.TimeLayout)
	h := http.Header{}
	h.Set(ccm.HeaderClientID, string(a.id))
	h.Set(ccm.HeaderClientIDSignature, must(ccm.SignText(a.key, string(a.id)))(a.t))
	h.Set(ccm.HeaderTimestamp, text)
	h.Set(name, must(ccm.SignText(a.key, text))(a.t))
	return h
}

func TestClientHeaders(t *testing.T) {
	l := newLab(t)
	a, other := l.registered(), l.registered()
	blocked := l.registered()
	if err := l.site.SetApproval(t.Context(), blocked.id, cmg.Blocked); err != nil {
		t.Fatal(err)
	}
	strict := newLab(t, func(c *Config) { c.ClockAllowance = time.Minute })
	b := strict.registered()
	usual := ccm.HeaderTimestampSignature
	for _, test := range []struct {
		name   string
		l      *lab
		header http.Header
		by     cmg.Caller
		status int
		code   string
	}{
		{"none", l, http.Header{}, cmg.Caller{}, 0, ""},
		{"now", l, a.signedHeader(l.now(), usual), cmg.Caller{}, 0, ""},
		{"the documentation's spelling", l, a.signedHeader(l.now(), ccm.HeaderTimestampsSignature), cmg.Caller{}, 0, ""},
		{"23 h 59 min ago", l, a.signedHeader(l.now().Add(-24*time.Hour+time.Minute), usual), cmg.Caller{}, 0, ""},
		{"23 h 59 min ahead", l, a.signedHeader(l.now().Add(24*time.Hour-time.Minute), usual), cmg.Caller{}, 0, ""},
		{"24 h 1 min ago", l, a.signedHeader(l.now().Add(-24*time.Hour-time.Minute), usual), cmg.Caller{}, 401, "CMGMP_Proof_Invalid"},
		{"24 h 1 min ahead", l, a.signedHeader(l.now().Add(24*time.Hour+time.Minute), usual), cmg.Caller{}, 401, "CMGMP_Proof_Invalid"},
		{"strict, now", strict, b.signedHeader(strict.now(), usual), cmg.Caller{}, 0, ""},
		{"strict, two minutes ago", strict, b.signedHeader(strict.now().Add(-2*time.Minute), usual), cmg.Caller{}, 401, "CMGMP_Proof_Invalid"},
		{"of the proven device", l, a.signedHeader(l.now(), usual), a.bySession(), 0, ""},
		{"of another device than the proof", l, a.signedHeader(l.now(), usual), other.bySession(), 403, "CMGMP_Sender_Mismatch"},
		{"another key", l, (&agent{lab: l, id: a.id, key: other.key}).signedHeader(l.now(), usual), cmg.Caller{}, 401, "CMGMP_Proof_Invalid"},
		{"unknown device", l, (&agent{lab: l, id: cmg.NewDeviceID(), key: other.key}).signedHeader(l.now(), usual), cmg.Caller{}, 401, "CMGMP_Device_Unknown"},
		{"blocked device", l, blocked.signedHeader(l.now(), usual), cmg.Caller{}, 403, "CMGMP_Device_Blocked"},
		{"both spellings", l, with(a.signedHeader(l.now(), usual), ccm.HeaderTimestampsSignature, "00"), cmg.Caller{}, 400, "CMGMP_Bad_Request"},
		{"no time", l, with(a.signedHeader(l.now(), usual), ccm.HeaderTimestamp, ""), cmg.Caller{}, 400, "CMGMP_Bad_Request"},
		{"a time that is none", l, with(a.signedHeader(l.now(), usual), ccm.HeaderTimestamp, "yesterday"), cmg.Caller{}, 400, "CMGMP_Bad_Request"},
		{"the id of another", l, with(a.signedHeader(l.now(), usual), ccm.HeaderClientID, string(other.id)), cmg.Caller{}, 401, "CMGMP_Proof_Invalid"},
		{"an id that is none", l, with(a.signedHeader(l.now(), usual), ccm.HeaderClientID, "GUID:1' OR 1=1"), cmg.Caller{}, 400, "CMGMP_Bad_Request"},
		{"a signature of nothing", l, with(a.signedHeader(l.now(), usual), usual, "00FF"), cmg.Caller{}, 401, "CMGMP_Proof_Invalid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for range 2 { // with GET a time may be shown again: ranges of a download do
				_, _, err := test.l.do(call{method: "GET", path: "/SMS_MP/.sms_aut?MPLIST", header: test.header, caller: test.by})
				refused(t, err, test.status, test.code)
			}
		})
	}
}

func with(h http.Header, name, value string) http.Header {
	h.Set(name, value)
	return h
}

// A signed time is good once for each path, with methods that have an effect.
func TestClientHeadersReplayed(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	at := l.now()
	send := func(at time.Time) error {
		c := a.message(ccm.Sending{Source: a.id, TargetEndpoint: ccm.EndpointPolicy, Key: a.key, Body: ccm.AssignmentRequest{}.XML()}, a.bySession())
		for k, v := range a.signedHeader(at, ccm.HeaderTimestampSignature) {
			c.header[k] = v
		}
		_, _, err := l.do(c)
		return err
	}
	refused(t, send(at), 0, "")
	refused(t, send(at), 403, "CMGMP_Proof_Replayed")
	refused(t, send(at.Add(time.Second)), 0, "")
	l.end()
	l.start() // it is not forgotten
	refused(t, send(at), 403, "CMGMP_Proof_Replayed")
	l.clock.Store(int64(25 * time.Hour / time.Second))
	refused(t, send(at), 401, "CMGMP_Proof_Invalid")
}
