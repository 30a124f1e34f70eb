package managementpoint

import (
	"bytes"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
)

// withPlain serves without TLS too, and gives where.
func withPlain(t *testing.T, change ...func(*Config)) (*lab, string) {
	t.Helper()
	l := newLab(t, change...)
	l.end()
	l.plain = must(net.Listen("tcp", "127.0.0.1:0"))(t)
	l.start()
	return l, "http://" + l.plain.Addr().String()
}

// at gives what a call does at another address of the point, by a client that
// shows nothing.
func (l *lab) at(url string, c call) (*http.Response, []byte, error) {
	l.t.Helper()
	tls := l.url
	l.url = url
	defer func() { l.url = tls }()
	c.client = l.client(nil)
	return l.do(c)
}

func TestListsInEveryForm(t *testing.T) {
	l, plain := withPlain(t)
	for query, want := range map[string]string{
		"MPLIST":             `<MPList><MP Name="mp1.inside" FQDN="mp1.inside" SiteCode="LAB"><Version>9128</Version><Capabilities SchemaVersion="1.0"><Property Name="SSLState" Value="63"/></Capabilities></MP></MPList>`,
		"mplist1&lab":        `<MPList><MP Name="mp1.inside" FQDN="mp1.inside" SiteCode="LAB">`,
		"MPLIST2&LAB":        `<MPList><MP Name="mp1.inside"`,
		"MPLIST2%26LAB":      `<MPList><MP Name="mp1.inside"`,
		"MPLIST1&XYZ":        `<MPList/>`,
		"MPKEYINFORMATION":   `<MPKEYINFORMATION><SITECODE>LAB</SITECODE><MPCERT Encoding="HexBinary" KeyType="1">30`,
		"mpkeyinformationex": `<MPKEYINFORMATION><SITECODE>LAB</SITECODE>`,
		"MPCERT":             `<MPCertificate>30`,
		"MPCERTIFICATE":      `<MPCertificate>30`,
		"SITESIGNCERT":       `<SiteSigningCertificate>30`,
		"GETCLIENTAFFINITY&GUID:" + strings.Repeat("0", 8) + "-0000-0000-0000-" + strings.Repeat("0", 12): `<ClientAffinity><User/></ClientAffinity>`,
	} {
		for _, path := range []string{"/SMS_MP/.sms_aut?", "/sms_mp/.SMS_AUT?"} {
			resp, b, err := l.do(call{method: "GET", path: path + query})
			if err != nil || !strings.HasPrefix(strings.ReplaceAll(string(b), "<User></User>", "<User/>"), want) && !strings.HasPrefix(strings.ReplaceAll(string(b), "<MPList></MPList>", "<MPList/>"), want) {
				t.Errorf("%s%s: %.200s, %v; want %s", path, query, b, err, want)
			} else if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/xml") {
				t.Errorf("%s: content type %s", query, kind)
			}
		}
	}
	_, _, err := l.do(call{method: "GET", path: "/SMS_MP/.sms_aut?GETCLIENTAFFINITY&' OR 1"[:38]})
	refused(t, err, 400, "CMGMP_Bad_Request")
	_, _, err = l.do(call{method: "GET", path: "/SMS_MP/.sms_aut?SMSTRC"})
	refused(t, err, 404, "CMGMP_Path_Unknown")
	_, b, err := l.at(plain, call{method: "GET", path: "/SMS_MP/.sms_aut?MPLIST"})
	if list := must(ccm.ReadMPList(string(b)))(t); err != nil || len(list) != 1 || list[0].SSLState != 0 {
		t.Errorf("without TLS: %s, %v", b, err)
	}
}

// Whatever comes to the endpoints for Windows logins is challenged, with a
// login or without: none is taken.
func TestWindowsLoginsAreChallenged(t *testing.T) {
	l, plain := withPlain(t)
	for _, path := range []string{"/ccm_system_WindowsAuth", "/CCM_System_WindowsAuth/", "/ccm_system_windowsauth/request", "/SMS_MP_WindowsAuth/.sms_pol?x"} {
		for _, method := range []string{"GET", "HEAD", ccm.Method} {
			for _, login := range []string{"", "NTLM TlRMTVNTUAABAAAA", "Negotiate YII="} {
				for _, where := range []string{plain, l.url} {
					c := call{method: method, path: path, header: http.Header{}, client: l.cp}
					if login != "" {
						c.header.Set("Authorization", login)
					}
					do := l.do
					if where == plain {
						do = func(c call) (*http.Response, []byte, error) { return l.at(plain, c) }
					}
					resp, _, err := do(c)
					refused(t, err, 401, "CMGMP_Windows_Login_Off")
					if got := strings.Join(resp.Header.Values("WWW-Authenticate"), ","); got != "Negotiate,NTLM" {
						t.Errorf("%s %s: challenge %q", method, path, got)
					}
				}
			}
		}
	}
}

// registerAt registers without any proof at an endpoint.
func (a *agent) registerAt(url, endpoint string) (ccm.RegistrationReply, error) {
	a.t.Helper()
	c := a.message(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Body: a.registration()}, cmg.Caller{})
	c.path = endpoint
	resp, body, err := a.at(url, c)
	if err != nil {
		return ccm.RegistrationReply{}, err
	}
	m := must(ccm.ReadMessage(resp.Header.Get("Content-Type"), bytes.NewReader(body), ccm.Limits{}))(a.t)
	return must(ccm.ReadRegistrationReply(must(m.Text())(a.t)))(a.t), nil
}

func TestAnonymousRegistrationWaits(t *testing.T) {
	endpoints := []string{"/CCM_System/request", "/ccm_system_AltAuth/request", "/ccm_system_tokenauth/request"}
	l, plain := withPlain(t, func(c *Config) { c.Approval = "automatic" })
	for _, e := range endpoints {
		_, err := l.newAgent().registerAt(plain, e)
		refused(t, err, 401, "CMGMP_Caller_Required")
	}
	l, plain = withPlain(t, func(c *Config) { c.Approval, c.Compatibility.AnonymousRegistration = "automatic", true })
	l.addPolicy(policyID, 0)
	l.addPolicy("{3D4D1F6C-7B7B-4B0E-8F0E-2B8C3F6B1A02}", cmg.PolicySecret)
	for _, e := range endpoints {
		a := l.newAgent()
		r, err := a.registerAt(plain, e)
		if err != nil || r.Approval != cmg.Pending || r.DeviceToken != "" {
			t.Fatalf("%s: %+v, %v", e, r, err)
		}
		a.id = r.SMSID
		if as := must(a.assignments(cmg.Caller{}))(t); len(as) != 1 {
			t.Errorf("%s: assignments %+v", e, as)
		}
	}
}

// By the alternate endpoint nobody is approved, whatever proves them; who was
// approved before stays so, and keeps how that was proven.
func TestAlternateEndpointApprovesNobody(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Compatibility.AnonymousRegistration = true })
	alternately := func(a *agent, by cmg.Caller) cmg.Device {
		t.Helper()
		c := a.message(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Body: a.registration()}, by)
		c.path = "/ccm_system_altauth/request"
		resp, body, err := a.do(c)
		if err != nil {
			t.Fatal(err)
		}
		m := must(ccm.ReadMessage(resp.Header.Get("Content-Type"), bytes.NewReader(body), ccm.Limits{}))(t)
		r := must(ccm.ReadRegistrationReply(must(m.Text())(t)))(t)
		return must(l.site.Device(t.Context(), r.SMSID))(t)
	}
	if d := alternately(l.newAgent(), byCertificate("")); d.Approval != cmg.Pending || d.Proof != cmg.ProofCertificate {
		t.Errorf("by certificate: %+v", d)
	}
	if d := alternately(l.newAgent(), l.registrationToken("", 0)); d.Approval != cmg.Pending {
		t.Errorf("by registration token: %+v", d)
	}
	a := l.registered()
	if d := alternately(a, cmg.Caller{}); d.ID != a.id || d.Approval != cmg.Approved || d.Proof != cmg.ProofToken {
		t.Errorf("approved before: %+v", d)
	}
}

func TestSiteInformation(t *testing.T) {
	l, plain := withPlain(t)
	a := l.newAgent()
	ask := func(body string) string {
		t.Helper()
		c := a.message(ccm.Sending{TargetEndpoint: ccm.EndpointLocation, Body: body}, cmg.Caller{})
		c.path = "/ccm_system/request"
		resp, b, err := l.at(plain, c)
		if err != nil {
			t.Fatal(err)
		}
		m := must(ccm.ReadMessage(resp.Header.Get("Content-Type"), bytes.NewReader(b), ccm.Limits{}))(t)
		return must(m.Text())(t)
	}
	got := ask(`<SiteInformationRequest SchemaVersion="1.00"><SiteCode Name="lab"/></SiteInformationRequest>`)
	if !strings.Contains(got, "<Site><SiteCode>LAB</SiteCode><Version>5.00.9128.1000</Version><BuildNumber>9128</BuildNumber></Site>") {
		t.Errorf("answer %s", got)
	}
	if got := ask(`<SiteInformationRequest SchemaVersion="1.00"><SiteCode Name="XYZ"/></SiteInformationRequest>`); strings.Contains(got, "<Site>") {
		t.Errorf("of another site: %s", got)
	}
}

// Without TLS nobody is a connection point: what says who is calling is
// refused, and so is what only the inside may have.
func TestNoCallerWithoutTLS(t *testing.T) {
	l, plain := withPlain(t)
	signed := must(auth.NewCallerSigner(l.gateway).Sign(byCertificate(""), l.now()))(t)
	_, _, err := l.at(plain, call{method: "GET", path: "/SMS_MP/.sms_aut?MPLIST", header: http.Header{http.CanonicalHeaderKey(auth.CallerHeader): {signed}}})
	refused(t, err, 403, "CMGMP_Caller_Not_Trusted")
	for _, path := range []string{"/cmg/v1/map", "/cmg/v1/tickets"} {
		_, _, err = l.at(plain, call{method: "GET", path: path})
		refused(t, err, 403, "CMGMP_Connection_Point_Required")
	}
	_, _, err = l.at(plain, call{method: "POST", path: "/CCM_STS"})
	refused(t, err, 401, "CMGMP_Caller_Required")
}
