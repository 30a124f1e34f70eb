package gateway

import (
	"encoding/binary"
	"fmt"
)

// Types and flags of frames (RFC 9113, section 6).
const (
	h2Data = iota
	h2Headers
	h2Priority
	h2Reset
	h2Settings
	h2Push
	h2Ping
	h2GoAway
	h2Window
	h2Continuation

	h2EndStream  = 0x1
	h2Ack        = 0x1
	h2EndHeaders = 0x4
	h2Padded     = 0x8
	h2WithPrio   = 0x20
)

// An h2Code says why a stream or a connection ends (RFC 9113, section 7).
type h2Code uint32

const (
	h2NoError h2Code = iota
	h2Protocol
	h2Internal
	h2FlowControl
	h2SettingsTimeout
	h2StreamClosed
	h2FrameSize
	h2Refused
	h2Cancel
	h2Compression
	h2Connect
	h2Calm
)

// An h2Fault ends a connection, or the stream it names.
type h2Fault struct {
	code   h2Code
	stream uint32 // 0: the connection
	why    string
}

func (e *h2Fault) Error() string { return fmt.Sprintf("http/2 error %d: %s", e.code, e.why) }

func h2Bad(code h2Code, why string) error { return &h2Fault{code: code, why: why} }

func h2BadStream(id uint32, code h2Code, why string) error {
	return &h2Fault{code: code, stream: id, why: why}
}

const (
	h2Preface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	h2FrameHeader = 9
	h2MaxFrame    = 16 << 10 // that we take, and send
	h2FirstWindow = 1<<16 - 1
	h2MaxWindow   = 1<<31 - 1
	h2MaxID       = 1<<31 - 1
)

type h2Frame struct {
	kind, flags byte
	id          uint32
	payload     []byte // valid until the next frame
}

func (f *h2Frame) has(flag byte) bool { return f.flags&flag != 0 }

// unpad takes the padding out, and gives what is left.
func (f *h2Frame) unpad() ([]byte, error) {
	p := f.payload
	if !f.has(h2Padded) {
		return p, nil
	}
	if len(p) < 1 || int(p[0]) > len(p)-1 {
		return nil, h2Bad(h2Protocol, "more padding than frame")
	}
	return p[1 : len(p)-int(p[0])], nil
}

func appendFrame(b []byte, length int, kind, flags byte, id uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(b, id)
}

// appendNumber appends a frame whose payload is one number.
func appendNumber(b []byte, kind byte, id, n uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, kind, 0, id), n)
}
