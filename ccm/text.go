package ccm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/opencmg/cmg"
)

var (
	markLittle = []byte{0xFF, 0xFE}
	markBig    = []byte{0xFE, 0xFF}
	endOfText  = []byte{0, 0}
)

// EncodeUTF16 gives s as UTF-16LE, after a byte order mark where bom says so.
// Bytes of s that are not UTF-8 become U+FFFD.
func EncodeUTF16(s string, bom bool) []byte {
	b := make([]byte, 0, 2*len(s)+2)
	if bom {
		b = append(b, markLittle...)
	}
	for _, r := range s {
		if r1, r2 := utf16.EncodeRune(r); r1 != utf8.RuneError {
			b = binary.LittleEndian.AppendUint16(b, uint16(r1))
			b = binary.LittleEndian.AppendUint16(b, uint16(r2))
			continue
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(r))
	}
	return b
}

// DecodeUTF16 reads UTF-16LE up to its first NUL character; a byte order mark
// in front is dropped, and NUL, CR and LF bytes may follow the NUL character,
// in any number, because senders pad with them. Halves of surrogate pairs are
// refused: what DecodeUTF16 takes, EncodeUTF16 gives back byte for byte, so a
// signature over the bytes can be checked from the text.
func DecodeUTF16(b []byte) (string, error) {
	if bytes.HasPrefix(b, markBig) {
		return "", fmt.Errorf("text is big-endian UTF-16: %w", cmg.ErrInvalid)
	}
	b = bytes.TrimPrefix(b, markLittle)
	text, rest := cutText(b)
	if i := bytes.IndexFunc(rest, func(r rune) bool { return r != 0 && r != '\r' && r != '\n' }); i >= 0 {
		return "", fmt.Errorf("UTF-16 text: bytes after its end: %w", cmg.ErrInvalid)
	}
	if len(text)%2 != 0 {
		return "", fmt.Errorf("UTF-16 text: odd number of bytes, %d: %w", len(text), cmg.ErrInvalid)
	}
	return decodeUnits(text)
}

// cutText splits b at its first NUL character.
func cutText(b []byte) (text, rest []byte) {
	for i := 0; i+1 < len(b); i += 2 {
		if b[i] == 0 && b[i+1] == 0 {
			return b[:i], b[i:]
		}
	}
	return b, nil
}

func decodeUnits(b []byte) (string, error) {
	out := make([]byte, 0, len(b)/2+len(b)/8)
	for i := 0; i < len(b); i += 2 {
		r := rune(binary.LittleEndian.Uint16(b[i:]))
		if utf16.IsSurrogate(r) {
			if i+3 >= len(b) {
				return "", fmt.Errorf("UTF-16 text: half a surrogate pair at byte %d: %w", i, cmg.ErrInvalid)
			}
			if r = utf16.DecodeRune(r, rune(binary.LittleEndian.Uint16(b[i+2:]))); r == utf8.RuneError {
				return "", fmt.Errorf("UTF-16 text: half a surrogate pair at byte %d: %w", i, cmg.ErrInvalid)
			}
			i += 2
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out), nil
}

// withEnd is the form in which short texts are signed: UTF-16LE and a NUL
// character (PROTOCOL 3.4, 5).
func withEnd(s string) []byte { return append(EncodeUTF16(s, false), endOfText...) }
