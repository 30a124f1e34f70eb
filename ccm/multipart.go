package ccm

import (
	"bytes"
	"fmt"
	"mime"
	"net/textproto"
	"strings"

	"github.com/opencmg/cmg"
)

// A part is one MIME part, its body the bytes exactly as sent: a signature is
// made over them. That is why mime/multipart is not used here; it also does
// not know parts without headers, which some senders write.
type part struct {
	contentType string // lower case, without parameters; may be empty
	name        string // of a form-data disposition; may be empty
	body        []byte
}

func boundaryOf(contentType string) (string, error) {
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || !strings.HasPrefix(kind, "multipart/") {
		return "", fmt.Errorf("content type %.100q is not multipart: %w", contentType, cmg.ErrInvalid)
	}
	if b := params["boundary"]; b != "" && len(b) <= 70 {
		return b, nil
	}
	return "", fmt.Errorf("content type %.100q has no boundary of 1 to 70 characters: %w", contentType, cmg.ErrInvalid)
}

// splitParts cuts a message at its boundary (RFC 2046, 5.1.1). The line break
// in front of a delimiter belongs to it; the one after the last may be absent.
func splitParts(b []byte, boundary string, lim Limits) ([]part, error) {
	dash := []byte("--" + boundary)
	delim := append([]byte("\r\n"), dash...)
	b = bytes.TrimPrefix(b, []byte("\r\n"))
	if !bytes.HasPrefix(b, dash) {
		return nil, fmt.Errorf("multipart message does not begin with its boundary: %w", cmg.ErrInvalid)
	}
	b = b[len(dash):]
	for parts := []part(nil); ; {
		rest, last, ok := afterDelimiter(b)
		switch {
		case !ok:
			return nil, fmt.Errorf("multipart message: a delimiter without the end of its line: %w", cmg.ErrInvalid)
		case last:
			if len(bytes.Trim(rest, " \t\r\n")) > 0 {
				return nil, fmt.Errorf("multipart message: %d bytes after its end: %w", len(rest), cmg.ErrInvalid)
			}
			return parts, nil
		case len(parts) >= lim.Parts:
			return nil, fmt.Errorf("multipart message of more than %d parts: %w", lim.Parts, cmg.ErrTooLarge)
		}
		end := findDelimiter(rest, delim)
		if end < 0 {
			return nil, fmt.Errorf("multipart message ends before its last delimiter: %w", cmg.ErrInvalid)
		}
		p, err := readPart(rest[:end], lim)
		if err != nil {
			return nil, fmt.Errorf("part %d: %w", len(parts)+1, err)
		}
		parts = append(parts, p)
		b = rest[end+len(delim):]
	}
}

// findDelimiter gives where delim stands with an end of line or "--" after
// it: compressed bytes may hold the characters alone.
func findDelimiter(b, delim []byte) int {
	for from := 0; ; {
		i := bytes.Index(b[from:], delim)
		if i < 0 {
			return -1
		}
		if _, _, ok := afterDelimiter(b[from+i+len(delim):]); ok {
			return from + i
		}
		from += i + 1
	}
}

// afterDelimiter gives what follows a delimiter: "--" where it is the last,
// else blanks and a line break.
func afterDelimiter(b []byte) (rest []byte, last, ok bool) {
	if r, found := bytes.CutPrefix(b, []byte("--")); found {
		return r, true, true
	}
	rest, ok = bytes.CutPrefix(bytes.TrimLeft(b, " \t"), []byte("\r\n"))
	return rest, false, ok
}

func readPart(b []byte, lim Limits) (p part, err error) {
	if body, ok := bytes.CutPrefix(b, []byte("\r\n")); ok {
		return part{body: body}, nil
	}
	head, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok || !isHeader(head) {
		return part{body: b}, nil // without headers, and without the empty line
	}
	if len(head) > lim.PartHeader {
		return p, fmt.Errorf("headers of %d bytes: %w", len(head), cmg.ErrTooLarge)
	}
	p.body = body
	for line := range strings.SplitSeq(string(head), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		switch textproto.CanonicalMIMEHeaderKey(name) {
		case "Content-Type":
			kind, _, _ := strings.Cut(value, ";")
			p.contentType = strings.ToLower(strings.TrimSpace(kind))
		case "Content-Disposition":
			if kind, params, err := mime.ParseMediaType(value); err == nil && kind == "form-data" {
				p.name = params["name"]
			}
		case "Content-Transfer-Encoding":
			if v := strings.ToLower(strings.TrimSpace(value)); v != "binary" && v != "8bit" && v != "7bit" {
				return p, fmt.Errorf("transfer encoding %.40q: %w", v, cmg.ErrInvalid)
			}
		}
	}
	return p, nil
}

// isHeader says whether b can only be MIME headers: printable ASCII lines
// that each begin with a token and a colon. UTF-16 text and zlib streams
// never look like that.
func isHeader(b []byte) bool {
	for line := range bytes.SplitSeq(b, []byte("\r\n")) {
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 || bytes.ContainsFunc(name, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
		}) {
			return false
		}
		if bytes.ContainsFunc(value, func(r rune) bool { return (r < 0x20 && r != '\t') || r > 0x7e }) {
			return false
		}
	}
	return true
}
