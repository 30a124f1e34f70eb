package ccm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencmg/cmg"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var signatures = regexp.MustCompile(`[0-9A-F]{300,}`)

// transcript shows a message so that a person can read it: the frame as it
// stands, UTF-16 as text, compressed bytes decompressed, and signatures, which
// are verified elsewhere and depend on the compressor, by their length.
func transcript(t *testing.T, contentType string, raw []byte) string {
	t.Helper()
	parts, err := splitParts(raw, boundary, Limits{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	header, err := DecodeUTF16(parts[0].body)
	if err != nil {
		t.Fatal(err)
	}
	payload, note := parts[1].body, "UTF-16LE"
	if isZlib(payload) {
		if payload, err = inflate(payload, true, 1<<20); err != nil {
			t.Fatal(err)
		}
		note = "zlib of UTF-16LE"
	}
	// Two ASCII bytes, CR and LF, stand behind the NUL characters of what an
	// agent sends; as one UTF-16 unit they read U+0A0D.
	text, err := decodeUnits(payload)
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Replace(raw, parts[0].body, []byte("[UTF-16LE with mark: "+header+"]"), 1)
	out = bytes.Replace(out, parts[1].body, []byte("["+note+": "+strings.NewReplacer("\x00", "⟨NUL⟩", "\u0a0d", "⟨CRLF⟩").Replace(text)+"]"), 1)
	show := strings.NewReplacer("\r\n", "⟨CRLF⟩\n", "><", ">\n<").Replace(string(out))
	show = signatures.ReplaceAllString(show, "(hex)")
	return "Content-Type: " + contentType + "\n\n" + show + "\n"
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "written", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", file, d)
	}
}

var attachmentName = regexp.MustCompile(`Name="[0-9a-f-]{36}"`)

func TestSending(t *testing.T) {
	key, _ := device(t)
	for name, s := range map[string]Sending{
		"request-policy":       {Source: testSource, TargetEndpoint: EndpointPolicy, ReplyEndpoint: "PolicyAgent_ReplyAssignments", Body: testBody, Key: key},
		"request-registration": {TargetEndpoint: EndpointRegistration, ReplyEndpoint: "ClientRegistration", Body: "<ClientRegistrationRequest/>"},
		"request-discovery":    {Source: testSource, TargetEndpoint: EndpointDiscovery, Async: true, Body: "<Report>2</Report>", Attachments: []string{"<Report/>"}, Key: key},
	} {
		t.Run(name, func(t *testing.T) {
			s.ID, s.SourceHost, s.TargetHost, s.SentTime = testID, "PC1", "gw.example", noon
			contentType, raw, err := s.Encode()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, attachmentName.ReplaceAllString(transcript(t, contentType, raw), `Name="(guid)"`))
			m, err := ReadMessage(contentType, bytes.NewReader(raw), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if text, err := m.Text(); text != s.Body || err != nil || m.Source != s.Source || m.Async() != s.Async {
				t.Errorf("read back as %q, %v, %+v", text, err, m)
			}
			if s.Key != nil {
				if err := m.VerifySender(&key.PublicKey); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// The offsets of a discovery record follow the arithmetic of PROTOCOL 3.3.
func TestSendingAttachmentArithmetic(t *testing.T) {
	first, second := "<Report>1</Report>", "<Report>two</Report>"
	contentType, raw, err := Sending{Source: testSource, TargetEndpoint: EndpointDiscovery, Body: second, Attachments: []string{first}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	m, err := ReadMessage(contentType, bytes.NewReader(raw), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	parts, _ := splitParts(raw, boundary, Limits{}.withDefaults())
	header, _ := DecodeUTF16(parts[0].body)
	l1, l2 := 2*len(first)+4, 2*len(second)+4
	root, err := parseXML(header)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range append(root.all("Attachment"), root.find("Body")) {
		length, _ := e.attrInt("Length")
		offset, _ := e.attrInt("Offset")
		want := [][2]int{{l1 - 4, 0}, {l2 - 4, l1}, {l2 - 2, l1}}[i]
		if length != want[0] || offset != want[1] {
			t.Errorf("element %d: %d @ %d, want %d @ %d", i, length, offset, want[0], want[1])
		}
	}
	if len(m.Attachments) != 2 {
		t.Errorf("%d attachments", len(m.Attachments))
	}
}

func TestReply(t *testing.T) {
	for name, to := range map[string]*Message{
		"reply-zlib":    {ID: testID, ReplyTo: "direct:PC1:SccmMessaging", ReplyCompression: "zlib"},
		"reply-unasked": {ReplyTo: "direct:PC1:LS_ReplyLocations"},
		"reply-plain":   {ID: testID, ReplyTo: "direct:PC1:SccmMessaging", ReplyCompression: "none"},
	} {
		t.Run(name, func(t *testing.T) {
			contentType, raw, err := reply(to, `<A b="ü"/>`, testID, noon)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, transcript(t, contentType, raw))
			m, err := ReadMessage(contentType, bytes.NewReader(raw), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if text, err := m.Text(); text != `<A b="ü"/>` || err != nil {
				t.Errorf("read back as %q, %v", text, err)
			}
		})
	}
}

// The field's programs decompress the second part, decode it, and cut the
// last character off unseen.
func TestReplyAsProgramsReadIt(t *testing.T) {
	contentType, raw, err := Reply(&Message{ReplyCompression: "zlib"}, "<A/>", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if contentType != `multipart/mixed; boundary="aAbBcCdDv1234567890VxXyYzZ"` {
		t.Errorf("content type %s", contentType)
	}
	cuts := bytes.Split(raw, []byte("--"+boundary))
	if len(cuts) != 4 || len(cuts[0]) != 0 {
		t.Fatalf("%d pieces", len(cuts))
	}
	_, body, _ := bytes.Cut(cuts[2], []byte("\r\n\r\n"))
	data, err := inflate(bytes.TrimSuffix(body, []byte("\r\n")), true, 1000)
	if err != nil {
		t.Fatal(err)
	}
	text, err := decodeUnits(data)
	if err != nil || text[:len(text)-1] != "<A/>" {
		t.Errorf("programs read %q, %v", text, err)
	}
	_, empty, err := Reply(&Message{}, "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if m, err := ReadMessage(contentType, bytes.NewReader(empty), Limits{}); err != nil || len(m.Body) != 0 {
		t.Errorf("a reply without a body is read as %v, %v", m, err)
	}
}

func TestClientToken(t *testing.T) {
	key, _ := device(t)
	const id cmg.DeviceID = testSource
	value := ClientToken(id, noon)
	if want := testSource + ";2026-03-01T12:00:00Z;2"; value != want {
		t.Fatalf("got %s, want %s", value, want)
	}
	sig, err := SignText(key, value)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, value string
		now         time.Time
		want        error
	}{
		{"at once", value, noon, nil},
		{"at the end", value, noon.Add(15 * time.Minute), nil},
		{"before", value, noon.Add(-15 * time.Minute), nil},
		{"late", value, noon.Add(15*time.Minute + 1), cmg.ErrUnauthenticated},
		{"early", value, noon.Add(-15*time.Minute - 1), cmg.ErrUnauthenticated},
		{"another time", ClientToken(id, noon.Add(time.Second)), noon, cmg.ErrUnauthenticated},
		{"another device", ClientToken(cmg.NewDeviceID(), noon), noon, cmg.ErrUnauthenticated},
		{"two fields", testSource + ";2026-03-01T12:00:00Z", noon, cmg.ErrInvalid},
		{"last field", testSource + ";2026-03-01T12:00:00Z;3", noon, cmg.ErrInvalid},
		{"time", testSource + ";12:00;2", noon, cmg.ErrInvalid},
		{"id", "GUID:1;2026-03-01T12:00:00Z;2", noon, cmg.ErrInvalid},
	} {
		got, err := ReadClientToken(c.value, sig, &key.PublicKey, c.now, 15*time.Minute)
		if !errors.Is(err, c.want) || err == nil && got != id {
			t.Errorf("%s: got %q, %v", c.name, got, err)
		}
	}
}
