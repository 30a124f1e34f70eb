package managementpoint

import (
	"crypto/tls"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
)

// The caller header is believed from a connection point, when a gateway of
// the site has signed it, and in no other case.
func TestCallerHeader(t *testing.T) {
	l := newLab(t)
	other := newLab(t) // a site of its own, with the same names
	stranger := l.identity(auth.CertRequest{Site: "LAB", Role: cmg.RoleConnectionPoint, Name: "unrecorded", Client: true})
	unrecorded := l.identity(auth.CertRequest{Site: "LAB", Role: cmg.RoleGateway, Name: "gw-unrecorded", Client: true, Server: true})
	agentCert := l.identity(auth.CertRequest{Site: "LAB", Role: cmg.RoleAgent, Name: "pc1", Client: true})
	otherSite := l.identity(auth.CertRequest{Site: "OTH", Role: cmg.RoleConnectionPoint, Name: "cp9", Client: true})
	if err := l.site.RecordCertificate(t.Context(), cmg.RoleConnectionPoint, "unrecorded", stranger.Certificate()); err != nil {
		t.Fatal(err)
	}
	nobody := agentCert.Client()
	nobody.Certificates, nobody.GetClientCertificate = nil, nil

	c := byCertificate("")
	sign := func(id *auth.Identity, at time.Time) string { return must(auth.NewCallerSigner(id).Sign(c, at))(t) }
	good := sign(l.gateway, l.now())
	parts := strings.Split(good, ".")
	for _, test := range []struct {
		name   string
		header []string
		client *tls.Config // nil: the connection point's
		status int
		code   string
	}{
		{"good", []string{good}, nil, 0, ""},
		{"none", nil, nil, 0, ""},
		{"none, peer without a certificate", nil, nobody, 0, ""},
		{"peer without a certificate", []string{good}, nobody, 403, "CMGMP_Caller_Not_Trusted"},
		{"peer is an agent", []string{good}, agentCert.Client(), 403, "CMGMP_Caller_Not_Trusted"},
		{"peer is a gateway", []string{good}, l.gateway.Client(), 403, "CMGMP_Caller_Not_Trusted"},
		{"peer is another site's", []string{good}, otherSite.Client(), 403, "CMGMP_Caller_Not_Trusted"},
		{"twice", []string{good, good}, nil, 403, "CMGMP_Caller_Not_Trusted"},
		{"garbage", []string{"device=GUID:1"}, nil, 401, "CMGSite_Invalid_Caller"},
		{"forged payload", []string{parts[0] + "." + parts[1][:len(parts[1])-8] + "AAAAAAAA." + parts[2]}, nil, 401, "CMGSite_Invalid_Caller"},
		{"no signature", []string{parts[0] + "." + parts[1] + "."}, nil, 401, "CMGSite_Invalid_Caller"},
		{"signed by a connection point", []string{sign(stranger, l.now())}, nil, 401, "CMGSite_Invalid_Caller_Unknown_Gateway"},
		{"signed by a gateway that is not recorded", []string{sign(unrecorded, l.now())}, nil, 401, "CMGSite_Invalid_Caller_Unknown_Gateway"},
		{"signed by another site's gateway", []string{sign(other.gateway, l.now())}, nil, 401, "CMGSite_Invalid_Caller_Unknown_Gateway"},
		{"old", []string{sign(l.gateway, l.now().Add(-10*time.Minute))}, nil, 401, "CMGSite_Invalid_Caller_Expired"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := l.cp
			if test.client != nil {
				client = l.client(test.client)
			}
			_, _, err := l.do(call{method: "GET", path: "/SMS_MP/.sms_aut?MPLIST", client: client, header: http.Header{http.CanonicalHeaderKey(auth.CallerHeader): test.header}})
			refused(t, err, test.status, test.code)
		})
	}
}

// What each proof may do, and what it may not.
func TestWhatCallersMayDo(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	nobody := cmg.Caller{}
	signed := ccm.Sending{Source: a.id, TargetEndpoint: ccm.EndpointPolicy, Key: a.key, Body: ccm.AssignmentRequest{Client: a.id}.XML()}
	do := map[string]func(by cmg.Caller) error{
		"list": func(by cmg.Caller) error {
			_, _, err := l.do(call{method: "GET", path: "/sms_mp/.SMS_AUT?mplist", caller: by})
			return err
		},
		"talk":     func(by cmg.Caller) error { _, err := a.send(signed, by); return err },
		"register": func(by cmg.Caller) error { return a.register(by) },
		"exchange": func(by cmg.Caller) error {
			l.clock.Add(1) // another time, another ClientToken
			_, _, err := a.exchange(by, l.now())
			return err
		},
	}
	const kind = "403 CMGMP_Token_Kind"
	for _, test := range []struct {
		name string
		by   cmg.Caller
		want map[string]string // what is refused
	}{
		{"registration token", l.registrationToken("", 0), map[string]string{"list": kind, "talk": kind, "exchange": kind}},
		{"device token", a.byDeviceToken(), map[string]string{"list": kind, "talk": kind, "register": kind}},
		{"session token", a.bySession(), map[string]string{"exchange": kind}},
		{"certificate", byCertificate(""), nil},
		{"certificate of the device", byCertificate(a.id), nil},
		{"content token", cmg.Caller{Proof: cmg.ProofToken, TokenKind: "content", Device: a.id}, map[string]string{"list": kind, "talk": kind, "exchange": kind, "register": kind}},
		{"Entra token", cmg.Caller{Proof: cmg.ProofEntra, Tenant: "t", Account: "t/o"}, map[string]string{"list": kind, "talk": kind}},
		{"unknown proof", cmg.Caller{Proof: "psychic", TokenKind: "session"}, map[string]string{"list": kind, "talk": kind, "exchange": kind, "register": kind}},
		{"nobody", nobody, map[string]string{"exchange": "401 CMGMP_Caller_Required", "register": "401 CMGMP_Caller_Required"}},
	} {
		for what, f := range do {
			t.Run(test.name+"/"+what, func(t *testing.T) {
				got := ""
				if err := f(test.by); err != nil {
					r := err.(*cmg.Refusal)
					got = strconv.Itoa(r.Status) + " " + r.Code
				}
				if got != test.want[what] {
					t.Errorf("%q, want %q", got, test.want[what])
				}
			})
		}
	}
}

func TestBlocked(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	ctx := t.Context()
	token := a.registrationToken("block-me", 0)
	list := func(by cmg.Caller) error {
		_, _, err := l.do(call{method: "GET", path: "/SMS_MP/.sms_aut?MPLIST", caller: by})
		return err
	}
	refused(t, list(a.bySession()), 0, "")

	if err := l.site.SetApproval(ctx, a.id, cmg.Blocked); err != nil {
		t.Fatal(err)
	}
	refused(t, list(a.bySession()), 403, "CMGMP_Device_Blocked")
	refused(t, list(byCertificate(a.id)), 403, "CMGMP_Device_Blocked")
	_, _, err := a.exchange(a.byDeviceToken(), l.now())
	refused(t, err, 403, "CMGMP_Device_Blocked")
	_, _, err = a.exchange(byCertificate(""), l.now())
	refused(t, err, 403, "CMGMP_Device_Blocked")
	refused(t, a.register(token), 403, "CMGMP_Device_Blocked")
	_, err = a.send(ccm.Sending{Source: a.id, TargetEndpoint: ccm.EndpointPolicy, Key: a.key, Body: ccm.AssignmentRequest{}.XML()}, cmg.Caller{})
	refused(t, err, 403, "CMGMP_Device_Blocked")
	if err := l.site.SetApproval(ctx, a.id, cmg.Approved); err != nil {
		t.Fatal(err)
	}
	refused(t, list(a.bySession()), 0, "")

	session := a.bySession()
	session.TokenID = "block-me"
	if err := l.site.BlockToken(ctx, "block-me", true); err != nil {
		t.Fatal(err)
	}
	refused(t, list(session), 403, "CMGMP_Token_Blocked")

	gone := a.bySession()
	gone.NotAfter = l.now().Add(-time.Second)
	refused(t, list(gone), 401, "CMGMP_Caller_Expired")
	unknown := a.bySession()
	unknown.Device = cmg.NewDeviceID()
	refused(t, list(unknown), 401, "CMGMP_Device_Unknown")
}

// What comes in is counted by the verified role of the peer.
func TestConnectionsAreCounted(t *testing.T) {
	l := newLab(t)
	refused(t, get(l, l.cp), 0, "")
	refused(t, get(l, l.cp), 0, "") // the same connection
	if s := l.statusOf(); s.Connections["connection_point"] != 1 || s.Connections["other"] != 0 || s.Requests["sms_aut"] != 2 {
		t.Fatalf("status %+v", s)
	}
	gateway := l.client(l.gateway.Client())
	refused(t, get(l, gateway), 0, "")
	if s := l.statusOf(); s.Connections["connection_point"] != 1 || s.Connections["other"] != 1 {
		t.Fatalf("status %+v", s)
	}
	conn := must(tls.Dial("tcp", strings.TrimPrefix(l.url, "https://"), l.gateway.Client()))(t)
	conn.Close() // asks for nothing: counted when the server notices
	for range 1000 {
		if l.statusOf().Connections["other"] == 2 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("status %+v", l.statusOf())
}

func get(l *lab, c *http.Client) error {
	_, _, err := l.do(call{method: "GET", path: "/SMS_MP/.sms_aut?MPLIST", client: c})
	return err
}
