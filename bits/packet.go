package bits

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencmg/cmg"
)

// Method is the HTTP method of every packet.
const Method = "BITS_POST"

// Protocol is the one upload protocol there is, 1.5.
const Protocol = "{7df0354d-249b-430f-820d-3d2a9bef4931}"

// The headers of the protocol.
const (
	HeaderPacketType   = "BITS-Packet-Type"
	HeaderProtocols    = "BITS-Supported-Protocols"
	HeaderProtocol     = "BITS-Protocol"
	HeaderSession      = "BITS-Session-Id"
	HeaderReceived     = "BITS-Received-Content-Range"
	HeaderHost         = "BITS-Host-Id"
	HeaderHostFallback = "BITS-Host-Id-Fallback-Timeout"
	HeaderErrorCode    = "BITS-Error-Code" // what programs read
	HeaderError        = "BITS-Error"      // what the specification says
	HeaderErrorContext = "BITS-Error-Context"
	HeaderContentName  = "Content-Name"
)

// A PacketType is what a packet is for.
type PacketType string

// The packets. Ack is the server's only one.
const (
	CreateSession PacketType = "Create-Session"
	Ping          PacketType = "Ping"
	Fragment      PacketType = "Fragment"
	CloseSession  PacketType = "Close-Session"
	CancelSession PacketType = "Cancel-Session"
	Ack           PacketType = "Ack"
)

var packetTypes = []PacketType{CreateSession, Ping, Fragment, CloseSession, CancelSession}

const (
	maxSessionID = 100
	maxProtocols = 1024 // bytes of BITS-Supported-Protocols
	maxRange     = 100  // bytes of Content-Range
)

// A Range is the place of a fragment in its file.
type Range struct {
	First int64 // offset of the first byte
	Last  int64 // of the last
	Total int64 // size of the file
}

// Len is the number of bytes.
func (r Range) Len() int64 { return r.Last - r.First + 1 }

func (r Range) String() string { return fmt.Sprintf("bytes %d-%d/%d", r.First, r.Last, r.Total) }

// ParseRange reads a Content-Range with its total, which may not be left
// open: decimals without signs.
func ParseRange(s string) (r Range, err error) {
	bad := fmt.Errorf("content range %.100q is not bytes first-last/total: %w", s, cmg.ErrInvalid)
	if len(s) > maxRange {
		return r, bad
	}
	unit, rest, ok := strings.Cut(s, " ")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return r, bad
	}
	span, total, ok1 := strings.Cut(strings.Trim(rest, " "), "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok1 || !ok2 {
		return r, bad
	}
	for _, n := range []struct {
		text string
		into *int64
	}{{first, &r.First}, {last, &r.Last}, {total, &r.Total}} {
		if *n.into, ok = decimal(n.text); !ok {
			return Range{}, bad
		}
	}
	if r.First > r.Last || r.Last >= r.Total {
		return Range{}, bad
	}
	return r, nil
}

// decimal reads digits and nothing else.
func decimal(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// A Packet is what a client sends, without the bytes of a fragment.
type Packet struct {
	Type    PacketType
	Session string // as sent; empty in Create-Session and Ping
	Range   Range  // of a fragment
}

// ReadPacket reads the headers of a packet whose body has length bytes. Its
// error is ErrInvalid.
func ReadPacket(h http.Header, length int64) (p Packet, err error) {
	kind, err := single(h, HeaderPacketType)
	if err != nil {
		return p, err
	}
	for _, t := range packetTypes {
		if strings.EqualFold(kind, string(t)) {
			p.Type = t
		}
	}
	if p.Type == "" {
		return p, fmt.Errorf("packet type %.40q is none of %v: %w", kind, packetTypes, cmg.ErrInvalid)
	}
	if p.Type != Fragment && length != 0 {
		return p, fmt.Errorf("%s has a body: %w", p.Type, cmg.ErrInvalid)
	}
	switch p.Type {
	case CreateSession:
		return p, speaksOurs(h)
	case Ping:
		return p, nil
	}
	if p.Session, err = single(h, HeaderSession); err != nil {
		return p, err
	}
	if p.Session == "" || len(p.Session) > maxSessionID {
		return p, fmt.Errorf("session id of %d characters: %w", len(p.Session), cmg.ErrInvalid)
	}
	if p.Type != Fragment {
		return p, nil
	}
	return p, p.readRange(h, length)
}

// readRange reads where a fragment belongs.
func (p *Packet) readRange(h http.Header, length int64) error {
	encoding, err := single(h, "Content-Encoding")
	if err != nil {
		return err
	}
	if encoding != "" && !strings.EqualFold(encoding, "identity") {
		return fmt.Errorf("content encoding %.40q is not identity: %w", encoding, cmg.ErrInvalid)
	}
	text, err := single(h, "Content-Range")
	if err != nil {
		return err
	}
	if p.Range, err = ParseRange(text); err != nil {
		return err
	}
	if length != p.Range.Len() {
		return fmt.Errorf("content length %d with %s: %w", length, p.Range, cmg.ErrInvalid)
	}
	return nil
}

// single gives a header that may not stand there twice.
func single(h http.Header, name string) (string, error) {
	switch v := h.Values(name); len(v) {
	case 0:
		return "", nil
	case 1:
		return strings.TrimSpace(v[0]), nil
	}
	return "", fmt.Errorf("header %s stands twice: %w", name, cmg.ErrInvalid)
}

// speaksOurs looks for Protocol among those that a client offers.
func speaksOurs(h http.Header) error {
	text, err := single(h, HeaderProtocols)
	if err != nil {
		return err
	}
	if len(text) > maxProtocols {
		return fmt.Errorf("%d bytes of protocols: %w", len(text), cmg.ErrInvalid)
	}
	for _, p := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }) {
		if strings.EqualFold(strings.Trim(p, "{}"), strings.Trim(Protocol, "{}")) {
			return nil
		}
	}
	return fmt.Errorf("protocols %.100q do not hold %s: %w", text, Protocol, cmg.ErrInvalid)
}
