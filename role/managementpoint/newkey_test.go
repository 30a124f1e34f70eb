package managementpoint

import (
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// rekey has a change its key: the message is signed by the old one.
func (a *agent) rekey(next *agent, at time.Time, by cmg.Caller) (string, error) {
	body := must(ccm.Registration{NetBIOSName: "PC1", Signing: next.cert, SMSID: a.id, Time: at}.XML(next.key))(a.t)
	return a.send(ccm.Sending{Source: a.id, Key: a.key, TargetEndpoint: ccm.EndpointRegistration, Body: body}, by)
}

func TestOldKeySignsForTheNew(t *testing.T) {
	l := newLab(t)
	a, next := l.registered(), l.newAgent()
	// A session alone does not change the key: it may be somebody else's.
	unsigned := must(ccm.Registration{NetBIOSName: "PC1", Signing: next.cert, Time: l.now()}.XML(next.key))(t)
	_, err := a.send(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Body: unsigned}, a.bySession())
	refused(t, err, 409, "CMGMP_Device_Conflict")
	// Nor does a signature of another key.
	stranger := l.newAgent()
	stranger.id = a.id
	_, err = stranger.rekey(next, l.now(), a.bySession())
	refused(t, err, 401, "CMGMP_Signature_Invalid")
	// Nor an old registration.
	_, err = a.rekey(next, l.now().Add(-25*time.Hour), a.bySession())
	refused(t, err, 401, "CMGMP_Proof_Invalid")

	r := must(ccm.ReadRegistrationReply(must(a.rekey(next, l.now(), a.bySession()))(t)))(t)
	if r.SMSID != a.id || r.Approval != cmg.Approved || r.DeviceToken == "" {
		t.Fatalf("reply %+v", r)
	}
	next.id = a.id
	if _, err := next.assignments(next.bySession()); err != nil {
		t.Errorf("the new key: %v", err)
	}
	_, err = a.assignments(a.bySession())
	refused(t, err, 401, "CMGMP_Signature_Invalid")

	// Back to the first key, and the first change again: it is good once.
	at := l.now().Add(-time.Minute)
	if _, err := next.rekey(a, at, next.bySession()); err != nil {
		t.Fatal(err)
	}
	body := must(ccm.Registration{NetBIOSName: "PC1", Signing: next.cert, SMSID: a.id, Time: at}.XML(next.key))(t)
	once := ccm.Sending{Source: a.id, Key: a.key, TargetEndpoint: ccm.EndpointRegistration, Body: body, SentTime: at}
	if _, err := a.send(once, a.bySession()); err != nil {
		t.Fatal(err)
	}
	if _, err := next.rekey(a, at.Add(time.Second), next.bySession()); err != nil {
		t.Fatal(err)
	}
	_, err = a.send(once, a.bySession())
	refused(t, err, 403, "CMGMP_Proof_Replayed")
	if d := must(l.site.Device(t.Context(), a.id))(t); string(d.Certificate) != string(a.cert) {
		t.Error("an old registration brought an old key back")
	}
}

// A device that the site has forgotten registers as any other does, also if
// its message is signed.
func TestForgottenDeviceRegisters(t *testing.T) {
	l := newLab(t)
	a, next := l.registered(), l.newAgent()
	if err := l.site.DeleteDevice(t.Context(), a.id); err != nil {
		t.Fatal(err)
	}
	_, err := a.assignments(a.bySession())
	refused(t, err, 401, "CMGMP_Device_Unknown")
	r := must(ccm.ReadRegistrationReply(must(a.rekey(next, l.now(), l.registrationToken("", 0)))(t)))(t)
	if r.SMSID == a.id {
		t.Error("it got the forgotten device's id")
	}
}

func TestRegistrationKeepsKeyAndHardware(t *testing.T) {
	l := newLab(t)
	a, other := l.newAgent(), l.newAgent()
	body := must(ccm.Registration{NetBIOSName: "PC1", Signing: a.cert, Encryption: other.cert, Hardware: "h1", Time: l.now()}.XML(a.key))(t)
	r := must(ccm.ReadRegistrationReply(must(a.send(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Body: body}, l.registrationToken("", 0)))(t)))(t)
	if d := must(l.site.Device(t.Context(), r.SMSID))(t); string(d.Encryption) != string(other.cert) || d.Hardware != "h1" {
		t.Errorf("kept hardware %q and a certificate of %d bytes", d.Hardware, len(d.Encryption))
	}
	body = must(ccm.Registration{Signing: a.cert, Encryption: []byte("none"), Time: l.now()}.XML(a.key))(t)
	_, err := a.send(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Body: body}, l.registrationToken("", 0))
	refused(t, err, 400, "CMGMP_Bad_Request")
}
