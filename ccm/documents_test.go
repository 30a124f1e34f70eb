package ccm

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencmg/cmg"
)

// roundTrip writes a document, compares it with its golden file, and reads it
// back.
func roundTrip[T any](t *testing.T, name string, want T, text string, read func(string) (T, error)) {
	t.Helper()
	golden(t, name, strings.ReplaceAll(text, "><", ">\n<")+"\n")
	got, err := read(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: -want +got:\n%s", name, d)
	}
	if _, err := read("<Other/>"); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("%s: another root: got %v", name, err)
	}
}

func TestDocuments(t *testing.T) {
	request := AssignmentRequest{Client: testSource, FQDN: "pc1.example", NetBIOSName: "PC1", PolicySource: "SMS:LAB", ServerCookie: "7"}
	roundTrip(t, "assignment-request", request, request.XML(), ReadAssignmentRequest)

	body := PolicyBody{ID: testID, Version: "1.00", Source: "SMS:LAB", Instances: []Instance{
		ContentDeployment{PackageID: "LAB00001", PackageVersion: 2, Folder: "tools/new"}.Instance(),
		{Class: "Other", Properties: []Property{{Name: "p", Type: TypeString, Value: "]]>", Secret: true}}},
	}}
	policy := cmg.Policy{ID: testID, Version: "1.00", Category: "ContentDeployment", Flags: 16, Body: body.Encode()}
	reply := AssignmentReply{ServerCookie: "8", Assignments: []Assignment{AssignmentOf(policy)}}
	roundTrip(t, "assignment-reply", reply, reply.XML(), ReadAssignmentReply)

	text, err := DecodeUTF16(policy.Body)
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, "policy-body", body, text, func(s string) (PolicyBody, error) { return ReadPolicyBody(EncodeUTF16(s, true)) })

	where := ContentLocationRequest{Package: "LAB00001", Version: 2, SiteCode: "LAB", Internet: true}
	roundTrip(t, "content-location-request", where, where.XML(), ReadContentLocationRequest)

	there := ContentLocationReply{Package: "LAB00001", Version: 2, Manifest: policy.SHA256(), SiteCode: "LAB", Token: "a.b.c", Expires: noon,
		Locations: []ContentLocation{{URL: ManifestURL("gw.example:8443", "mp.example", testSource, "LAB00001", noon, noon), Server: "gw.example"}}}
	roundTrip(t, "content-location-reply", there, there.XML(), ReadContentLocationReply)

	list := MPList{{Name: "MP1", FQDN: "mp1.example", SiteCode: "LAB", Version: "9128", SSLState: 63}, {Name: "MP2", FQDN: "mp2.example", Version: "9128"}}
	roundTrip(t, "mplist", list, list.XML(), ReadMPList)

	keys := MPKeyInformation{SiteCode: "LAB", Certificate: []byte{1}, Signing: []byte{2}}
	roundTrip(t, "mpkeyinformation", keys, keys.XML(), ReadMPKeyInformation)

	states := Report{Content: ContentStateMessages, Type: "Full", Date: noon, Device: testSource, NetBIOSName: "PC1", ClientVersion: "1",
		States: []StateMessage{{Time: noon, Serial: 3, TopicID: testID, TopicType: TopicContentDeployment, StateID: StateFailed, Details: "why <not>", Params: []string{"LAB00001", "2"}}}}
	roundTrip(t, "report-state", states, states.XML(), ReadReport)
	if states.Kind() != "State Message Data" {
		t.Errorf("kind %q", states.Kind())
	}

	action := ActionDiscovery(noon)
	discovery := Report{Content: ContentInventory, Type: "Full", Date: noon, Device: testSource, NetBIOSName: "PC1", ClientVersion: "1", Action: &action,
		Instances: []ReportedInstance{{Content: "New", Namespace: `\\.\root\ccm`, ParentClass: "CCM_Client",
			Instance: Instance{Class: "CCM_Client", Properties: []Property{{Name: "ClientVersion", Value: "1 & 2"}}}}}}
	roundTrip(t, "report-discovery", discovery, discovery.XML(), ReadReport)
	if discovery.Kind() != "Discovery" {
		t.Errorf("kind %q", discovery.Kind())
	}
	if head, err := ReadReport(discovery.Head()); err != nil || head.Kind() != "Discovery" || len(head.Instances) != 0 {
		t.Errorf("head: %+v, %v", head, err)
	}
}

func TestContentDeployments(t *testing.T) {
	read := func(id, version string) ([]ContentDeployment, error) {
		return PolicyBody{Instances: []Instance{{Class: "Other"}, {Class: ClassContentDeployment, Properties: []Property{
			{Name: "packageid", Value: id}, {Name: "PackageVersion", Value: version}, {Name: "Folder", Value: "f"}}}}}.ContentDeployments()
	}
	got, err := read("lab00001", "3")
	if want := []ContentDeployment{{"LAB00001", 3, "f"}}; err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range [][2]string{{"LAB1", "3"}, {"LAB00001", ""}, {"LAB00001", "0"}, {"LAB00001", "x"}} {
		if _, err := read(bad[0], bad[1]); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%v: got %v", bad, err)
		}
	}
}

func TestReadPolicyQuery(t *testing.T) {
	digest := cmg.Policy{Body: []byte("x")}.SHA256()
	for _, c := range []struct {
		raw, id string
		digest  cmg.Digest
		bad     bool
	}{
		{raw: PolicyQuery(testID, digest), id: testID, digest: digest},
		{raw: "%7B5DD100CD-DF1D-45F5-BA17-A327F43465F8%7D.SHA256:" + digest.String(), id: testID, digest: digest},
		{raw: testID + ".sha256:" + strings.ToLower(digest.String()), id: testID, digest: digest},
		{raw: "LAB00001.1_00", id: "LAB00001"},
		{raw: "LAB00001", id: "LAB00001"},
		{raw: "", bad: true},
		{raw: ".SHA256:" + digest.String(), bad: true},
		{raw: testID + ".SHA256:00", bad: true},
		{raw: "%7", bad: true},
		{raw: "'%20OR%201=1--", bad: true},
		{raw: "ıııı.SHA256:" + digest.String(), bad: true},
		{raw: strings.Repeat("A", 513), bad: true},
	} {
		id, d, err := ReadPolicyQuery(c.raw)
		if (err != nil) != c.bad || id != c.id || d != c.digest {
			t.Errorf("%s: got %q, %s, %v", c.raw, id, d, err)
		}
	}
}

func TestContentLocationRequestRefuses(t *testing.T) {
	for text, want := range map[string]error{
		`<ContentLocationRequest><ClientPackage RequestForLatest="0"/></ContentLocationRequest>`:                                    cmg.ErrNotFound,
		`<ContentLocationRequest><Package ID="Content_5dd100cd-df1d-45f5-ba17-a327f43465f8" Version="1"/></ContentLocationRequest>`: cmg.ErrNotFound,
		`<ContentLocationRequest><Package ID="LAB00001" Version="-1"/></ContentLocationRequest>`:                                    cmg.ErrInvalid,
		`<ContentLocationRequest><Package ID="x" Version="1"/></ContentLocationRequest>`:                                            cmg.ErrInvalid,
		`<ContentLocationRequest><Package ID="LAB00001" Version="1"/><Package ID="LAB00002" Version="1"/></ContentLocationRequest>`: cmg.ErrInvalid,
		`<ContentLocationRequest/>`: cmg.ErrInvalid,
	} {
		if _, err := ReadContentLocationRequest(text); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", text, err, want)
		}
	}
}

// Programs take PolicyLocation as the first child of Policy.
func TestPolicyLocationIsFirst(t *testing.T) {
	root, err := parseXML(AssignmentReply{Assignments: []Assignment{{PolicyID: testID}}}.XML())
	if err != nil {
		t.Fatal(err)
	}
	if first := root.find("PolicyAssignment", "Policy").children[0]; first.name != "PolicyLocation" {
		t.Errorf("the first child is %s", first.name)
	}
}
