package managementpoint

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// clientToken gives the headers by which a device signs for a policy.
func (a *agent) clientToken(id cmg.DeviceID, at time.Time) http.Header {
	value := ccm.ClientToken(id, at)
	return http.Header{
		http.CanonicalHeaderKey(ccm.HeaderClientToken):          {value},
		http.CanonicalHeaderKey(ccm.HeaderClientTokenSignature): {must(ccm.SignText(a.key, value))(a.t)},
	}
}

func TestSecretBodyIsEncryptedToItsReader(t *testing.T) {
	l := newLab(t)
	p := l.addPolicy(policyID, cmg.PolicySecret)
	a, other := l.registered(), l.registered()
	path := "/SMS_MP/.sms_pol?" + ccm.PolicyQuery(p.ID, p.SHA256())
	get := func(by cmg.Caller, h http.Header) (*http.Response, []byte, error) {
		t.Helper()
		return l.do(call{method: "GET", path: path, caller: by, header: h})
	}
	opened := func(who *agent, by cmg.Caller, h http.Header) {
		t.Helper()
		resp, b, err := get(by, h)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := ccm.Open(b, who.key); err != nil || !bytes.Equal(body, p.Body) {
			t.Errorf("%.60q: %v", b, err)
		}
		if kind := resp.Header.Get("Content-Type"); kind != "text/xml" {
			t.Errorf("content type %s", kind)
		}
	}
	opened(a, a.bySession(), nil)
	opened(a, byCertificate(a.id), nil)
	signed := a.clientToken(a.id, l.now().Add(-23*time.Hour))
	opened(a, cmg.Caller{}, signed)
	opened(a, cmg.Caller{}, signed) // with every policy it fetches
	opened(other, other.bySession(), nil)
	_, b, err := get(other.bySession(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ccm.Open(b, a.key); err == nil {
		t.Error("another device's envelope was opened")
	}

	_, b, err = get(byCertificate(""), nil)
	if err != nil || !bytes.HasPrefix(b, []byte("<HTML")) {
		t.Errorf("a caller that is no device: %.60q, %v", b, err)
	}
	_, _, err = get(cmg.Caller{}, other.clientToken(a.id, l.now()))
	refused(t, err, 401, "CMGMP_Proof_Invalid")
	_, _, err = get(cmg.Caller{}, a.clientToken(a.id, l.now().Add(-25*time.Hour)))
	refused(t, err, 401, "CMGMP_Proof_Invalid")
	_, _, err = get(other.bySession(), a.clientToken(a.id, l.now()))
	refused(t, err, 403, "CMGMP_Sender_Mismatch")
	_, _, err = get(cmg.Caller{}, a.clientToken(cmg.NewDeviceID(), l.now()))
	refused(t, err, 401, "CMGMP_Device_Unknown")
	if err := l.site.SetApproval(t.Context(), a.id, cmg.Pending); err != nil {
		t.Fatal(err)
	}
	_, _, err = get(cmg.Caller{}, signed)
	refused(t, err, 403, "CMGMP_Device_Not_Approved")
	_, _, err = get(a.bySession(), nil)
	refused(t, err, 403, "CMGMP_Device_Not_Approved")
	if err := l.site.SetApproval(t.Context(), a.id, cmg.Blocked); err != nil {
		t.Fatal(err)
	}
	_, _, err = get(cmg.Caller{}, signed)
	refused(t, err, 403, "CMGMP_Device_Blocked")
}

// What a device registered for encryption counts, not what it signs with.
func TestSecretBodyIsForTheEncryptionKey(t *testing.T) {
	l := newLab(t)
	p := l.addPolicy(policyID, cmg.PolicySecret)
	a, keys := l.newAgent(), l.newAgent()
	body := must(ccm.Registration{Signing: a.cert, Encryption: keys.cert, Time: l.now()}.XML(a.key))(t)
	r := must(ccm.ReadRegistrationReply(must(a.send(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Body: body}, l.registrationToken("", 0)))(t)))(t)
	_, b, err := l.do(call{method: "GET", path: "/SMS_MP_TokenAuth/.sms_pol?" + ccm.PolicyQuery(p.ID, p.SHA256()), header: a.clientToken(r.SMSID, l.now())})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ccm.Open(b, keys.key); err != nil || !bytes.Equal(got, p.Body) {
		t.Error(err)
	}
}

// The older form is for those who do not ask for the better one, and only
// where it is switched on.
func TestLegacyEncryption(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		l := newLab(t, func(c *Config) { c.Compatibility.LegacyEncryption = legacy })
		p := l.addPolicy(policyID, cmg.PolicySecret)
		a := l.registered()
		for accept, old := range map[string]bool{"": legacy, "*/*": legacy, ccm.EnvelopeType: false} {
			h := http.Header{}
			if accept != "" {
				h.Set("Accept", accept)
			}
			_, b, err := l.do(call{method: "GET", path: "/SMS_MP/.sms_pol?" + ccm.PolicyQuery(p.ID, p.SHA256()), caller: a.bySession(), header: h})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ccm.Open(b, a.key); (err != nil) != old {
				t.Errorf("switched on: %v, asked for %q: %v", legacy, accept, err)
			}
		}
	}
}

// An agent signs for a secret policy by headers that open no session.
func TestSecretBodyBySignedHeaders(t *testing.T) {
	l := newLab(t)
	p := l.addPolicy(policyID, cmg.PolicySecret)
	a, other := l.registered(), l.registered()
	h := http.Header{}
	if err := ccm.SignClientHeader(h, a.key, a.id, l.now()); err != nil {
		t.Fatal(err)
	}
	path := "/SMS_MP/.sms_pol?" + ccm.PolicyQuery(p.ID, p.SHA256())
	for _, by := range []cmg.Caller{{}, byCertificate("")} {
		_, b, err := l.do(call{method: "GET", path: path, header: h, caller: by})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ccm.Open(b, a.key); err != nil || !bytes.Equal(got, p.Body) {
			t.Error(err)
		}
	}
	_, _, err := l.do(call{method: "POST", path: "/CCM_STS", header: h, caller: a.byDeviceToken()})
	refused(t, err, 401, "CMGMP_Proof_Invalid")
	if err := ccm.SignClientHeader(h, other.key, a.id, l.now()); err != nil {
		t.Fatal(err)
	}
	_, _, err = l.do(call{method: "GET", path: path, header: h})
	refused(t, err, 401, "CMGMP_Proof_Invalid")
}
