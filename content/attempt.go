package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/web"
)

// maxTag bounds an ETag, in bytes.
const maxTag = 256

// strongTag gives an ETag that If-Range may carry (RFC 9110 section 13.1.5),
// or nothing.
func strongTag(s string) string {
	if len(s) > maxTag || len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return ""
	}
	if strings.ContainsFunc(s[1:len(s)-1], func(r rune) bool { return r < 0x21 || r == '"' || r == 0x7f }) {
		return ""
	}
	return s
}

var errStalled = errors.New("no byte came for too long")

// attempt asks once for what is missing, and takes what comes until the file
// has its size, nil, or an error says why it has not.
func (x *transfer) attempt(ctx context.Context) error {
	place, round, err := x.f.links.url(ctx, x.t.missing()[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(x.f.d.cfg.Stall, func() { cancel(errStalled) })
	defer stall.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return fmt.Errorf("location: %w", cmg.ErrInvalid) // not err: the URL is a secret
	}
	req.Header.Set("Accept-Encoding", "identity")
	if x.anew {
		req.Header.Set("Cache-Control", "no-cache")
	}
	if x.at > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(x.at, 10)+"-") // never a suffix: Azure fails on it
		if x.etag != "" {
			req.Header.Set("If-Range", x.etag)
		}
	}
	resp, err := x.f.d.client.Do(req)
	if err != nil {
		return reason(ctx, err)
	}
	defer resp.Body.Close()
	if err := x.heed(resp, round); err != nil {
		return err
	}
	return x.take(ctx, resp.Body, stall)
}

// reason gives err without the URL, and the standstill where that was it.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// heed makes the file ready for the answer's body, or says why there is none.
func (x *transfer) heed(resp *http.Response, round int) error {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		if x.at > 0 { // the store's file is another one by now, or it knows no ranges
			if err := x.restart(); err != nil {
				return err
			}
		}
	case code == http.StatusPartialContent:
		if err := x.heedRange(resp); err != nil {
			return err
		}
	case code == http.StatusRequestedRangeNotSatisfiable && x.at > 0:
		return errMisfit
	case code == http.StatusForbidden || code == http.StatusUnauthorized:
		return errDenied{web.ReadAnswer(resp), round}
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		after, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
		return errLater{fmt.Errorf("the store answered %d: %w", code, cmg.ErrUnavailable), time.Duration(after) * time.Second}
	case code == http.StatusNotFound || code == http.StatusGone:
		return errAbsent{fmt.Errorf("%w: %w", cmg.ErrNotFound, web.ReadAnswer(resp))}
	case code >= 400:
		return fmt.Errorf("%w: %w", cmg.ErrInvalid, web.ReadAnswer(resp))
	default:
		return fmt.Errorf("the store answered %d: %w", code, cmg.ErrInvalid)
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return fmt.Errorf("the store sent bytes encoded as %.40q: %w", e, cmg.ErrInvalid)
	}
	if n := resp.ContentLength; n >= 0 && n != x.t.size-x.at {
		return errMisfit
	}
	if x.etag == "" {
		x.etag = strongTag(resp.Header.Get("ETag"))
	}
	return nil
}

// heedRange holds a 206 against what was asked for.
func (x *transfer) heedRange(resp *http.Response) error {
	var from, to int64
	var total string
	given := resp.Header.Get("Content-Range")
	if n, err := fmt.Sscanf(given, "bytes %d-%d/%s", &from, &to, &total); n != 3 || err != nil || from != x.at || x.at == 0 {
		return fmt.Errorf("asked for bytes from %d, the store sent %.80q", x.at, given)
	}
	if total != "*" && total != strconv.FormatInt(x.t.size, 10) {
		return errMisfit
	}
	if tag := strongTag(resp.Header.Get("ETag")); tag != "" && x.etag != "" && tag != x.etag {
		if err := x.restart(); err != nil {
			return err
		}
		return errors.New("the store's file changed meanwhile")
	}
	x.f.count(func(r *Result) { r.Resumed++ })
	return nil
}

// take writes and hashes what comes.
func (x *transfer) take(ctx context.Context, body io.Reader, stall *time.Timer) error {
	buf := buffers.Get().(*[smallFile + 1]byte)
	defer buffers.Put(buf)
	for {
		if ctx.Err() != nil { // there may be much in the buffers between here and the socket
			return reason(ctx, ctx.Err())
		}
		n, err := body.Read(buf[:])
		stall.Reset(x.f.d.cfg.Stall)
		if int64(n) > x.t.size-x.at {
			return errMisfit
		}
		if n > 0 {
			if err := x.write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF && x.at == x.t.size:
			return nil // read to its end, the connection serves the next file
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return reason(ctx, err)
		}
	}
}

func (x *transfer) write(b []byte) error {
	if _, err := x.file.Write(b); err != nil {
		return errLocal{fmt.Errorf("write: %w", err)}
	}
	x.hash.Write(b)
	x.at += int64(len(b))
	x.f.count(func(r *Result) { r.Fetched += int64(len(b)) })
	x.f.tally.add(0, int64(len(b)))
	if x.at >= keepTag && !x.kept && x.etag != "" {
		x.keep()
	}
	return nil
}
