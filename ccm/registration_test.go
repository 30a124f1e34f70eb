package ccm

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencmg/cmg"
)

// prettyRegistration is a registration as some senders write it: with line
// breaks and blanks, which belong to what is signed.
func prettyRegistration(t testing.TB, key *rsa.PrivateKey, der []byte) string {
	t.Helper()
	cert := strings.ToUpper(hex.EncodeToString(der))
	data := "<Data HashAlgorithm=\"1.2.840.113549.1.1.11\" SMSID=\"\" RequestType=\"Registration\" TimeStamp=\"2026-03-01T12:00:00Z\">\r\n" +
		"  <AgentInformation AgentIdentity=\"CCMSetup.exe\" AgentVersion=\"5.00.8325.0000\" AgentType=\"0\" />\r\n" +
		"  <Certificates>\n    <Encryption Encoding=\"HexBinary\" KeyType=\"1\">" + cert + "</Encryption>\n" +
		"    <Signing Encoding=\"HexBinary\" KeyType=\"1\">\n" + cert + "\n</Signing>\n  </Certificates>\n" +
		"  <DiscoveryProperties>\n    <Property Name=\"Netbios Name\" Value=\"PÇ1\" />\n" +
		"    <Property Name=\"FQ Name\" Value=\"pc1.example\" />\n    <Property Name=\"Locale ID\" Value=\"1033\" />\n  </DiscoveryProperties>\n</Data>"
	sig, err := Sign(key, EncodeUTF16(data, false))
	if err != nil {
		t.Fatal(err)
	}
	return "<ClientRegistrationRequest>\n" + data + "\n<Signature>\n<SignatureValue>" + sig + "</SignatureValue></Signature></ClientRegistrationRequest>"
}

func TestReadRegistration(t *testing.T) {
	key, der := device(t)
	got, err := ReadRegistration(prettyRegistration(t, key, der))
	if err != nil {
		t.Fatal(err)
	}
	want := Registration{NetBIOSName: "PÇ1", FQDN: "pc1.example", AgentVersion: "5.00.8325.0000", Signing: der, Encryption: der, Time: noon}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestRegistrationRoundTrip(t *testing.T) {
	key, der := device(t)
	want := Registration{SMSID: testSource, NetBIOSName: `P<&>"1`, FQDN: "pc1", AgentVersion: "1", Signing: der, Encryption: der, Time: noon}
	text, err := want.XML(key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadRegistration(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestReadRegistrationRefuses(t *testing.T) {
	key, der := device(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := prettyRegistration(t, key, der)
	data := good[strings.Index(good, "<Data "):strings.Index(good, "<Signature>")]
	replace := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the registration does not hold %q", old)
		}
		return strings.Replace(good, old, with, 1)
	}
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"name changed", replace("PÇ1", "PC2"), cmg.ErrUnauthenticated},
		{"line break changed", replace("\">\r\n  <Agent", "\">\n  <Agent"), cmg.ErrUnauthenticated},
		{"re-serialised", replace(`"0" />`, `"0"/>`), cmg.ErrUnauthenticated},
		{"another key", prettyRegistration(t, other, der), cmg.ErrUnauthenticated},
		{"no signature", replace("<Signature>", "<Signature2>"), cmg.ErrInvalid},
		{"two Data", replace("<Signature>", data+"<Signature>"), cmg.ErrInvalid},
		{"Data within a comment in front", replace("<Data ", "<!-- <Data x='"+"' --><Data "), cmg.ErrInvalid},
		{"no attributes", "<ClientRegistrationRequest><Data/><Signature/></ClientRegistrationRequest>", cmg.ErrInvalid},
		{"SMSID", replace(`SMSID=""`, `SMSID="1"`), cmg.ErrInvalid},
		{"algorithm", replace(`HashAlgorithm="1.2.840.113549.1.1.11"`, `HashAlgorithm="x"`), cmg.ErrInvalid},
		{"certificate", replace("HexBinary\" KeyType=\"1\">\n30", "HexBinary\" KeyType=\"1\">\nZZ"), cmg.ErrInvalid},
		{"long name", replace("PÇ1", strings.Repeat("x", 257)), cmg.ErrInvalid},
		{"another root", "<A/>", cmg.ErrInvalid},
	} {
		if _, err := ReadRegistration(c.text); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestRegistrationReply(t *testing.T) {
	for _, want := range []RegistrationReply{
		{SMSID: testSource, Approval: cmg.Approved, Time: noon, DeviceToken: "a.b-c_d.e", Expires: noon},
		{SMSID: testSource, Approval: cmg.Pending, Time: noon},
	} {
		got, err := ReadRegistrationReply(want.XML())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	}
	if x := (RegistrationReply{SMSID: testSource}).XML(); !strings.Contains(x, `SMSID="GUID:`+testGUID+`"`) {
		t.Errorf("programs look for SMSID in %s", x)
	}
	for _, bad := range []string{"<A/>", "<ClientRegistrationResponse/>", `<ClientRegistrationResponse SMSID="` + testSource + `"><DeviceToken>t</DeviceToken></ClientRegistrationResponse>`} {
		if _, err := ReadRegistrationReply(bad); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

// Whatever is taken as a registration bears a signature by its own key.
func FuzzReadRegistration(f *testing.F) {
	const seed = "testdata/registration.xml"
	key, der := device(f)
	if *update {
		if err := os.WriteFile(seed, []byte(prettyRegistration(f, key, der)), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	b, err := os.ReadFile(seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(b))
	f.Add("<ClientRegistrationRequest><Data x=''></Data><Signature><SignatureValue>00</SignatureValue></Signature></ClientRegistrationRequest>")
	f.Add("<ClientRegistrationRequest></Data><Data </ClientRegistrationRequest>")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ReadRegistration(text)
		if err != nil {
			if !errors.Is(err, cmg.ErrInvalid) && !errors.Is(err, cmg.ErrUnauthenticated) {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		if _, err := SigningKey(r.Signing); err != nil {
			t.Fatal(err)
		}
		if r.SMSID != "" {
			if id, err := cmg.ParseDeviceID(string(r.SMSID)); err != nil || id != r.SMSID {
				t.Fatalf("device id %q", r.SMSID)
			}
		}
	})
}
