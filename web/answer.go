package web

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/opencmg/cmg"
)

// RefusalHeader holds the code of the refusal in an answer of status 400 or
// more. HTTP/2 has no reason phrase that could hold it.
const RefusalHeader = "CMG-Refusal"

// maxWhy bounds what is read of a refusal's reason, in bytes.
const maxWhy = 512

// Answer writes err as an answer: its status by cmg.StatusOf, and of a
// *cmg.Refusal the code in RefusalHeader and "code: why" as text. Of any
// other error the caller learns no more than its status. A nil err writes
// nothing.
func Answer(w http.ResponseWriter, err error) {
	if err == nil {
		return
	}
	status := statusOf(err)
	h := w.Header()
	// What the handler said of the body it did not send.
	for _, name := range []string{"Content-Length", "Content-Encoding", "Content-Range", "Etag", "Last-Modified", "Expires"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusUnauthorized && h.Get("Www-Authenticate") == "" {
		h.Set("Www-Authenticate", "Bearer") // RFC 9110 section 15.5.2 asks for one
	}
	text := strings.ToLower(http.StatusText(status))
	var r *cmg.Refusal
	if errors.As(err, &r) {
		code := codeOf(r.Code)
		h.Set(RefusalHeader, code)
		text = code + ": " + oneLine(r.Why)
	}
	w.WriteHeader(status)
	io.WriteString(w, text+"\n") // a client that is gone needs no answer
}

// statusOf also knows the one error of net/http that is the caller's doing.
func statusOf(err error) int {
	var large *http.MaxBytesError
	if status := cmg.StatusOf(err); status != http.StatusInternalServerError || !errors.As(err, &large) {
		return status
	}
	return http.StatusRequestEntityTooLarge
}

// ReadAnswer gives nil for a status below 400, else the refusal that the
// answer is: its code from RefusalHeader, or made of the status line's
// reason, its reason from a text body of which it reads at most 512 bytes. It
// leaves closing the body to the caller.
func ReadAnswer(resp *http.Response) error {
	if resp.StatusCode < http.StatusBadRequest {
		return nil
	}
	code := codeOf(resp.Header.Get(RefusalHeader))
	if code == "" {
		_, reason, _ := strings.Cut(resp.Status, " ")
		code = codeOf(reason)
	}
	if code == "" {
		code = fmt.Sprintf("HTTP_%d", resp.StatusCode)
	}
	why := ""
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && kind == "text/plain" && resp.Body != nil {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, maxWhy)) // half a reason is better than none
		why = strings.TrimPrefix(oneLine(string(b)), code+": ")
	}
	if why == "" {
		why = strings.ToLower(http.StatusText(resp.StatusCode))
	}
	return cmg.Refuse(resp.StatusCode, code, why, nil)
}

// codeOf leaves of s what a refusal's code may hold: letters, digits and
// underscores.
func codeOf(s string) string {
	const most = 100
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_':
			return r
		}
		return -1
	}, s)
}

// oneLine makes text safe for a log line, a terminal and a status line.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return strings.TrimSpace(s)
}
