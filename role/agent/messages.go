package agent

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// base is where the management point is, seen from outside.
func (a *Agent) base() string { return a.cfg.URL + a.cfg.prefix() }

// messageURL is where messages go; those with a token have a place of their
// own (PROTOCOL 2.1).
func (a *Agent) messageURL() string {
	if a.cfg.mutual() {
		return a.base() + "/ccm_system/request"
	}
	return a.base() + "/ccm_system_tokenauth/request"
}

// host is the name in front of the gateway's port.
func (a *Agent) host() string {
	return strings.TrimPrefix(a.cfg.URL, "https://")
}

// ask sends a message and gives the text of its answer. bearer gives the
// token to show; nil shows none.
func (a *Agent) ask(ctx context.Context, s ccm.Sending, bearer func(context.Context) (string, error)) (text string, err error) {
	s.SourceHost, s.TargetHost, s.SentTime = a.cfg.Name, a.host(), a.cfg.Now()
	contentType, body, err := s.Encode()
	if err != nil {
		return "", err
	}
	err = a.link.do(ctx, call{
		method: ccm.Method, url: a.messageURL(), body: body,
		header: func(h http.Header) error {
			h.Set("Content-Type", contentType)
			h.Set("User-Agent", ccm.UserAgent)
			return authorize(ctx, h, bearer)
		},
		read: func(r *http.Response) (err error) {
			text, err = readReply(r, s.Async)
			return err
		},
	})
	if err != nil {
		return "", fmt.Errorf("ask %s: %w", s.TargetEndpoint, err)
	}
	return text, nil
}

func readReply(r *http.Response, async bool) (string, error) {
	if async {
		return "", nil
	}
	if r.ContentLength == 0 {
		// The field's management points answer so where they could not accept
		// the message yet (PROTOCOL 3.1).
		return "", fmt.Errorf("empty answer: %w", cmg.ErrUnavailable)
	}
	m, err := ccm.ReadMessage(r.Header.Get("Content-Type"), r.Body, ccm.Limits{})
	if err != nil {
		return "", err
	}
	return m.Text()
}

// authorize puts the token into the header.
func authorize(ctx context.Context, h http.Header, bearer func(context.Context) (string, error)) error {
	if bearer == nil {
		return nil
	}
	t, err := bearer(ctx)
	if err == nil && t != "" {
		h.Set("Authorization", "Bearer "+t)
	}
	return err
}

// inSession does something with the session token, and once more with a new
// one where the token was refused.
func (a *Agent) inSession(ctx context.Context, do func(bearer func(context.Context) (string, error)) error) error {
	if a.cfg.mutual() {
		return do(nil)
	}
	// The token is there before the request is built: a request for a token
	// has tries of its own.
	if _, err := a.session(ctx); err != nil {
		return err
	}
	err := do(a.session)
	if refusedWith(err) != http.StatusUnauthorized {
		return err
	}
	a.cfg.Log.Info("session token refused", "err", err)
	a.state.Session = token{}
	if _, err := a.session(ctx); err != nil {
		return err
	}
	return do(a.session)
}

// askInSession sends a signed message in the session.
func (a *Agent) askInSession(ctx context.Context, s ccm.Sending) (text string, err error) {
	s.Source, s.Key = a.state.Device, a.identity.key
	err = a.inSession(ctx, func(bearer func(context.Context) (string, error)) error {
		text, err = a.ask(ctx, s, bearer)
		return err
	})
	return text, err
}

// get fetches path under the management point's prefix in the session, at
// most limit bytes; prepare may set headers; nil sets none.
func (a *Agent) get(ctx context.Context, path string, prepare func(http.Header) error, limit int64) (b []byte, err error) {
	err = a.inSession(ctx, func(bearer func(context.Context) (string, error)) error {
		return a.link.do(ctx, call{
			method: http.MethodGet, url: a.base() + path,
			header: func(h http.Header) error {
				if prepare != nil {
					if err := prepare(h); err != nil {
						return err
					}
				}
				return authorize(ctx, h, bearer)
			},
			read: func(r *http.Response) (err error) {
				b, err = readBounded(r.Body, limit)
				return err
			},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	return b, nil
}

func readBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("answer of more than %d bytes: %w", limit, cmg.ErrTooLarge)
	}
	return b, err
}
