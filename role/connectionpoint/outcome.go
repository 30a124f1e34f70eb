package connectionpoint

import (
	"errors"
	"net/http"
	"os"
	"strings"

	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
)

// broken ends a stream whose request failed.
func (r *relay) broken(st *channel.Stream, c *conn, err error) error {
	if c != nil {
		c.raw.Close()
	}
	if st.Err() != nil {
		return nil // the gateway took it back: that is why
	}
	st.Abort(code(err), err.Error())
	return err
}

// closed says that a server closed its connection before a byte of its
// answer.
func closed(c *conn, err error) bool {
	var bad *h1.Error
	return c.rd.Buffered() == 0 && !errors.As(err, &bad) && !errors.Is(err, os.ErrDeadlineExceeded)
}

func code(err error) channel.Code {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return channel.CodeTimeout
	}
	return channel.CodeFailed
}

// safe says that a method has no effect (RFC 9110, section 9.2.1).
func safe(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "PROPFIND":
		return true
	}
	return false
}

// reason makes the status line of a refusal say that the inside gave it: the
// server's own words without blanks behind CMGConnector_.
func reason(res *h1.Response) {
	if res.Status < 400 {
		if len(res.Reason) == 0 {
			res.Reason = []byte(http.StatusText(res.Status))
		}
		return
	}
	words := string(res.Reason)
	if strings.TrimSpace(words) == "" {
		words = http.StatusText(res.Status)
	}
	res.Reason = append([]byte("CMGConnector_"), strings.Join(strings.Fields(words), "")...)
}
