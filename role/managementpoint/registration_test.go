package managementpoint

import (
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
)

func (l *lab) tokens() *auth.Tokens {
	l.t.Helper()
	return must(auth.NewTokens("LAB", l.keyring.PublicKeys()))(l.t)
}

func TestRegistration(t *testing.T) {
	l := newLab(t)
	a := l.newAgent()
	by := l.registrationToken("reg-1", 1)
	refused(t, a.register(by), 0, "")
	first := a.id
	d := must(l.site.Device(t.Context(), first))(t)
	if d.Name != "PC1" || d.FQDN != "pc1.example" || d.Approval != cmg.Approved || d.Proof != cmg.ProofToken {
		t.Fatalf("registered %+v", d)
	}
	c := must(l.tokens().Verify(a.deviceToken, l.now(), auth.TokenDevice))(t)
	if c.Device != first || c.Expires.Sub(c.NotBefore) != 90*24*time.Hour {
		t.Fatalf("device token %+v", c)
	}
	if rec, err := l.site.Token(t.Context(), c.ID); err != nil || rec.Device != first || rec.Kind != "device" {
		t.Fatalf("record %+v, %v", rec, err)
	}

	refused(t, a.register(by), 0, "") // the answer was lost: the same again
	if a.id != first {
		t.Fatalf("registered again as %s, want %s", a.id, first)
	}
	refused(t, l.newAgent().register(by), 403, "CMGMP_Registration_Token_Used_Up")
	refused(t, l.newAgent().register(cmg.Caller{Proof: cmg.ProofToken, TokenKind: "registration", TokenID: "nobody-recorded-it"}), 403, "CMGMP_Registration_Token_Unknown")
	refused(t, l.newAgent().register(cmg.Caller{Proof: cmg.ProofToken, TokenKind: "registration"}), 403, "CMGMP_Registration_Token_Unknown")
	if rec := must(l.site.Token(t.Context(), "reg-1"))(t); rec.Uses != 1 {
		t.Fatalf("%d uses, want 1", rec.Uses)
	}

	// The record decides, whatever the gateway knew of the token.
	late := l.registrationToken("reg-2", 0)
	late.NotAfter = time.Time{}
	l.clock.Add(3601)
	refused(t, l.newAgent().register(late), 403, "CMGMP_Registration_Token_Expired")
	blocked := l.registrationToken("reg-3", 0)
	if err := l.site.BlockToken(t.Context(), "reg-3", true); err != nil {
		t.Fatal(err)
	}
	refused(t, l.newAgent().register(blocked), 403, "CMGMP_Token_Blocked")
}

func TestApproval(t *testing.T) {
	for _, test := range []struct {
		setting string
		by      func(l *lab) cmg.Caller
		want    cmg.Approval
	}{
		{"manual", func(*lab) cmg.Caller { return byCertificate("") }, cmg.Approved},
		{"manual", func(l *lab) cmg.Caller { return l.registrationToken("", 0) }, cmg.Approved},
		{"manual", func(*lab) cmg.Caller { return cmg.Caller{Proof: cmg.ProofToken, TokenKind: "session"} }, cmg.Pending},
		{"automatic", func(*lab) cmg.Caller { return cmg.Caller{Proof: cmg.ProofToken, TokenKind: "session"} }, cmg.Approved},
	} {
		l := newLab(t, func(c *Config) { c.Approval = test.setting })
		by := test.by(l)
		t.Run(test.setting+"/"+string(by.Proof)+by.TokenKind, func(t *testing.T) {
			a := l.newAgent()
			refused(t, a.register(by), 0, "")
			if d := must(l.site.Device(t.Context(), a.id))(t); d.Approval != test.want {
				t.Errorf("%s, want %s", d.Approval, test.want)
			}
		})
	}
}

// A proof that names a device gives the registration its id, and holds it to
// that.
func TestRegistrationOfANamedDevice(t *testing.T) {
	l := newLab(t)
	id, other := cmg.NewDeviceID(), cmg.NewDeviceID()
	a := l.newAgent()
	refused(t, a.register(byCertificate(id)), 0, "")
	if a.id != id {
		t.Fatalf("registered as %s, want %s", a.id, id)
	}
	b := l.newAgent()
	session := cmg.Caller{Proof: cmg.ProofToken, TokenKind: "session", Device: id}
	refused(t, b.register(session), 409, "CMGMP_Device_Conflict")              // another key for a token's device
	refused(t, a.register(byCertificate(other)), 409, "CMGMP_Device_Conflict") // a key of another device
	refused(t, b.register(byCertificate(id)), 0, "")                           // a certificate may bring a new key
	if b.id != id {
		t.Fatalf("registered as %s, want %s", b.id, id)
	}
	text := must(ccm.Registration{SMSID: other, Signing: b.cert, Time: l.now()}.XML(b.key))(t)
	_, err := b.send(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Body: text}, byCertificate(id))
	refused(t, err, 403, "CMGMP_Sender_Mismatch")
	_, err = b.send(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Source: other, Body: b.registration()}, byCertificate(id))
	refused(t, err, 403, "CMGMP_Sender_Mismatch")
}

func TestRegistrationSignature(t *testing.T) {
	l := newLab(t)
	a, b := l.newAgent(), l.newAgent()
	good := a.registration()
	for name, test := range map[string]struct {
		text   string
		status int
		code   string
	}{
		"good":                   {good, 0, ""},
		"changed after signing":  {strings.Replace(good, "PC1", "PC2", 1), 401, "CMGMP_Signature_Invalid"},
		"blank added":            {strings.Replace(good, "<Certificates>", "<Certificates> ", 1), 401, "CMGMP_Signature_Invalid"},
		"blank outside of Data":  {strings.Replace(good, "<Signature>", "\r\n<Signature>", 1), 0, ""},
		"signed by another key":  {must(ccm.Registration{Signing: a.cert, Time: l.now()}.XML(b.key))(t), 401, "CMGMP_Signature_Invalid"},
		"certificate is garbage": {must(ccm.Registration{Signing: []byte{1, 2, 3}, Time: l.now()}.XML(b.key))(t), 400, "CMGMP_Bad_Request"},
		"not a registration":     {"<Report/>", 400, "CMGMP_Bad_Request"},
		"not XML":                {"hello", 400, "CMGMP_Bad_Request"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.send(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Body: test.text}, byCertificate(""))
			refused(t, err, test.status, test.code)
		})
	}
}

func TestExchange(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	at := l.now()
	token, expires, err := a.exchange(a.byDeviceToken(), at)
	refused(t, err, 0, "")
	c := must(l.tokens().Verify(token, l.now(), auth.TokenSession))(t)
	if c.Device != a.id || !c.Expires.Equal(expires) || c.Expires.Sub(c.NotBefore) != 8*time.Hour {
		t.Fatalf("session token %+v, expires %s", c, expires)
	}
	if rec, err := l.site.Token(t.Context(), c.ID); err != nil || rec.Kind != "session" || rec.Device != a.id {
		t.Fatalf("record %+v, %v", rec, err)
	}

	_, _, err = a.exchange(a.byDeviceToken(), at)
	refused(t, err, 403, "CMGMP_Proof_Replayed")
	l.end() // what was used is remembered across a restart
	l.start()
	_, _, err = a.exchange(a.byDeviceToken(), at)
	refused(t, err, 403, "CMGMP_Proof_Replayed")
	_, _, err = a.exchange(byCertificate(a.id), at.Add(time.Second))
	refused(t, err, 0, "")

	for name, test := range map[string]struct {
		shift  time.Duration
		status int
		code   string
	}{
		"14 minutes slow": {-14 * time.Minute, 0, ""},
		"14 minutes fast": {14 * time.Minute, 0, ""},
		"16 minutes slow": {-16 * time.Minute, 401, "CMGMP_Proof_Invalid"},
		"16 minutes fast": {16 * time.Minute, 401, "CMGMP_Proof_Invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := a.exchange(a.byDeviceToken(), l.now().Add(test.shift))
			refused(t, err, test.status, test.code)
		})
	}

	b := l.registered()
	_, _, err = a.exchange(b.byDeviceToken(), l.now().Add(time.Minute))
	refused(t, err, 403, "CMGMP_Sender_Mismatch")
	thief := *a
	thief.key = b.key
	_, _, err = thief.exchange(a.byDeviceToken(), l.now().Add(time.Minute))
	refused(t, err, 401, "CMGMP_Proof_Invalid")
	_, _, err = l.do(call{method: "POST", path: "/CCM_STS", caller: a.byDeviceToken()})
	refused(t, err, 401, "CMGMP_Proof_Invalid")
	stranger := l.newAgent()
	stranger.id = cmg.NewDeviceID()
	_, _, err = stranger.exchange(byCertificate(""), l.now())
	refused(t, err, 401, "CMGMP_Device_Unknown")

	if log := l.logged.String(); strings.Contains(log, token) || strings.Contains(log, a.deviceToken) || strings.Contains(log, "eyJ") {
		t.Error("a token stands in the log")
	}
}
