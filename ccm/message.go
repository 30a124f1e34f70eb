package ccm

import (
	"crypto/rsa"
	"fmt"
	"io"
	"strings"

	"github.com/opencmg/cmg"
)

// Limits bounds what one message may make a reader hold. Zero fields take the
// defaults named.
type Limits struct {
	Message    int64 // bytes of the whole message as sent; 0: 8 MiB
	Payload    int64 // bytes of the payload after decompression; 0: 32 MiB
	Header     int   // bytes of the header part; 0: 256 KiB
	PartHeader int   // bytes of one part's MIME headers; 0: 8 KiB
	Parts      int   // number of parts; 0: 8
}

func (l Limits) withDefaults() Limits {
	if l.Message == 0 {
		l.Message = 8 << 20
	}
	if l.Payload == 0 {
		l.Payload = 32 << 20
	}
	if l.Header == 0 {
		l.Header = 256 << 10
	}
	if l.PartHeader == 0 {
		l.PartHeader = 8 << 10
	}
	if l.Parts == 0 {
		l.Parts = 8
	}
	return l
}

// An Attachment is a document that travels with a body (PROTOCOL 3.3).
type Attachment struct {
	Name string // may be empty
	Data []byte // UTF-16LE, without the NUL character at its end
}

// A Message is one message as it was received. Nothing in it has been proven
// before VerifySender.
type Message struct {
	ID               string       // "{GUID}" in upper case, or empty
	CorrelationID    string       // id of the message this one answers; may be anything short
	Source           cmg.DeviceID // who says to be the sender; empty before registration
	SourceHost       string
	TargetEndpoint   string // such as EndpointPolicy; route on this
	TargetHost       string // not to be relied on: some senders put a URL here
	ReplyTo          string // "direct:<host>:<endpoint>"
	ReplyMode        string // "Sync" or "ASync"
	ReplyCompression string // "zlib", "none" or empty
	SentTime         string // as sent; some senders write local time and call it UTC
	Body             []byte // UTF-16LE, without the NUL character at its end
	Attachments      []Attachment
	Hooks            Hooks

	payload []byte // second part as sent: what PayloadSignature is made over
}

// Hooks is what the header's hooks say (PROTOCOL 3.4), unproven.
type Hooks struct {
	SenderMachine     string
	PublicKey         string
	ClientIDSignature string
	PayloadSignature  string
	Capabilities      string
	HashAlgorithm     string
	Token             string // the ClientToken inside the hook, where a sender uses that form
	TokenSignature    string
	Compressed        bool // zlib-compress
}

// ReadMessage reads a request or a reply from r, of the HTTP content type
// given. It reads every form PROTOCOL 3 lists and wraps cmg.ErrInvalid or
// cmg.ErrTooLarge for anything else.
func ReadMessage(contentType string, r io.Reader, lim Limits) (*Message, error) {
	lim = lim.withDefaults()
	boundary, err := boundaryOf(contentType)
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(r, lim.Message+1))
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	if int64(len(raw)) > lim.Message {
		return nil, fmt.Errorf("read message: more than %d bytes: %w", lim.Message, cmg.ErrTooLarge)
	}
	parts, err := splitParts(raw, boundary, lim)
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	if len(parts) < 2 {
		return nil, fmt.Errorf("read message: %d parts instead of a header and a payload: %w", len(parts), cmg.ErrInvalid)
	}
	m, err := readParts(parts, lim)
	if err != nil {
		return nil, fmt.Errorf("read message: %w", err)
	}
	return m, nil
}

func readParts(parts []part, lim Limits) (*Message, error) {
	if len(parts[0].body) > lim.Header {
		return nil, fmt.Errorf("header of %d bytes: %w", len(parts[0].body), cmg.ErrTooLarge)
	}
	text, err := DecodeUTF16(parts[0].body)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	root, err := parseRoot(text, "Msg")
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	m := &Message{payload: parts[1].body}
	if err := m.readHeader(root); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	data, err := inflate(parts[1].body, m.Hooks.Compressed, lim.Payload)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	// The oldest senders name their parts as in a web form and write a Length
	// that has nothing to do with the body.
	if err := m.locate(root, data, parts[1].name != ""); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	for _, p := range parts[2:] {
		lim.Payload -= int64(len(data)) // one allowance for all parts
		if data, err = inflate(p.body, false, max(lim.Payload, 0)); err != nil {
			return nil, fmt.Errorf("attached part: %w", err)
		}
		text, _ := cutText(data)
		m.Attachments = append(m.Attachments, Attachment{Name: p.name, Data: text})
	}
	return m, nil
}

// Text gives the body as text.
func (m *Message) Text() (string, error) { return DecodeUTF16(m.Body) }

// Async says whether the sender expects nothing useful in the reply.
func (m *Message) Async() bool { return strings.EqualFold(m.ReplyMode, "ASync") }

// Signed says whether the message bears the signatures that VerifySender checks.
func (m *Message) Signed() bool {
	return m.Source != "" && m.Hooks.ClientIDSignature != "" && m.Hooks.PayloadSignature != ""
}

// VerifySender checks that the holder of pub, the key registered for
// m.Source, signed the id and the payload as it was sent. It wraps
// cmg.ErrUnauthenticated where that is not so.
//
// The signatures cover neither the rest of the header nor a time: a message
// can be sent again by whoever saw it, so endpoints have to bear repetition.
func (m *Message) VerifySender(pub *rsa.PublicKey) error {
	if !m.Signed() {
		return fmt.Errorf("verify sender %s: the message is not signed: %w", m.Source, cmg.ErrUnauthenticated)
	}
	if a := m.Hooks.HashAlgorithm; a != "" && a != HashAlgorithm {
		return fmt.Errorf("verify sender %s: hash algorithm %.60q: %w", m.Source, a, cmg.ErrInvalid)
	}
	if err := VerifyText(pub, string(m.Source), m.Hooks.ClientIDSignature); err != nil {
		return fmt.Errorf("verify sender %s: client id: %w", m.Source, err)
	}
	if err := Verify(pub, m.payload, m.Hooks.PayloadSignature); err != nil {
		return fmt.Errorf("verify sender %s: payload: %w", m.Source, err)
	}
	return nil
}
