package channel

import (
	"encoding/binary"
	"fmt"
)

// A frame is a header of nine bytes and a payload:
//
//	length of the payload  3 bytes, big endian
//	type                   1 byte
//	flags                  1 byte
//	stream                 4 bytes, big endian; 0 is the session itself
const frameHeader = 9

type frameType byte

const (
	frameHello     frameType = 0
	frameRequest   frameType = 1
	frameResponse  frameType = 2
	frameData      frameType = 3
	frameCredit    frameType = 4
	frameStarted   frameType = 5
	frameReset     frameType = 6
	framePing      frameType = 7
	framePong      frameType = 8
	frameGoAway    frameType = 9
	framePublish   frameType = 10
	framePublished frameType = 11
	frameBlocked   frameType = 12
	frameKeys      frameType = 13
)

// flagEnd marks the last frame of a message or of a publication.
const flagEnd = 1

// Sizes.
const (
	maxPayload     = 160 << 10 // of any frame: a head of 64 KiB, what a gateway adds to it, and a first piece of body
	maxPiece       = 64 << 10  // of body in one frame, so that one frame holds up others only for so long
	maxInline      = 16 << 10  // of body beside a head
	maxPublication = 4 << 20
	maxText        = 512 // of a reason in RESET, GOAWAY and PUBLISHED
)

type header struct {
	length int
	kind   frameType
	flags  byte
	stream uint32
}

func parseHeader(b []byte) header {
	return header{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]),
		kind:   frameType(b[3]),
		flags:  b[4],
		stream: binary.BigEndian.Uint32(b[5:]),
	}
}

func appendHeader(b []byte, length int, kind frameType, flags byte, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

// A Code says why a stream was reset.
type Code uint16

const (
	CodeCancelled   Code = 1 // the outside no longer wants the answer
	CodeRefused     Code = 2 // not handed on: the inside drains or is full
	CodeUnreachable Code = 3 // not handed on: the target cannot be reached
	CodeFailed      Code = 4 // the target failed after the request was handed on
	CodeTimeout     Code = 5 // the target did not answer in time
	CodeProtocol    Code = 6 // the peer broke this protocol
	CodeStopped     Code = 7 // the answer is complete, the rest of the request is not wanted
	CodeLost        Code = 8 // the connection ended; never on the wire
)

var codeNames = map[Code]string{CodeCancelled: "cancelled", CodeRefused: "refused", CodeUnreachable: "target unreachable",
	CodeFailed: "target failed", CodeTimeout: "target timed out", CodeProtocol: "protocol error", CodeStopped: "stopped", CodeLost: "channel lost"}

func (c Code) String() string {
	if s, ok := codeNames[c]; ok {
		return s
	}
	return fmt.Sprintf("code %d", uint16(c))
}

// A StreamError says how a stream ended before its message did.
type StreamError struct {
	Code Code
	Text string // the peer's own words, bounded, for the log
	// Untouched says that the inside certainly did not hand the request on:
	// it may be sent again whatever its method.
	Untouched bool
	// Started says that the inside told it had begun to hand the request on.
	Started bool
}

func (e *StreamError) Error() string {
	if e.Text == "" {
		return "stream: " + e.Code.String()
	}
	return "stream: " + e.Code.String() + ": " + e.Text
}

func cut(s string) string { return s[:min(len(s), maxText)] }
