package bits

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

func TestParseRange(t *testing.T) {
	for text, want := range map[string]Range{
		"bytes 0-0/1":         {0, 0, 1},
		"bytes 128-4223/4224": {128, 4223, 4224},
		"Bytes 5-9/10":        {5, 9, 10},
		"bytes  5-9/10 ":      {5, 9, 10},
		"bytes 0-9223372036854775806/9223372036854775807": {0, 1<<63 - 2, 1<<63 - 1},
	} {
		if got, err := ParseRange(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "bytes", "bytes ", "bytes 1-2", "bytes 1-2/*", "bytes */10", "bytes 2-1/10", "bytes 0-10/10", "items 0-1/2",
		"bytes -1-2/5", "bytes +0-1/2", "bytes 0-1/0x2", "bytes 0-1/2/3", "bytes 0-1-1/2", "bytes=0-1/2", "0-1/2",
		"bytes 0-9223372036854775807/9223372036854775808", "bytes 0-1/2" + strings.Repeat(" ", 100), "bytes\t0-1/2", "bytes 0 -1/2",
	} {
		if got, err := ParseRange(text); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%q: %v, %v, want ErrInvalid", text, got, err)
		}
	}
}

func packetHeader(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestReadPacket(t *testing.T) {
	guids := "{1b4a4bc6-a1e4-4e3a-9c4e-000000000000}"
	for name, test := range map[string]struct {
		header http.Header
		length int64
		want   Packet
		bad    bool
	}{
		"create":            {header: packetHeader("BITS-Packet-Type", "Create-Session", "BITS-Supported-Protocols", Protocol), want: Packet{Type: CreateSession}},
		"create, in a list": {header: packetHeader("bits-packet-type", "CREATE-SESSION", "BITS-Supported-Protocols", guids+", "+strings.ToUpper(Protocol)), want: Packet{Type: CreateSession}},
		"create, by blanks": {header: packetHeader("BITS-Packet-Type", "create-session", "BITS-Supported-Protocols", guids+" "+Protocol), want: Packet{Type: CreateSession}},
		"create, without":   {header: packetHeader("BITS-Packet-Type", "Create-Session"), bad: true},
		"create, others":    {header: packetHeader("BITS-Packet-Type", "Create-Session", "BITS-Supported-Protocols", guids), bad: true},
		"create, a body":    {header: packetHeader("BITS-Packet-Type", "Create-Session", "BITS-Supported-Protocols", Protocol), length: 1, bad: true},
		"ping":              {header: packetHeader("BITS-Packet-Type", "Ping"), want: Packet{Type: Ping}},
		"fragment": {header: packetHeader("BITS-Packet-Type", "Fragment", "BITS-Session-Id", "{x}", "Content-Range", "bytes 0-9/20"), length: 10,
			want: Packet{Type: Fragment, Session: "{x}", Range: Range{0, 9, 20}}},
		"fragment, identity": {header: packetHeader("BITS-Packet-Type", "Fragment", "BITS-Session-Id", "x", "Content-Range", "bytes 0-9/20", "Content-Encoding", "identity"), length: 10,
			want: Packet{Type: Fragment, Session: "x", Range: Range{0, 9, 20}}},
		"fragment, gzip":         {header: packetHeader("BITS-Packet-Type", "Fragment", "BITS-Session-Id", "x", "Content-Range", "bytes 0-9/20", "Content-Encoding", "gzip"), length: 10, bad: true},
		"fragment, other length": {header: packetHeader("BITS-Packet-Type", "Fragment", "BITS-Session-Id", "x", "Content-Range", "bytes 0-9/20"), length: 9, bad: true},
		"fragment, no length":    {header: packetHeader("BITS-Packet-Type", "Fragment", "BITS-Session-Id", "x", "Content-Range", "bytes 0-9/20"), length: -1, bad: true},
		"fragment, no session":   {header: packetHeader("BITS-Packet-Type", "Fragment", "Content-Range", "bytes 0-9/20"), length: 10, bad: true},
		"fragment, two ranges":   {header: packetHeader("BITS-Packet-Type", "Fragment", "BITS-Session-Id", "x", "Content-Range", "bytes 0-9/20", "Content-Range", "bytes 10-19/20"), length: 10, bad: true},
		"close":                  {header: packetHeader("BITS-Packet-Type", "Close-Session", "BITS-Session-Id", "x"), want: Packet{Type: CloseSession, Session: "x"}},
		"cancel":                 {header: packetHeader("BITS-Packet-Type", "Cancel-Session", "BITS-Session-Id", "x"), want: Packet{Type: CancelSession, Session: "x"}},
		"a long session":         {header: packetHeader("BITS-Packet-Type", "Close-Session", "BITS-Session-Id", strings.Repeat("x", 101)), bad: true},
		"nothing":                {header: packetHeader(), bad: true},
		"ack":                    {header: packetHeader("BITS-Packet-Type", "Ack"), bad: true},
		"two types":              {header: packetHeader("BITS-Packet-Type", "Ping", "BITS-Packet-Type", "Ping"), bad: true},
	} {
		got, err := ReadPacket(test.header, test.length)
		switch {
		case test.bad:
			if !errors.Is(err, cmg.ErrInvalid) {
				t.Errorf("%s: %+v, %v, want ErrInvalid", name, got, err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		default:
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
	}
}

func FuzzReadPacket(f *testing.F) {
	f.Add("Fragment", "{8E2C}", "bytes 0-9/20", "identity", Protocol, int64(10))
	f.Add("create-session", "", "", "", "{x},"+Protocol, int64(0))
	f.Add("Close-Session", "x", "bytes 18446744073709551615-0/1", "", "", int64(0))
	f.Fuzz(func(t *testing.T, kind, session, at, encoding, protocols string, length int64) {
		p, err := ReadPacket(packetHeader(HeaderPacketType, kind, HeaderSession, session, "Content-Range", at, "Content-Encoding", encoding, HeaderProtocols, protocols), length)
		if err != nil {
			if !errors.Is(err, cmg.ErrInvalid) {
				t.Fatalf("%v is not ErrInvalid", err)
			}
			return
		}
		if p.Type != Fragment {
			if length != 0 {
				t.Fatalf("%s with %d bytes was let in", p.Type, length)
			}
			return
		}
		r := p.Range
		if r.First < 0 || r.First > r.Last || r.Last >= r.Total || r.Len() != length || length <= 0 || p.Session == "" {
			t.Fatalf("%+v of %d bytes was let in", p, length)
		}
		if again, err := ParseRange(r.String()); err != nil || again != r {
			t.Fatalf("%s reads as %v, %v", r, again, err)
		}
	})
}
