package blob

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
)

// LinkedConfig says what a Linked reads.
type LinkedConfig struct {
	URL string `json:"url"` // base of the store's listener

	Key    []byte           `json:"-"` // the store's key
	Client *http.Client     `json:"-"` // nil is http.DefaultClient
	Now    func() time.Time `json:"-"` // nil is time.Now
}

// A Linked is what a gateway has of a store: it signs URLs, and reads through
// them. It cannot write, list or delete.
type Linked struct {
	sign   *signer
	client *http.Client
	now    func() time.Time
}

// NewLinked checks c and connects to nothing.
func NewLinked(c LinkedConfig) (*Linked, error) {
	if c.URL == "" || len(c.Key) == 0 {
		return nil, fmt.Errorf("linked store: no URL or no key: %w", cmg.ErrInvalid)
	}
	sign, err := newSigner(c.URL, c.Key)
	if err != nil {
		return nil, fmt.Errorf("linked store: %w", err)
	}
	l := &Linked{sign: sign, client: c.Client, now: c.Now}
	if l.client == nil {
		l.client = http.DefaultClient
	}
	if l.now == nil {
		l.now = time.Now
	}
	return l, nil
}

// SignedURL does what Store.SignedURL says.
func (l *Linked) SignedURL(_ context.Context, name string, until time.Time) (string, error) {
	return l.sign.url(name, until)
}

// ownLife is for how long Linked signs the URLs that it reads itself.
const ownLife = 5 * time.Minute

// Open does what Store.Open says. A store that cannot be reached, or that has
// trouble of its own, is ErrUnavailable; what it refused is a *cmg.Refusal with
// the store's code.
func (l *Linked) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, Info, error) {
	if offset < 0 || length < -1 {
		return nil, Info{}, fmt.Errorf("open %s: %d bytes from %d: %w", name, length, offset, cmg.ErrInvalid)
	}
	u, err := l.sign.url(name, l.now().Add(ownLife))
	if err != nil {
		return nil, Info{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, Info{}, fmt.Errorf("open %s: %w", name, err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	switch {
	case length > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case offset > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return nil, Info{}, fmt.Errorf("open %s: %w: %w", name, cmg.ErrUnavailable, withoutQuery(err))
	}
	body, i, err := l.read(resp, offset, length)
	if err != nil {
		resp.Body.Close()
		return nil, i, fmt.Errorf("open %s: %w", name, err)
	}
	return body, i, nil
}

// read makes of an answer what Open returns.
func (l *Linked) read(resp *http.Response, offset, length int64) (io.ReadCloser, Info, error) {
	i := Info{ETag: resp.Header.Get("ETag"), Size: resp.ContentLength}
	i.Modified, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	switch {
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		size, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes */")
		n, err := strconv.ParseInt(size, 10, 64)
		if !ok || err != nil || offset != n {
			return nil, i, fmt.Errorf("offset %d is past the end: %w", offset, cmg.ErrInvalid)
		}
		i.Size = n
		return part{strings.NewReader(""), resp.Body}, i, nil
	case resp.StatusCode == http.StatusPartialContent:
		var from, to int64
		if n, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &i.Size); n != 3 || err != nil || from != offset {
			return nil, i, fmt.Errorf("asked for bytes from %d, got %.80q: %w", offset, resp.Header.Get("Content-Range"), cmg.ErrUnavailable)
		}
		return resp.Body, i, nil
	case resp.StatusCode != http.StatusOK:
		return nil, i, refusalOf(resp)
	case offset > 0:
		return nil, i, fmt.Errorf("the store sent the whole instead of a range: %w", cmg.ErrUnavailable)
	case i.Size < 0:
		return nil, i, fmt.Errorf("the store did not say the size: %w", cmg.ErrUnavailable)
	case length >= 0: // 0, or the store did not heed the range
		return part{io.LimitReader(resp.Body, length), resp.Body}, i, nil
	}
	return resp.Body, i, nil
}

// refusalOf makes an error of an answer that is neither 200, 206 nor 416.
func refusalOf(resp *http.Response) error {
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return fmt.Errorf("the store answered %s: %w", resp.Status, cmg.ErrUnavailable)
	}
	code := resp.Header.Get(refusalHeader)
	if code == "" || len(code) > 100 {
		code = "CMGStore_Refused"
	}
	return cmg.Refuse(resp.StatusCode, code, "the content store answered "+strconv.Itoa(resp.StatusCode), nil)
}

// withoutQuery takes the URL out of an http.Client's error: its query opens
// the bytes to whoever reads the log.
func withoutQuery(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
