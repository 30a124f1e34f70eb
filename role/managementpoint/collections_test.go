package managementpoint

import (
	"bytes"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// A secret of a collection is named and given to its devices only; what
// discovery tells counts at the next request.
func TestPoliciesReachTheirCollection(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	if err := l.site.AddCollection(ctx, "Linux", `os = "linux" and win32_bios.serial like "a_1"`); err != nil {
		t.Fatal(err)
	}
	p := cmg.Policy{ID: policyID, Version: "1.00", Flags: cmg.PolicySecret, Collection: "Linux",
		Body: ccm.PolicyBody{ID: policyID, Version: "1.00", Source: "SMS:LAB"}.Encode()}
	if err := l.site.AddPolicy(ctx, p); err != nil {
		t.Fatal(err)
	}
	a := l.registered()
	get := func() ([]byte, error) {
		_, b, err := l.do(call{method: "GET", path: "/SMS_MP/.sms_pol?" + ccm.PolicyQuery(p.ID, p.SHA256()), caller: a.bySession()})
		return b, err
	}
	if as := must(a.assignments(a.bySession()))(t); len(as) != 0 {
		t.Errorf("assignments of a device that told nothing: %+v", as)
	}
	_, err := get()
	refused(t, err, 404, "CMGMP_Policy_Unknown")
	discover := func(platform string) {
		t.Helper()
		r := ccm.Report{Content: ccm.ContentInventory, Type: "Full", Date: l.now(), Device: a.id, Instances: []ccm.ReportedInstance{
			{Content: "New", Instance: ccm.Instance{Class: "CCM_DiscoveryData", Properties: []ccm.Property{{Name: "PlatformID", Value: platform}}}},
			{Content: "New", Instance: ccm.Instance{Class: "Win32_BIOS", Properties: []ccm.Property{{Name: "Serial", Value: "A-1"}}}},
		}}
		action := ccm.ActionDiscovery(l.now())
		r.Action = &action
		if _, err := a.send(ccm.Sending{Source: a.id, TargetEndpoint: ccm.EndpointDiscovery, Key: a.key, Body: r.XML()}, a.bySession()); err != nil {
			t.Fatal(err)
		}
	}
	discover("linux amd64")
	if as := must(a.assignments(a.bySession()))(t); len(as) != 1 || as[0].PolicyID != p.ID {
		t.Errorf("assignments %+v", as)
	}
	if body, err := ccm.Open(must(get())(t), a.key); err != nil || !bytes.Equal(body, p.Body) {
		t.Error(err)
	}
	discover("Microsoft Windows NT Workstation 10.0")
	if as := must(a.assignments(a.bySession()))(t); len(as) != 0 {
		t.Errorf("assignments after it left: %+v", as)
	}
	_, err = get()
	refused(t, err, 404, "CMGMP_Policy_Unknown")
}

func TestFacts(t *testing.T) {
	for platform, want := range map[string]string{"linux amd64": "linux", "Microsoft Windows NT Server 10.0": "windows", "darwin arm64": "macos", "Plan 9": "plan 9", "": ""} {
		got := facts([]ccm.ReportedInstance{{Instance: ccm.Instance{Class: "CCM_DiscoveryData", Properties: []ccm.Property{{Name: "PlatformID", Value: platform}, {Name: "platformid", Value: "second"}}}}})
		if got["os"] != want || got["ccm_discoverydata.platformid"] != platform {
			t.Errorf("%s: %v", platform, got)
		}
	}
}
