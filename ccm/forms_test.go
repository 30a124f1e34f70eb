package ccm

import (
	"crypto/rsa"
	"fmt"
	"strings"
	"testing"
)

// The forms in which known senders write a request, from the table of
// PROTOCOL 3.1 and the elements of 3.2. Each is a golden file under
// testdata/requests and a seed of the fuzz target.

const (
	testGUID   = "8C8E5B0E-6E3C-4D5B-9B1E-2F6A7C1D9E00"
	testID     = "{5DD100CD-DF1D-45F5-BA17-A327F43465F8}"
	testBody   = "<RequestAssignments SchemaVersion=\"1.00\"><Identification/></RequestAssignments>"
	testSource = "GUID:" + testGUID
)

// A form says in what a sender differs.
type form struct {
	compress    bool
	end         string // bytes after the body's text
	uncounted   int    // how many of them Length leaves out
	lastBreak   bool   // CR LF after the last delimiter
	partHeader  string // of the payload; "-" for none at all, without the empty line either
	id          string
	source      string
	hooks       string // "" signs with Hook2; "none" leaves hooks away; "loose" calls them otherwise
	reversed    bool   // children of Msg in reverse order
	form        bool   // parts named as in a web form, and a Length that means nothing
	length      int    // Length of such a form
	attachments bool   // two documents, as a discovery record
	own         bool   // one more document in a part of its own
}

var forms = map[string]form{
	"registration, ends NUL CR LF":    {compress: true, end: "\x00\x00\r\n", uncounted: 2, lastBreak: true, id: testID, hooks: "none"},
	"policy, ends NUL CR LF":          {compress: true, end: "\x00\x00\r\n", uncounted: 2, id: testID, source: testSource},
	"site information, ends NUL":      {compress: true, end: "\x00\x00", lastBreak: true, id: testID, source: testSource},
	"location, plain, ends NUL NUL":   {end: "\x00\x00\x00\x00", uncounted: 2, lastBreak: true, id: testID, source: testSource, hooks: "none", partHeader: "content-type: text/plain; charset=UTF-16"},
	"plain, empty part header":        {end: "\x00\x00", lastBreak: true, id: testID, hooks: "none", source: testSource},
	"plain, no part header at all":    {end: "\x00\x00", lastBreak: true, id: testID, hooks: "none", source: testSource, partHeader: "-"},
	"no NUL at all":                   {compress: true, id: testID, source: testSource},
	"NUL not counted":                 {compress: true, end: "\x00\x00", uncounted: 2, id: testID, source: testSource},
	"nothing of the end counted":      {compress: true, end: "\x00\x00\r\n", uncounted: 4, id: testID, source: testSource},
	"id without braces":               {compress: true, end: "\x00\x00", id: strings.Trim(testID, "{}"), source: testSource},
	"no id, bare lower-case source":   {compress: true, end: "\x00\x00", source: strings.ToLower(testGUID)},
	"hooks named otherwise, reversed": {compress: true, end: "\x00\x00\r\n", uncounted: 2, id: testID, source: testSource, hooks: "loose", reversed: true},
	"web form, fixed length":          {end: "\x00\x00\x00", id: testID, source: testSource, hooks: "none", form: true, length: 728},
	"discovery, plain, attachments":   {end: "\x00\x00\r\n", uncounted: 2, id: testID, source: testSource, hooks: "none", attachments: true, partHeader: "content-type: text/plain; charset=UTF-16"},
	"discovery, nothing after it":     {compress: true, end: "\x00\x00", id: testID, source: testSource, attachments: true},
	"attachment in a part of its own": {compress: true, end: "\x00\x00", lastBreak: true, id: testID, source: testSource, own: true},
	"discovery with attachments":      {compress: true, end: "\x00\x00\r\n", uncounted: 2, lastBreak: true, id: testID, source: testSource, attachments: true},
}

func (f form) write(t testing.TB, key *rsa.PrivateKey) (contentType string, raw []byte) {
	t.Helper()
	body := append(EncodeUTF16(testBody, false), f.end...)
	var before []byte
	if f.attachments {
		before = append(EncodeUTF16("<Report/>", false), f.end...)
	}
	length, payload := len(body)-f.uncounted, append(before[:len(before):len(before)], body...)
	if f.form {
		length = f.length
	}
	if f.compress {
		payload = deflate(payload)
	}
	children := []string{
		fmt.Sprintf(`<Body Type="ByteRange" Length="%d" Offset="%d"/>`, length, len(before)),
		"<CorrelationID>{00000000-0000-0000-0000-000000000000}</CorrelationID>",
		f.writeHooks(t, key, payload),
		"<ID>" + f.id + "</ID>",
		`<Payload Type="inline"/>`, "<Priority>0</Priority>", "<Protocol>http</Protocol>", "<ReplyMode>Sync</ReplyMode>",
		"<ReplyTo>direct:PC1:SccmMessaging</ReplyTo>", "<SentTime>2026-03-01T12:00:00Z</SentTime>",
		"<SourceID>" + f.source + "</SourceID>", "<SourceHost>PC1</SourceHost>",
		"<TargetAddress>mp:MP_PolicyManager</TargetAddress>", "<TargetEndpoint>MP_PolicyManager</TargetEndpoint>",
		"<TargetHost>http://mp.example:80</TargetHost>", "<Timeout>60000</Timeout>",
	}
	if f.attachments {
		children = append(children,
			fmt.Sprintf(`<Attachment Type="ByteRange" Name="%s" Length="%d" Offset="0"/>`, strings.ToLower(testGUID), len(before)-len(f.end)),
			fmt.Sprintf(`<Attachment Length="%d" Offset="%d"/>`, len(body)-len(f.end), len(before)))
	}
	if f.reversed {
		for i, j := 0, len(children)-1; i < j; i, j = i+1, j-1 {
			children[i], children[j] = children[j], children[i]
		}
	}
	header := `<Msg ReplyCompression="zlib" SchemaVersion="1.1">` + strings.Join(children, "") + "</Msg>"
	return f.frame(EncodeUTF16(header, true), payload)
}

func (f form) writeHooks(t testing.TB, key *rsa.PrivateKey, payload []byte) string {
	if f.hooks == "none" {
		if f.compress {
			return `<Hooks><Hook3 Name="zlib-compress"/></Hooks>`
		}
		return "<Hooks/>"
	}
	id, err := SignText(key, testSource)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := Sign(key, payload)
	if err != nil {
		t.Fatal(err)
	}
	auth, zlib, capabilities := "Hook2", "Hook3", "ClientCapabilities"
	if f.hooks == "loose" {
		auth, zlib, capabilities = "Hook", "Hook2", "ClientCapability"
		id, sig = strings.ToLower(id), strings.ToLower(sig)
	}
	property := func(name, value string) string { return `<Property Name="` + name + `">` + value + "</Property>" }
	return "<Hooks><" + auth + ` Name="clientauth">` + property("AuthSenderMachine", "PC1") + property("PublicKey", PublicKeyBlob(&key.PublicKey)) +
		property("ClientIDSignature", id) + property("PayloadSignature", sig) + property(capabilities, "NonSSL") +
		property("HashAlgorithm", HashAlgorithm) + "</" + auth + "><" + zlib + ` Name="zlib-compress"/></Hooks>`
}

func (f form) frame(header, payload []byte) (string, []byte) {
	const line = "--aAbBcCdDv1234567890VxXyYzZ"
	kind, headOfHeader := "multipart/mixed", "content-type: text/plain; charset=UTF-16\r\n"
	head := f.partHeader + "\r\n"
	switch {
	case f.form:
		kind, headOfHeader = "multipart/form-data", `Content-Disposition: form-data; name="Msg"`+"\r\n"+headOfHeader
		head = `Content-Disposition: form-data; name="RequestAssignments"` + "\r\n"
	case f.compress:
		head = "content-type: application/octet-stream\r\n"
	case f.partHeader == "":
		head = ""
	}
	head += "\r\n"
	if f.partHeader == "-" {
		head = ""
	}
	own := ""
	if f.own {
		own = line + "\r\ncontent-type: text/plain; charset=UTF-16\r\n\r\n" + string(EncodeUTF16("<Report/>", false)) + "\x00\x00\r\n"
	}
	raw := line + "\r\n" + headOfHeader + "\r\n" + string(header) + "\r\n" + line + "\r\n" + head + string(payload) + "\r\n" + own + line + "--"
	if f.lastBreak {
		raw += "\r\n"
	}
	return kind + `; boundary="aAbBcCdDv1234567890VxXyYzZ"`, []byte(raw)
}
