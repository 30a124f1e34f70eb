package managementpoint

import (
	"bytes"
	"compress/zlib"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
)

const policyID = "{3D4D1F6C-7B7B-4B0E-8F0E-2B8C3F6B1A01}"

func (l *lab) addPolicy(id string, flags uint32) cmg.Policy {
	l.t.Helper()
	d := ccm.ContentDeployment{PackageID: "LAB00001", PackageVersion: 1, Folder: "tools"}
	p := cmg.Policy{
		ID: id, Version: "1.00", Category: ccm.ClassContentDeployment, Flags: flags,
		Body: ccm.PolicyBody{ID: id, Version: "1.00", Source: "SMS:LAB", Instances: []ccm.Instance{d.Instance()}}.Encode(),
	}
	if err := l.site.AddPolicy(l.t.Context(), p); err != nil {
		l.t.Fatal(err)
	}
	return p
}

func (a *agent) assignments(by cmg.Caller) ([]ccm.Assignment, error) {
	text, err := a.send(ccm.Sending{
		Source: a.id, TargetEndpoint: ccm.EndpointPolicy, Key: a.key,
		Body: ccm.AssignmentRequest{Client: a.id, PolicySource: "SMS:LAB"}.XML(),
	}, by)
	if err != nil {
		return nil, err
	}
	return must(ccm.ReadAssignmentReply(text))(a.t).Assignments, nil
}

func TestPolicy(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	p := l.addPolicy(policyID, 0)
	secret := l.addPolicy("{3D4D1F6C-7B7B-4B0E-8F0E-2B8C3F6B1A02}", cmg.PolicySecret)
	as := must(a.assignments(a.bySession()))(t)
	if len(as) != 2 || as[0].PolicyID != p.ID || as[0].Digest != p.SHA256() || as[1].PolicyID != secret.ID {
		t.Fatalf("assignments %+v", as)
	}
	_, query, _ := strings.Cut(as[0].Location, "?")
	body := func(query string, by cmg.Caller) ([]byte, error) {
		_, b, err := l.do(call{method: "GET", path: "/SMS_MP/.sms_pol?" + query, caller: by})
		return b, err
	}
	for name, q := range map[string]string{
		"as assigned":     query,
		"percent-encoded": strings.NewReplacer("{", "%7B", "}", "%7D").Replace(query),
		"lower case":      strings.ToLower(query),
		"by version":      p.ID + ".1.00",
	} {
		if b, err := body(q, a.bySession()); err != nil || !bytes.Equal(b, p.Body) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	if b, err := body(ccm.PolicyQuery(secret.ID, secret.SHA256()), cmg.Caller{}); err != nil || !bytes.HasPrefix(b, []byte("<HTML")) {
		t.Errorf("secret policy: %.60q, %v", b, err)
	}
	for name, test := range map[string]struct {
		query  string
		status int
		code   string
	}{
		"other digest": {ccm.PolicyQuery(p.ID, cmg.Digest{1}), 404, "CMGMP_Policy_Unknown"},
		"other id":     {ccm.PolicyQuery("{00000000-0000-0000-0000-000000000000}", p.SHA256()), 404, "CMGMP_Policy_Unknown"},
		"SQL":          {"%27%20OR%201=1--", 400, "CMGMP_Bad_Request"},
		"bad digest":   {p.ID + ".SHA256:zz", 400, "CMGMP_Bad_Request"},
		"nothing":      {"", 400, "CMGMP_Bad_Request"},
	} {
		_, err := body(test.query, a.bySession())
		t.Run(name, func(t *testing.T) { refused(t, err, test.status, test.code) })
	}
	// A device that is not approved learns of no secret policy.
	if err := l.site.SetApproval(t.Context(), a.id, cmg.Pending); err != nil {
		t.Fatal(err)
	}
	if as := must(a.assignments(a.bySession()))(t); len(as) != 1 {
		t.Fatalf("assignments while pending: %+v", as)
	}
	if err := l.site.RetirePolicy(t.Context(), p.ID); err != nil {
		t.Fatal(err)
	}
	_, err := body(query, a.bySession())
	refused(t, err, 404, "CMGMP_Policy_Unknown")
}

func TestContentLocation(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	ctx := t.Context()
	m := cmg.Manifest{Package: "LAB00001", Version: 2, Name: "tools", Files: []cmg.File{{Path: "a", Size: 3}}}
	if err := l.site.AddPackage(ctx, m, cmg.Digest{7}); err != nil {
		t.Fatal(err)
	}
	ask := func(version int, key bool, by cmg.Caller) (ccm.ContentLocationReply, error) {
		s := ccm.Sending{Source: a.id, TargetEndpoint: ccm.EndpointLocation, Body: ccm.ContentLocationRequest{Package: "LAB00001", Version: version, SiteCode: "LAB"}.XML()}
		if key {
			s.Key = a.key
		}
		text, err := a.send(s, by)
		if err != nil {
			return ccm.ContentLocationReply{}, err
		}
		return must(ccm.ReadContentLocationReply(text))(t), nil
	}
	_, err := ask(2, true, a.bySession())
	refused(t, err, 503, "CMGMP_No_Gateway")
	for _, g := range []cmg.GatewayService{{Host: "gw-a.example", Port: 443}, {Host: "gw-b.example", Port: 8443}} {
		if err := l.site.AddGateway(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	r := must(ask(2, false, a.bySession()))(t)
	if len(r.Locations) != 2 || r.Manifest != (cmg.Digest{7}) ||
		!strings.HasPrefix(r.Locations[0].URL, "https://gw-a.example"+cmg.ManifestPath+"?") ||
		!strings.HasPrefix(r.Locations[1].URL, "https://gw-b.example:8443"+cmg.ManifestPath+"?") {
		t.Fatalf("reply %+v", r)
	}
	c := must(l.tokens().Verify(r.Token, l.now(), auth.TokenContent))(t)
	want := cmg.PackageGrant{Package: "LAB00001", Version: 2, Manifest: cmg.Digest{7}}
	if c.Device != a.id || len(c.Packages) != 1 || c.Packages[0] != want || c.Expires.Sub(c.NotBefore) != 24*time.Hour || !c.Expires.Equal(r.Expires) {
		t.Fatalf("content token %+v", c)
	}
	if rec, err := l.site.Token(ctx, c.ID); err != nil || rec.Kind != "content" || rec.Note != "LAB00001.2" {
		t.Fatalf("record %+v, %v", rec, err)
	}
	_, err = ask(1, true, a.bySession())
	refused(t, err, 404, "CMGMP_Content_Unknown")
	_, err = ask(2, false, byCertificate(""))
	refused(t, err, 401, "CMGMP_Signature_Required")
	_, err = ask(2, true, byCertificate(""))
	refused(t, err, 0, "")
	_, err = ask(2, true, l.registered().bySession())
	refused(t, err, 403, "CMGMP_Sender_Mismatch")
	if err := l.site.SetApproval(ctx, a.id, cmg.Pending); err != nil {
		t.Fatal(err)
	}
	_, err = ask(2, true, a.bySession())
	refused(t, err, 403, "CMGMP_Device_Not_Approved")
}

func TestReports(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	ctx := t.Context()
	at := l.now().Truncate(time.Second).UTC()
	discovery := ccm.Report{Content: ccm.ContentInventory, Type: "Full", Date: at, Device: a.id, NetBIOSName: "PC1"}
	action := ccm.ActionDiscovery(at)
	discovery.Action = &action
	s := ccm.Sending{
		ID: "{" + strings.ToUpper(cmg.NewGUID()) + "}", Source: a.id, TargetEndpoint: ccm.EndpointDiscovery, Key: a.key, Async: true,
		Body: discovery.XML(), Attachments: []string{discovery.Head()},
	}
	for range 2 { // the second is a repetition
		if _, err := a.send(s, a.bySession()); err != nil {
			t.Fatal(err)
		}
		// Acknowledged is written: another handle on the file sees it.
		rs := must(l.site.Reports(ctx, a.id, "Discovery", 0))(t)
		if len(rs) != 1 || rs[0].ID != s.ID || rs[0].Body != discovery.XML() {
			t.Fatalf("reports %+v", rs)
		}
	}
	state := func(id int, when time.Time) {
		t.Helper()
		r := ccm.Report{Content: ccm.ContentStateMessages, Type: "Full", Date: when, Device: a.id, States: []ccm.StateMessage{
			{Time: when, Serial: 1, TopicID: policyID, TopicType: ccm.TopicContentDeployment, StateID: id, Details: "3 files"},
			{Time: when, Serial: 2, TopicID: policyID, TopicType: 500, StateID: 1},
		}}
		if _, err := a.send(ccm.Sending{Source: a.id, TargetEndpoint: ccm.EndpointState, Key: a.key, Body: r.XML()}, a.bySession()); err != nil {
			t.Fatal(err)
		}
	}
	state(ccm.StateFailed, at.Add(240*time.Hour)) // its clock runs ahead
	l.clock.Add(60)
	state(ccm.StateSucceeded, l.now())
	sts := must(l.site.DeploymentStates(ctx, policyID))(t)
	if len(sts) != 1 || sts[0].State != "succeeded" || sts[0].Device != a.id || sts[0].Detail != "3 files" {
		t.Fatalf("states %+v", sts)
	}
	other := ccm.Report{Content: ccm.ContentStateMessages, Device: cmg.NewDeviceID()}
	_, err := a.send(ccm.Sending{Source: a.id, TargetEndpoint: ccm.EndpointState, Key: a.key, Body: other.XML()}, a.bySession())
	refused(t, err, 403, "CMGMP_Sender_Mismatch")

	l.end() // the last contact is written when it ends, at the latest
	if d := must(l.site.Device(ctx, a.id))(t); l.now().Sub(d.LastSeen) > 30*time.Second {
		t.Errorf("last seen %s, now %s", d.LastSeen, l.now())
	}
}

// Messages that need a signature are refused without one and with a bad one.
func TestSignatures(t *testing.T) {
	l := newLab(t)
	a, b := l.registered(), l.registered()
	report := ccm.Report{Content: ccm.ContentStateMessages, Device: a.id}.XML()
	for endpoint, body := range map[string]string{
		ccm.EndpointPolicy: ccm.AssignmentRequest{Client: a.id}.XML(), ccm.EndpointDiscovery: report, ccm.EndpointState: report,
	} {
		s := ccm.Sending{Source: a.id, TargetEndpoint: endpoint, Body: body}
		t.Run(endpoint+" unsigned", func(t *testing.T) {
			_, err := a.send(s, a.bySession())
			refused(t, err, 401, "CMGMP_Signature_Required")
		})
		s.Key = b.key
		t.Run(endpoint+" by another key", func(t *testing.T) {
			_, err := a.send(s, a.bySession())
			refused(t, err, 401, "CMGMP_Signature_Invalid")
		})
		s.Key = a.key
		t.Run(endpoint+" changed after signing", func(t *testing.T) {
			one, two := a.message(s, a.bySession()), a.message(ccm.Sending{Source: a.id, TargetEndpoint: endpoint, Body: body + " ", Key: a.key}, a.bySession())
			one.body = payloadOf(two.body, one.body)
			_, _, err := a.do(one)
			refused(t, err, 401, "CMGMP_Signature_Invalid")
		})
		t.Run(endpoint+" as another device", func(t *testing.T) {
			_, err := a.send(s, b.bySession())
			refused(t, err, 403, "CMGMP_Sender_Mismatch")
		})
		t.Run(endpoint+" good", func(t *testing.T) {
			_, err := a.send(s, cmg.Caller{})
			refused(t, err, 0, "")
		})
	}
	if rs := must(l.site.Reports(t.Context(), "", "", 0))(t); len(rs) != 2 {
		t.Errorf("%d reports are kept, want the 2 good ones", len(rs))
	}
}

// payloadOf gives message with the second part of from.
func payloadOf(from, message string) string {
	const part = "--aAbBcCdDv1234567890VxXyYzZ"
	f, m := strings.Split(from, part), strings.Split(message, part)
	m[2] = f[2]
	return strings.Join(m, part)
}

// What nobody honest sends is refused before it reaches anything.
func TestHostileMessages(t *testing.T) {
	l := newLab(t)
	a := l.registered()
	s := ccm.Sending{Source: a.id, TargetEndpoint: ccm.EndpointPolicy, Key: a.key, Body: ccm.AssignmentRequest{Client: a.id}.XML()}
	withHeader := func(old, new string) call {
		c := a.message(s, a.bySession())
		from, to := string(ccm.EncodeUTF16(old, false)), string(ccm.EncodeUTF16(new, false))
		if !strings.Contains(c.body, from) {
			t.Fatalf("the message has no %s", old)
		}
		c.body = strings.ReplaceAll(c.body, from, to)
		return c
	}
	withBody := func(text string) call {
		bad := s
		bad.Body = text
		return a.message(bad, a.bySession())
	}
	withPayload := func(b []byte) call {
		c := a.message(s, a.bySession())
		c.body = payloadOf(strings.Join([]string{"", "", "\r\ncontent-type: application/octet-stream\r\n\r\n" + string(b) + "\r\n"}, "--aAbBcCdDv1234567890VxXyYzZ"), c.body)
		return c
	}
	source := fmt.Sprintf("<SourceID>%s</SourceID>", a.id)
	for name, test := range map[string]struct {
		call   call
		status int
		code   string
	}{
		"good":                  {withBody(s.Body), 0, ""},
		"SQL as SourceID":       {withHeader(source, "<SourceID>GUID:'; DROP TABLE devices; --</SourceID>"), 400, "CMGMP_Bad_Request"},
		"SQL after a SourceID":  {withHeader(source, "<SourceID>"+string(a.id)+"' OR '1'='1</SourceID>"), 400, "CMGMP_Bad_Request"},
		"SQL in the ClientID":   {withBody("<RequestAssignments><Identification><Machine><ClientID>' OR 1=1--</ClientID></Machine></Identification></RequestAssignments>"), 400, "CMGMP_Bad_Request"},
		"no SourceID":           {withHeader(source, "<SourceID></SourceID>"), 400, "CMGMP_Bad_Request"},
		"DTD in the header":     {withHeader("<Msg ", `<!DOCTYPE x [<!ENTITY e "boom">]><Msg `), 400, "CMGMP_Bad_Request"},
		"DTD in the body":       {withBody(`<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><RequestAssignments>&e;</RequestAssignments>`), 400, "CMGMP_Bad_Request"},
		"decompression bomb":    {withPayload(deflated(make([]byte, 64<<20))), 413, "CMGMP_Too_Large"},
		"not compressed at all": {withPayload([]byte("garbage")), 400, "CMGMP_Bad_Request"},
		"too long":              {call{method: ccm.Method, path: "/ccm_system/request", body: strings.Repeat("x", 9<<20), header: http.Header{"Content-Type": {`multipart/mixed; boundary="b"`}}}, 413, "CMGMP_Too_Large"},
		"no multipart":          {call{method: ccm.Method, path: "/ccm_system/request", body: "x"}, 400, "CMGMP_Bad_Request"},
		"unknown endpoint":      {a.message(ccm.Sending{Source: a.id, TargetEndpoint: "MP_Nothing", Key: a.key, Body: "<x/>"}, a.bySession()), 404, "CMGMP_Endpoint_Unknown"},
		"unknown location":      {a.message(ccm.Sending{Source: a.id, TargetEndpoint: ccm.EndpointLocation, Key: a.key, Body: "<WhereAmI/>"}, a.bySession()), 404, "CMGMP_Endpoint_Unknown"},
		"unknown path":          {call{method: "GET", path: "/SMS_MP/../etc/passwd"}, 404, "CMGMP_Path_Unknown"},
		"wrong method":          {call{method: "POST", path: "/ccm_system/request"}, 405, "CMGMP_Method_Not_Allowed"},
		"unknown verb":          {call{method: "GET", path: "/SMS_MP/.sms_aut?SMSTRC"}, 404, "CMGMP_Path_Unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := l.do(test.call)
			refused(t, err, test.status, test.code)
		})
	}
	if ds := must(l.site.Devices(t.Context(), "", 0))(t); len(ds) != 1 {
		t.Errorf("%d devices, want 1", len(ds))
	}
}

func deflated(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func TestLists(t *testing.T) {
	l := newLab(t)
	get := func(method, path string) string {
		t.Helper()
		_, b, err := l.do(call{method: method, path: path})
		refused(t, err, 0, "")
		return string(b)
	}
	list := must(ccm.ReadMPList(get("GET", "/sms_mp/.sms_AUT?mplist")))(t)
	if len(list) != 1 || list[0].Name != "mp1.inside" || list[0].SiteCode != "LAB" {
		t.Fatalf("MPLIST %+v", list)
	}
	if list = must(ccm.ReadMPList(get("GET", "/SMS_MP/.sms_aut?MPLIST1&LAB")))(t); len(list) != 1 {
		t.Fatalf("MPLIST1 of our site %+v", list)
	}
	if list = must(ccm.ReadMPList(get("GET", "/SMS_MP/.sms_aut?MPLIST1&OTH")))(t); len(list) != 0 {
		t.Fatalf("MPLIST1 of another site %+v", list)
	}
	k := must(ccm.ReadMPKeyInformation(get("GET", "/SMS_MP/.sms_aut?MPKEYINFORMATION")))(t)
	if k.SiteCode != "LAB" || !bytes.Equal(k.Signing, l.point.live.Load().signing.Certificate().Raw) {
		t.Fatalf("MPKEYINFORMATION %+v", k)
	}
	sign := strings.ToUpper(hex.EncodeToString(l.point.live.Load().signing.Certificate().Raw))
	if b := get("GET", "/SMS_MP/.sms_aut?SITESIGNCERT"); !strings.Contains(b, sign) {
		t.Fatalf("SITESIGNCERT %s", b)
	}
	if b := get("GET", "/SMS_MP/.sms_aut?MPCERT"); !strings.HasPrefix(b, "<MPCertificate>30") {
		t.Fatalf("MPCERT %s", b)
	}
	if b := get("HEAD", "/SMS_MP/.sms_aut?MPLIST"); b != "" {
		t.Fatalf("HEAD answered %q", b)
	}
}
