package ccm

import (
	"crypto/rsa"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// boundary is the one every known sender uses (PROTOCOL 3.1).
const boundary = "aAbBcCdDv1234567890VxXyYzZ"

const contentType = `multipart/mixed; boundary="` + boundary + `"`

// zeroGUID stands where a message answers none.
const zeroGUID = "{00000000-0000-0000-0000-000000000000}"

// A Sending is a request as an agent sends it.
type Sending struct {
	ID             string       // message id; empty: a new one
	Source         cmg.DeviceID // empty before registration
	SourceHost     string       // the sender's host name
	TargetHost     string       // the management point's name
	TargetEndpoint string       // such as EndpointPolicy
	ReplyEndpoint  string       // where the answer goes inside the client; empty: SccmMessaging
	Async          bool         // no useful reply is expected
	Body           string       // XML
	Attachments    []string     // XML documents that go before the body (PROTOCOL 3.3)
	Key            *rsa.PrivateKey
	SentTime       time.Time
}

// Encode writes the message: signed where Key is set, compressed, with a
// compressed reply asked for.
func (s Sending) Encode() (contentType string, body []byte, err error) {
	if s.ID == "" {
		s.ID = newMessageID()
	}
	if s.ReplyEndpoint == "" {
		s.ReplyEndpoint = "SccmMessaging"
	}
	root, payload := s.header()
	hooks := el("Hooks")
	if s.Key != nil {
		auth, err := s.clientAuth(payload)
		if err != nil {
			return "", nil, fmt.Errorf("write message to %s: %w", s.TargetEndpoint, err)
		}
		hooks.add(auth)
	}
	root.add(hooks.add(el("Hook3", "Name", "zlib-compress")))
	return pack(root, payload, true)
}

// header gives the header without its hooks, and the compressed payload.
func (s Sending) header() (root *element, payload []byte) {
	root = el("Msg", "ReplyCompression", "zlib", "SchemaVersion", "1.1")
	var data []byte
	for i, doc := range append(s.Attachments[:len(s.Attachments):len(s.Attachments)], s.Body) {
		offset := len(data)
		data = append(append(data, withEnd(doc)...), '\r', '\n')
		length := len(data) - offset
		if len(s.Attachments) > 0 {
			a := el("Attachment", "Length", strconv.Itoa(length-4), "Offset", strconv.Itoa(offset))
			if i < len(s.Attachments) {
				a = el("Attachment", "Type", "ByteRange", "Name", cmg.NewGUID(), "Length", strconv.Itoa(length-4), "Offset", strconv.Itoa(offset))
			}
			root.add(a)
		}
		if i == len(s.Attachments) {
			root.add(byteRangeElement(length-2, offset))
		}
	}
	reply := "Sync"
	if s.Async {
		reply = "ASync"
	}
	root.addText("CorrelationID", zeroGUID).
		addText("ID", s.ID).
		add(el("Payload", "Type", "inline")).
		addText("Priority", "0").
		addText("Protocol", "http").
		addText("ReplyMode", reply).
		addText("ReplyTo", "direct:"+s.SourceHost+":"+s.ReplyEndpoint).
		addText("SentTime", s.SentTime.UTC().Format(TimeLayout)).
		addText("SourceID", string(s.Source)).
		addText("SourceHost", s.SourceHost).
		addText("TargetAddress", "mp:"+s.TargetEndpoint).
		addText("TargetEndpoint", s.TargetEndpoint).
		addText("TargetHost", s.TargetHost).
		addText("Timeout", "60000")
	return root, deflate(data)
}

// clientAuth is the hook that proves the sender (PROTOCOL 3.4).
func (s Sending) clientAuth(payload []byte) (*element, error) {
	id, err := SignText(s.Key, string(s.Source))
	if err != nil {
		return nil, err
	}
	sig, err := Sign(s.Key, payload)
	if err != nil {
		return nil, err
	}
	hook := el("Hook2", "Name", "clientauth")
	for _, p := range [][2]string{
		{"AuthSenderMachine", s.SourceHost},
		{"PublicKey", PublicKeyBlob(&s.Key.PublicKey)},
		{"ClientIDSignature", id},
		{"PayloadSignature", sig},
		{"ClientCapabilities", "NonSSL"},
		{"HashAlgorithm", HashAlgorithm},
	} {
		e := el("Property", "Name", p[0])
		e.text = p[1]
		hook.add(e)
	}
	return hook, nil
}

// Reply writes the answer to a message, in the form its readers rely on:
// exactly two parts, and a payload of UTF-16LE without byte order mark whose
// last character is one NUL, because they cut that off unseen. The payload is
// compressed unless the request asks for "none". at is when it is sent.
func Reply(to *Message, bodyXML string, at time.Time) (contentType string, body []byte, err error) {
	return reply(to, bodyXML, newMessageID(), at)
}

func reply(to *Message, bodyXML, id string, at time.Time) (string, []byte, error) {
	data := withEnd(bodyXML)
	correlation := to.ID
	if correlation == "" {
		correlation = zeroGUID
	}
	root := el("Msg", "SchemaVersion", "1.1").
		add(byteRangeElement(len(data), 0)).
		addText("CorrelationID", correlation)
	compress := to.ReplyCompression != "none"
	hooks := el("Hooks")
	if compress {
		hooks.add(el("Hook3", "Name", "zlib-compress"))
		data = deflate(data)
	}
	root.add(hooks).
		addText("ID", id).
		add(el("Payload", "Type", "inline")).
		addText("Priority", "0").
		addText("Protocol", "http").
		addText("ReplyMode", "Sync").
		addText("SentTime", at.UTC().Format(TimeLayout)).
		addText("TargetAddress", to.ReplyTo).
		addText("TargetEndpoint", to.ReplyTo[strings.LastIndexByte(to.ReplyTo, ':')+1:])
	return pack(root, data, compress)
}

// pack puts header and payload into the two parts.
func pack(header *element, payload []byte, compressed bool) (string, []byte, error) {
	kind := "text/plain; charset=UTF-16"
	if compressed {
		kind = "application/octet-stream"
	}
	b := []byte("--" + boundary + "\r\ncontent-type: text/plain; charset=UTF-16\r\n\r\n")
	b = append(b, EncodeUTF16(header.String(), true)...)
	b = append(b, "\r\n--"+boundary+"\r\ncontent-type: "+kind+"\r\n\r\n"...)
	b = append(b, payload...)
	b = append(b, "\r\n--"+boundary+"--\r\n"...)
	return contentType, b, nil
}

func byteRangeElement(length, offset int) *element {
	return el("Body", "Type", "ByteRange", "Length", strconv.Itoa(length), "Offset", strconv.Itoa(offset))
}

func newMessageID() string { return "{" + strings.ToUpper(cmg.NewGUID()) + "}" }
