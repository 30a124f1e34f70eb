package ccm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

var update = flag.Bool("update", false, "write the golden files anew")

func requestFile(name string) string {
	return filepath.Join("testdata", "requests", strings.NewReplacer(" ", "-", ",", "").Replace(name)+".bin")
}

// goldenRequest gives a request as it lies in testdata; with -update it is
// written there first.
func goldenRequest(t testing.TB, name string) (contentType string, raw []byte) {
	t.Helper()
	key, _ := device(t)
	contentType, raw = forms[name].write(t, key)
	if *update {
		if err := os.WriteFile(requestFile(name), raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(requestFile(name))
	if err != nil {
		t.Fatal(err)
	}
	return contentType, raw
}

func TestReadMessageForms(t *testing.T) {
	key, _ := device(t)
	for name, f := range forms {
		t.Run(name, func(t *testing.T) {
			contentType, raw := goldenRequest(t, name)
			m, err := ReadMessage(contentType, bytes.NewReader(raw), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			text, err := m.Text()
			if err != nil || text != testBody {
				t.Errorf("body %q, %v", text, err)
			}
			wantID := testID
			if f.id == "" {
				wantID = ""
			}
			if m.ID != wantID || m.TargetEndpoint != EndpointPolicy || m.ReplyCompression != "zlib" || m.SourceHost != "PC1" || m.ReplyTo != "direct:PC1:SccmMessaging" || m.Async() {
				t.Errorf("header %+v", m)
			}
			if want := cmg.DeviceID(testSource); f.source != "" && m.Source != want {
				t.Errorf("source %q, want %q", m.Source, want)
			}
			if signed := f.hooks != "none"; m.Signed() != signed {
				t.Fatalf("signed is %v", m.Signed())
			} else if signed {
				if err := m.VerifySender(&key.PublicKey); err != nil {
					t.Error(err)
				}
			} else if err := m.VerifySender(&key.PublicKey); !errors.Is(err, cmg.ErrUnauthenticated) {
				t.Errorf("an unsigned message was verified: %v", err)
			}
			if f.own {
				if len(m.Attachments) != 1 || string(m.Attachments[0].Data) != string(EncodeUTF16("<Report/>", false)) {
					t.Errorf("attachments %+v", m.Attachments)
				}
			}
			if f.attachments {
				checkAttachments(t, m)
			}
		})
	}
}

// The lengths that were measured on a sender of discovery records (PROTOCOL
// 3.3): what stands before the body is 1,674 bytes, the body begins there.
func TestMeasuredDiscovery(t *testing.T) {
	document := func(bytes int) string {
		return "<Report>" + strings.Repeat("x", bytes/2-len("<Report></Report>")) + "</Report>"
	}
	head, body := document(1670), document(6166)
	var data []byte
	for _, d := range []string{head, body} {
		data = append(append(data, withEnd(d)...), '\r', '\n')
	}
	m := new(Message)
	root, err := parseRoot(`<Msg><Attachment Type="ByteRange" Name="a" Length="1670" Offset="0"/><Attachment Length="6166" Offset="1674"/><Body Type="ByteRange" Length="6168" Offset="1674"/></Msg>`, "Msg")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.locate(root, data, false); err != nil || len(data) != 7844 {
		t.Fatalf("%d bytes: %v", len(data), err)
	}
	if text, err := m.Text(); err != nil || text != body {
		t.Errorf("body of %d bytes, %v", len(text), err)
	}
	if text, err := DecodeUTF16(m.Attachments[0].Data); err != nil || text != head {
		t.Errorf("first document of %d bytes, %v", len(text), err)
	}
}

func checkAttachments(t *testing.T, m *Message) {
	t.Helper()
	if len(m.Attachments) != 2 || m.Attachments[0].Name == "" || m.Attachments[1].Name != "" {
		t.Fatalf("attachments %+v", m.Attachments)
	}
	for i, want := range []string{"<Report/>", testBody} {
		if got, err := DecodeUTF16(m.Attachments[i].Data); err != nil || got != want {
			t.Errorf("attachment %d: %q, %v", i, got, err)
		}
	}
}

func TestVerifySenderRefuses(t *testing.T) {
	key, _ := device(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	read := func() *Message {
		contentType, raw := goldenRequest(t, "policy, ends NUL CR LF")
		m, err := ReadMessage(contentType, bytes.NewReader(raw), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, change := range map[string]func(m *Message){
		"another device": func(m *Message) { m.Source = cmg.NewDeviceID() },
		"payload":        func(m *Message) { m.payload = append(m.payload[:len(m.payload):len(m.payload)], 0) },
		"no signature":   func(m *Message) { m.Hooks.PayloadSignature = "" },
		"no source":      func(m *Message) { m.Source = "" },
	} {
		m := read()
		change(m)
		if err := m.VerifySender(&key.PublicKey); !errors.Is(err, cmg.ErrUnauthenticated) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := read().VerifySender(&other.PublicKey); !errors.Is(err, cmg.ErrUnauthenticated) {
		t.Errorf("another key: got %v", err)
	}
	m := read()
	m.Hooks.HashAlgorithm = "1.2.840.113549.1.1.5"
	if err := m.VerifySender(&key.PublicKey); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("SHA-1: got %v", err)
	}
}

func TestReadMessageRefuses(t *testing.T) {
	const contentType = `multipart/mixed; boundary=b`
	utf16 := func(s string) string { return string(EncodeUTF16(s, false)) }
	msg := func(inner string) string { return utf16("<Msg>" + inner + "</Msg>") }
	body := func(length, offset int) string {
		return `<Body Type="ByteRange" Length="` + strconv.Itoa(length) + `" Offset="` + strconv.Itoa(offset) + `"/>`
	}
	two := func(header, payload string) string {
		return "--b\r\n\r\n" + header + "\r\n--b\r\n\r\n" + payload + "\r\n--b--"
	}
	text := utf16("<A/>")
	bomb := string(deflate(make([]byte, 2<<20)))
	for _, c := range []struct {
		name, contentType, raw string
		want                   error
	}{
		{"no multipart", "text/xml", two(msg(body(8, 0)), text), cmg.ErrInvalid},
		{"no boundary", "multipart/mixed", two(msg(body(8, 0)), text), cmg.ErrInvalid},
		{"long boundary", "multipart/mixed; boundary=" + strings.Repeat("b", 71), "", cmg.ErrInvalid},
		{"empty", contentType, "", cmg.ErrInvalid},
		{"another boundary", contentType, "--c\r\n\r\nx\r\n--c--", cmg.ErrInvalid},
		{"one part", contentType, "--b\r\n\r\n" + msg(body(8, 0)) + "\r\n--b--", cmg.ErrInvalid},
		{"cut", contentType, strings.TrimSuffix(two(msg(body(8, 0)), text), "\r\n--b--"), cmg.ErrInvalid},
		{"something behind", contentType, two(msg(body(8, 0)), text) + "x", cmg.ErrInvalid},
		{"many parts", contentType, strings.Repeat("--b\r\n\r\nx\r\n", 9) + "--b--", cmg.ErrTooLarge},
		{"header not UTF-16", contentType, two("<Msg>"+body(8, 0)+"</Msg>", text), cmg.ErrInvalid},
		{"another root", contentType, two(utf16("<Message/>"), text), cmg.ErrInvalid},
		{"document type", contentType, two(utf16("<!DOCTYPE Msg><Msg>"+body(8, 0)+"</Msg>"), text), cmg.ErrInvalid},
		{"no body", contentType, two(msg(""), text), cmg.ErrInvalid},
		{"two bodies", contentType, two(msg(body(8, 0)+body(8, 0)), text), cmg.ErrInvalid},
		{"two ids", contentType, two(msg(body(8, 0)+"<ID/><id/>"), text), cmg.ErrInvalid},
		{"length 6 beyond", contentType, two(msg(body(14, 0)), text), cmg.ErrInvalid},
		{"offset beyond", contentType, two(msg(body(0, 9)), text), cmg.ErrInvalid},
		{"length negative", contentType, two(msg(body(-1, 0)), text), cmg.ErrInvalid},
		{"length huge", contentType, two(msg(body(1<<31, 0)), text), cmg.ErrInvalid},
		{"odd body", contentType, two(msg(body(7, 0)), text[:7]), cmg.ErrInvalid},
		{"id is no GUID", contentType, two(msg(body(8, 0)+"<ID>1</ID>"), text), cmg.ErrInvalid},
		{"id with the device's prefix", contentType, two(msg(body(8, 0)+"<ID>"+testSource+"</ID>"), text), cmg.ErrInvalid},
		{"source is SQL", contentType, two(msg(body(8, 0)+"<SourceID>GUID:' OR 1=1--</SourceID>"), text), cmg.ErrInvalid},
		{"source with more behind", contentType, two(msg(body(8, 0)+"<SourceID>"+testSource+"';</SourceID>"), text), cmg.ErrInvalid},
		{"long host", contentType, two(msg(body(8, 0)+"<SourceHost>"+strings.Repeat("h", 1025)+"</SourceHost>"), text), cmg.ErrInvalid},
		{"said to be compressed", contentType, two(msg(body(8, 0)+`<Hooks><Hook3 Name="zlib-compress"/></Hooks>`), text), cmg.ErrInvalid},
		{"broken compression", contentType, two(msg(body(8, 0)), bomb[:100]), cmg.ErrInvalid},
		{"compression bomb", contentType, two(msg(body(8, 0)), bomb), cmg.ErrTooLarge},
		{"bytes behind the stream", contentType, two(msg(body(8, 0)), string(deflate([]byte(text)))+"12345"), cmg.ErrInvalid},
		{"long header", contentType, two(msg(strings.Repeat(" ", 200<<10)), text), cmg.ErrTooLarge},
		{"long part header", contentType, "--b\r\nx: " + strings.Repeat("y", 9000) + "\r\n\r\n\r\n--b\r\n\r\n\r\n--b--", cmg.ErrTooLarge},
		{"base64", contentType, "--b\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n--b\r\n\r\n\r\n--b--", cmg.ErrInvalid},
		{"two different signatures", contentType, two(msg(body(8, 0)+`<Hooks><Hook Name="clientauth"><Property Name="PayloadSignature">A</Property><Property Name="PayloadSignature">B</Property></Hook></Hooks>`), text), cmg.ErrInvalid},
		{"large", contentType, two(msg(body(8, 0)), strings.Repeat("x", 2<<20)), cmg.ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := ReadMessage(c.contentType, strings.NewReader(c.raw), Limits{Message: 1 << 20, Payload: 1 << 20})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, %v", m, err)
			}
		})
	}
}

// The characters of a delimiter may stand inside compressed bytes.
func TestDelimiterInsidePayload(t *testing.T) {
	parts, err := splitParts([]byte("--b\r\n\r\nx\r\n--bc\r\n--b-\r\n--b  \r\n\r\ny\r\n--b--\r\n"), "b", Limits{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 2 || string(parts[0].body) != "x\r\n--bc\r\n--b-" || string(parts[1].body) != "y" {
		t.Errorf("got %q", parts)
	}
}

func FuzzReadMessage(f *testing.F) {
	for name := range forms {
		contentType, raw := goldenRequest(f, name)
		f.Add(contentType, raw)
	}
	f.Add("multipart/mixed; boundary=b", []byte("--b\r\n\r\n\r\n--b\r\n\r\n\r\n--b--"))
	lim := Limits{Message: 1 << 20, Payload: 1 << 20}
	f.Fuzz(func(t *testing.T, contentType string, raw []byte) {
		m, err := ReadMessage(contentType, bytes.NewReader(raw), lim)
		if err != nil {
			if !errors.Is(err, cmg.ErrInvalid) && !errors.Is(err, cmg.ErrTooLarge) {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		if len(m.Body) > 1<<20 {
			t.Fatalf("a body of %d bytes", len(m.Body))
		}
		replyType, reply, err := Reply(m, "<A/>", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		back, err := ReadMessage(replyType, bytes.NewReader(reply), Limits{})
		if err != nil {
			t.Fatalf("the reply cannot be read: %v\n%q", err, reply)
		}
		if m.ID != "" && back.CorrelationID != m.ID {
			t.Fatalf("the reply answers %q, not %q", back.CorrelationID, m.ID)
		}
	})
}
