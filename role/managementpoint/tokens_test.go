package managementpoint

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

const day = 24 * time.Hour

// shows is the caller that a gateway makes of a token, as its clock says.
func (l *lab) shows(token string) (cmg.Caller, error) {
	l.t.Helper()
	state := must(l.site.PublicationState(l.t.Context()))(l.t)
	trust := must(auth.NewTrust(state.Publication()))(l.t)
	return trust.Verify(auth.Evidence{Authorization: "Bearer " + token}, []cmg.Proof{cmg.ProofToken}, l.now())
}

// open opens a session with the device token and keeps a new one that comes
// with it.
func (a *agent) open() (session string, renewed bool, err error) {
	a.t.Helper()
	by, err := a.shows(a.deviceToken)
	if err != nil {
		return "", false, err
	}
	value := ccm.ClientToken(a.id, a.now())
	_, body, err := a.do(call{method: "POST", path: "/CCM_STS", caller: by, header: http.Header{
		http.CanonicalHeaderKey(ccm.HeaderClientToken):          {value},
		http.CanonicalHeaderKey(ccm.HeaderClientTokenSignature): {must(ccm.SignText(a.key, value))(a.t)},
	}})
	if err != nil {
		return "", false, err
	}
	var answer sessionAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		a.t.Fatal(err)
	}
	if answer.Device != nil {
		a.deviceToken = answer.Device.Token
	}
	return answer.Token, answer.Device != nil, nil
}

// A device token is renewed with a session once a third of its life is over,
// and after its end for as long as its grace lasts: ninety days, thirty and
// thirty as they come.
func TestDeviceTokenRenewal(t *testing.T) {
	for _, test := range []struct {
		name    string
		away    time.Duration
		renewed bool
		code    string
	}{
		{"day 29", 29 * day, false, ""},
		{"day 31", 31 * day, true, ""},
		{"day 89", 89 * day, true, ""},
		{"day 91", 91 * day, true, ""},
		{"day 119", 119 * day, true, ""},
		{"day 121", 121 * day, false, "CMGService_Invalid_Token_Expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t)
			a := l.registered()
			before := a.deviceToken
			l.clock.Store(int64(test.away / time.Second))
			session, renewed, err := a.open()
			refused(t, err, 401, test.code)
			if renewed != test.renewed {
				t.Fatalf("renewed: %v, want %v", renewed, test.renewed)
			}
			if err != nil {
				return
			}
			if by, err := l.shows(session); err != nil || by.Device != a.id || by.NotAfter.Sub(l.now()).Round(time.Minute) != 8*time.Hour {
				t.Errorf("session %+v, %v", by, err)
			}
			if !renewed {
				return
			}
			if by, err := l.shows(a.deviceToken); err != nil || by.TokenKind != "device" || by.NotAfter.Sub(l.now()).Round(time.Minute) != 90*day {
				t.Errorf("new device token %+v, %v", by, err)
			}
			if test.away < 90*day { // its answer may have been lost
				if _, err := l.shows(before); err != nil {
					t.Errorf("the old device token: %v", err)
				}
			}
			l.clock.Add(1)
			if _, again, err := a.open(); err != nil || again {
				t.Errorf("the new one is renewed at once: %v, %v", again, err)
			}
		})
	}
}

// A device token past its end does nothing but renew itself.
func TestGraceIsForRenewalOnly(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	l.clock.Store(int64(91 * day / time.Second))
	by := must(l.shows(a.deviceToken))(t)
	if by.TokenKind != string(auth.TokenGrace) {
		t.Fatalf("caller %+v", by)
	}
	_, _, err := l.do(call{method: "GET", path: "/SMS_MP/.sms_aut?MPLIST", caller: by})
	refused(t, err, 403, "CMGMP_Token_Kind")
	_, err = a.send(ccm.Sending{Source: a.id, TargetEndpoint: ccm.EndpointPolicy, Key: a.key, Body: ccm.AssignmentRequest{}.XML()}, by)
	refused(t, err, 403, "CMGMP_Token_Kind")
	refused(t, a.register(by), 403, "CMGMP_Token_Kind")
	without := newLab(t, func(c *Config) { c.DeviceTokenGrace = -1 })
	b := without.registered()
	without.clock.Store(int64(91 * day / time.Second))
	_, err = without.shows(b.deviceToken)
	refused(t, err, 401, "CMGService_Invalid_Token_Expired")
}

// A device token that was copied to another machine opens nothing: the
// device's key stayed where it was.
func TestCopiedDeviceTokenIsUseless(t *testing.T) {
	l := newLab(t)
	victim, thief := l.registered(), l.registered()
	stolen := must(l.shows(victim.deviceToken))(t)
	for name, f := range map[string]func() error{
		"with the thief's key in the victim's name": func() error {
			_, _, err := (&agent{lab: l, cert: thief.cert, key: thief.key, id: victim.id}).exchange(stolen, l.now())
			return err
		},
		"with the thief's key and name": func() error { _, _, err := thief.exchange(stolen, l.now()); return err },
		"with a proof that was overheard": func() error {
			l.clock.Add(1)
			at := l.now()
			if _, _, err := victim.exchange(stolen, at); err != nil {
				t.Fatal(err)
			}
			_, _, err := victim.exchange(stolen, at)
			return err
		},
		"as a new device": func() error { return l.newAgent().register(stolen) },
	} {
		want := map[string][2]any{
			"with the thief's key in the victim's name": {401, "CMGMP_Proof_Invalid"}, "with the thief's key and name": {403, "CMGMP_Sender_Mismatch"},
			"with a proof that was overheard": {403, "CMGMP_Proof_Replayed"}, "as a new device": {403, "CMGMP_Token_Kind"},
		}[name]
		t.Run(name, func(t *testing.T) { refused(t, f(), want[0].(int), want[1].(string)) })
	}
}

func TestRegistrationTokenFrom(t *testing.T) {
	l := newLab(t)
	register := func(from string, sources ...string) error {
		id := cmg.NewGUID()
		if err := l.site.RecordToken(t.Context(), site.Token{ID: id, Kind: "registration", NotBefore: l.now(), Expires: l.now().Add(time.Hour), Sources: sources}); err != nil {
			t.Fatal(err)
		}
		a := l.newAgent()
		c := a.message(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Body: a.registration()}, cmg.Caller{Proof: cmg.ProofToken, TokenKind: "registration", TokenID: id, NotAfter: l.now().Add(time.Hour)})
		if from != "" {
			c.header.Set("X-Forwarded-For", from)
		}
		_, _, err := l.do(c)
		return err
	}
	const wrong = "CMGMP_Registration_Token_Wrong_Address"
	for _, test := range []struct {
		name, from string
		sources    []string
		code       string
	}{
		{"any", "203.0.113.9", nil, ""},
		{"inside", "192.0.2.7", []string{"198.51.100.0/24", "192.0.2.0/24"}, ""},
		{"outside", "192.0.3.7", []string{"192.0.2.0/24"}, wrong},
		{"mapped", "::ffff:192.0.2.7", []string{"192.0.2.0/24"}, ""},
		{"version 6", "2001:db8::1", []string{"2001:db8::/32"}, ""},
		{"other version", "2001:db8::1", []string{"192.0.2.0/24"}, wrong},
		{"unknown", "", []string{"192.0.2.0/24"}, wrong},
		{"two", "192.0.2.7, 192.0.2.8", []string{"192.0.2.0/24"}, wrong},
	} {
		err := register(test.from, test.sources...)
		t.Run(test.name, func(t *testing.T) { refused(t, err, 403, test.code) })
	}
}
