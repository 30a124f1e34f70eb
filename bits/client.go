package bits

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
)

// A Client uploads files. It may be used for several uploads, one after the
// other or at once.
type Client struct {
	// Do makes a request and sets whatever proves the sender. It may be called
	// again for the same bytes. Required.
	Do func(*http.Request) (*http.Response, error)

	Fragment int64         // bytes sent at once; halved where they are too many; 0: 4 MiB
	Tries    int           // without any progress; 0: 8
	Wait     time.Duration // before the second try, doubled for each further one; 0: 500ms
	Longest  time.Duration // wait at most; 0: 20s

	Progress func(received, total int64) // what the server has; nil: not called
}

// A Source is a file to be uploaded.
type Source struct {
	URL  string // of the upload: what the server names the file by
	Name string // file name to send in Content-Name; empty: none
	Size int64  // bytes
	io.ReaderAt

	Session string                     // of an upload that was begun before; empty: a new one
	Begun   func(session string) error // told of every new session before bytes are sent, to be kept; nil: not called
}

const (
	minFragment = 4 << 10
	maxSessions = 3 // created for one upload: a server that forgets for ever is told no more
)

// Upload sends a file until the server has said that it is whole and kept. It
// goes on after cuts and where a session of before stands; a session that the
// server no longer knows begins again. It returns a *Failure for what the
// server refused for good.
func (c *Client) Upload(ctx context.Context, s Source) error {
	u := upload{c: c, s: s, session: s.Session, fragment: c.Fragment, known: s.Session == ""}
	if u.fragment <= 0 {
		u.fragment = 4 << 20
	}
	if err := u.run(ctx); err != nil {
		return fmt.Errorf("upload to %s: %w", s.URL, err)
	}
	return nil
}

// upload is one Upload under way.
type upload struct {
	c        *Client
	s        Source
	session  string
	created  int
	fragment int64
	received int64 // as the server said last
	known    bool  // received is what the server has; else it has to be asked
}

// run makes steps until the file is kept. What can pass is tried again.
func (u *upload) run(ctx context.Context) error {
	tries, wait, longest := u.c.Tries, u.c.Wait, u.c.Longest
	if tries <= 0 {
		tries = 8
	}
	if wait <= 0 {
		wait = 500 * time.Millisecond
	}
	if longest <= 0 {
		longest = 20 * time.Second
	}
	for failed := 0; ; {
		before := u.received
		done, err := u.step(ctx)
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			failed = 0
			continue
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if u.received > before {
			failed = 0
		}
		var f *Failure
		if errors.As(err, &f) {
			again, mended := u.mend(f)
			if mended {
				if failed++; failed >= 2*tries {
					return err
				}
				continue // at once
			}
			if !again {
				return err
			}
		} else if errors.Is(err, cmg.ErrInvalid) || errors.Is(err, errSource) {
			return err
		}
		u.known = u.session == "" || u.received == u.s.Size // what came of a fragment that was cut is not known
		if failed++; failed >= tries {
			return err
		}
		pause := min(wait<<min(failed-1, 20), longest)
		if pause <= 0 {
			pause = longest
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// mend changes what a failure says has to be changed. again says that the
// same may work later.
func (u *upload) mend(f *Failure) (again, mended bool) {
	switch {
	case f.Result == ResultSessionNotFound && u.created < maxSessions:
		u.session, u.received, u.known = "", 0, true
		return true, true
	case f.Status == http.StatusRequestEntityTooLarge && f.Result != ResultTooLarge && u.fragment > minFragment:
		u.fragment /= 2
		return true, true
	case f.Status == http.StatusRequestedRangeNotSatisfiable && u.known:
		return true, true // out of step: received was set to what the server wants
	}
	return f.passing() && f.Result != ResultSessionNotFound, false
}

// step sends one packet. done says that the file is kept.
func (u *upload) step(ctx context.Context) (done bool, err error) {
	switch {
	case u.session == "":
		return false, u.create(ctx)
	case !u.known:
		return false, u.ask(ctx)
	case u.received < u.s.Size:
		n := min(u.fragment, u.s.Size-u.received)
		return false, u.send(ctx, Range{u.received, u.received + n - 1, u.s.Size})
	}
	_, err = u.packet(ctx, CloseSession, nil, nil)
	return err == nil, err
}

func (u *upload) create(ctx context.Context) error {
	h, err := u.packet(ctx, CreateSession, http.Header{HeaderProtocols: {Protocol}}, nil)
	if err != nil {
		return err
	}
	id := h.Get(HeaderSession)
	if id == "" || len(id) > maxSessionID {
		return fmt.Errorf("session id of %d characters: %w", len(id), cmg.ErrInvalid)
	}
	u.created++
	u.session, u.received, u.known = id, 0, true
	if u.s.Begun != nil {
		if err := u.s.Begun(id); err != nil {
			return fmt.Errorf("keep session: %w: %w", errSource, err)
		}
	}
	return nil
}

// ask finds out how far the server is: it has all before the last byte, or
// says what it misses.
func (u *upload) ask(ctx context.Context) error {
	if u.s.Size == 0 {
		u.known = true
		return nil
	}
	last := u.s.Size - 1
	err := u.send(ctx, Range{last, last, u.s.Size})
	var f *Failure
	if errors.As(err, &f) && f.Status == http.StatusRequestedRangeNotSatisfiable && u.known {
		return nil
	}
	return err
}

var errSource = errors.New("the file cannot be read")

// send sends a fragment, and learns where the server stands.
func (u *upload) send(ctx context.Context, at Range) error {
	body := &watched{r: io.NewSectionReader(u.s.ReaderAt, at.First, at.Len())}
	header := http.Header{"Content-Range": {at.String()}}
	if u.s.Name != "" && at.First == 0 {
		header.Set(HeaderContentName, u.s.Name)
	}
	h, err := u.packet(ctx, Fragment, header, body)
	if cause := body.err.Load(); cause != nil {
		return fmt.Errorf("%w: %w", errSource, *cause)
	}
	if h == nil {
		return err
	}
	next, ok := decimal(h.Get(HeaderReceived))
	switch {
	case err != nil && !ok:
		return err
	case !ok || next > u.s.Size || err == nil && next <= at.Last:
		return fmt.Errorf("%s %.40q after %s: %w", HeaderReceived, h.Get(HeaderReceived), at, cmg.ErrInvalid)
	}
	u.received, u.known = next, true
	if u.c.Progress != nil {
		u.c.Progress(next, u.s.Size)
	}
	return err
}

// packet sends a packet and gives the headers of its answer, also where it
// refuses.
func (u *upload) packet(ctx context.Context, t PacketType, header http.Header, body *watched) (http.Header, error) {
	var r io.Reader
	if body != nil {
		r = body
	}
	req, err := http.NewRequestWithContext(ctx, Method, u.s.URL, r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, cmg.ErrInvalid)
	}
	req.TransferEncoding = []string{"identity"} // a Content-Length in any case, also of nothing
	if body != nil {
		req.ContentLength = body.r.Size()
	}
	for k, v := range header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	req.Header.Set(HeaderPacketType, string(t))
	if u.session != "" {
		req.Header.Set(HeaderSession, u.session)
	}
	resp, err := u.c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)); err != nil {
		return nil, fmt.Errorf("read answer to %s: %w", t, err)
	}
	if f := readFailure(resp); f != nil {
		return resp.Header, f
	}
	return resp.Header, nil
}

// watched remembers that the file, not the network, was at fault. The network
// may still be reading when the answer is there.
type watched struct {
	r   *io.SectionReader
	err atomic.Pointer[error]
}

func (w *watched) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	if err != nil && err != io.EOF {
		w.err.Store(&err)
	}
	return n, err
}
