package ccm

import (
	"bytes"
	"errors"
	"testing"

	"github.com/opencmg/cmg"
)

func TestEncodeUTF16(t *testing.T) {
	for _, c := range []struct {
		name, text string
		bom        bool
		want       string
	}{
		{"plain", "Ab", false, "A\x00b\x00"},
		{"mark", "A", true, "\xff\xfeA\x00"},
		{"beyond the first plane", "😀", false, "\x3d\xd8\x00\xde"},
		{"not UTF-8", "\xff", false, "\xfd\xff"},
		{"empty", "", false, ""},
	} {
		if got := EncodeUTF16(c.text, c.bom); string(got) != c.want {
			t.Errorf("%s: got % x, want % x", c.name, got, c.want)
		}
	}
}

func TestDecodeUTF16(t *testing.T) {
	for _, c := range []struct {
		name, bytes, want string
		bad               bool
	}{
		{name: "plain", bytes: "A\x00b\x00", want: "Ab"},
		{name: "mark", bytes: "\xff\xfeA\x00", want: "A"},
		{name: "mark and nothing", bytes: "\xff\xfe"},
		{name: "NUL", bytes: "A\x00\x00\x00", want: "A"},
		{name: "NUL CR LF", bytes: "A\x00\x00\x00\r\n", want: "A"},
		{name: "NUL NUL", bytes: "A\x00\x00\x00\x00\x00", want: "A"},
		{name: "three zero bytes", bytes: "A\x00\x00\x00\x00", want: "A"},
		{name: "pair", bytes: "\x3d\xd8\x00\xde", want: "😀"},
		{name: "first half", bytes: "\x3d\xd8A\x00", bad: true},
		{name: "first half at the end", bytes: "\x3d\xd8", bad: true},
		{name: "second half", bytes: "\x00\xdeA\x00", bad: true},
		{name: "odd", bytes: "A\x00b", bad: true},
		{name: "big endian", bytes: "\xfe\xff\x00A", bad: true},
		{name: "something behind the end", bytes: "A\x00\x00\x00b\x00", bad: true},
	} {
		got, err := DecodeUTF16([]byte(c.bytes))
		if got != c.want || (err != nil) != c.bad || err != nil && !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: got %q, %v", c.name, got, err)
		}
	}
}

// What is decoded can be encoded again byte for byte: registrations are
// verified that way.
func FuzzDecodeUTF16(f *testing.F) {
	for _, s := range []string{"", "A\x00", "\xff\xfeA\x00", "A\x00\x00\x00\r\n", "\x3d\xd8\x00\xde", "\xfe\xff\x00A", "\xfd\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeUTF16(b)
		if err != nil {
			return
		}
		again := EncodeUTF16(s, false)
		if !bytes.HasPrefix(bytes.TrimPrefix(b, markLittle), again) {
			t.Fatalf("% x was read as %q, which is written % x", b, s, again)
		}
	})
}
