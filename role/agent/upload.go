package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/bits"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/web"
)

const (
	largeReport  = 2 << 20         // characters: twice as many bytes in a message; a larger report is uploaded
	uploadPacket = 5 * time.Minute // for one packet with its answer
	uploadPiece  = 1 << 20         // bytes sent at once: what a slow link takes in that time
	uploadMark   = 200             // bytes of a kept session id, more than any has
)

// sendReport sends what is in the outbox to where it belongs. A large report
// is uploaded, unless the management point takes no uploads.
func (a *Agent) sendReport(ctx context.Context, o outgoing) error {
	s := ccm.Sending{ID: o.ID, TargetEndpoint: o.Endpoint, Async: true, Body: o.Body, Attachments: o.Before}
	if len(o.Body) > largeReport {
		err := a.uploadReport(ctx, s)
		if refusedWith(err) != http.StatusNotImplemented {
			return err
		}
	}
	_, err := a.askInSession(ctx, s)
	return err
}

// uploadReport uploads a message. It lies in the state folder until it is
// taken, with the id of its session, so that an agent that was ended goes on
// where it was.
func (a *Agent) uploadReport(ctx context.Context, s ccm.Sending) error {
	dir := filepath.Join(a.cfg.StateDir, "uploads")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("upload report: %w", err)
	}
	file := filepath.Join(dir, strings.Trim(s.ID, "{}"))
	body, err := a.spool(file, s)
	if err != nil {
		return fmt.Errorf("upload report %s: %w", s.ID, err)
	}
	source := bits.Source{
		URL: a.base() + "/CCM_Incoming/" + s.ID, Size: int64(len(body)), ReaderAt: bytes.NewReader(body), Session: mark(file),
		Begun: func(session string) error { return os.WriteFile(file+".session", []byte(session), 0o600) },
	}
	err = a.inSession(ctx, func(bearer func(context.Context) (string, error)) error {
		c := bits.Client{Do: a.packet(bearer), Fragment: uploadPiece, Tries: a.link.tries, Wait: a.link.wait, Longest: a.link.longest}
		err := uploadRefusal(c.Upload(ctx, source))
		source.Session = mark(file) // where a new token lets it go on
		return err
	})
	if err == nil || refusedWith(err) == http.StatusBadRequest || refusedWith(err) == http.StatusRequestEntityTooLarge || refusedWith(err) == http.StatusNotImplemented {
		for _, f := range []string{file + ".session", file} {
			if e := os.Remove(f); e != nil && !errors.Is(e, fs.ErrNotExist) {
				return errors.Join(err, e)
			}
		}
	}
	return err
}

// spool gives the message as it was made the first time: its bytes may not
// change under way.
func (a *Agent) spool(file string, s ccm.Sending) ([]byte, error) {
	if b, err := os.ReadFile(file); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	s.Source, s.Key = a.state.Device, a.identity.key
	s.SourceHost, s.TargetHost, s.SentTime = a.cfg.Name, a.host(), a.cfg.Now()
	_, b, err := s.Encode()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return nil, err
	}
	return b, os.Rename(file+".new", file)
}

// mark reads the session of an upload that was begun; empty where there is
// none that could be one.
func mark(file string) string {
	b, err := os.ReadFile(file + ".session")
	if err != nil || len(b) > uploadMark {
		return ""
	}
	return string(b)
}

// packet makes requests of an upload, with the proof that the prefix wants
// and the one of the device's key: a client certificate need not name it.
func (a *Agent) packet(bearer func(context.Context) (string, error)) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		ctx, cancel := context.WithTimeout(r.Context(), uploadPacket)
		defer cancel()
		if err := errors.Join(authorize(ctx, r.Header, bearer), a.sign(r.Header)); err != nil {
			return nil, err
		}
		r.Header.Set("User-Agent", ccm.UserAgent)
		r.Header.Set(web.RequestIDHeader, web.NewRequestID())
		resp, err := a.link.gateway.Do(r.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // before the time is up
		resp.Body.Close()
		resp.Body = io.NopCloser(bytes.NewReader(b))
		return resp, err
	}
}

// sign sets the CCMClient headers (PROTOCOL 5).
func (a *Agent) sign(h http.Header) error {
	id, at := string(a.state.Device), a.cfg.Now().UTC().Format(ccm.TimeLayout)
	idSignature, err := ccm.SignText(a.identity.key, id)
	if err != nil {
		return err
	}
	atSignature, err := ccm.SignText(a.identity.key, at)
	if err != nil {
		return err
	}
	h.Set(ccm.HeaderClientID, id)
	h.Set(ccm.HeaderClientIDSignature, idSignature)
	h.Set(ccm.HeaderTimestamp, at)
	h.Set(ccm.HeaderTimestampSignature, atSignature)
	return nil
}

// uploadRefusal makes of a refused upload what a refused request is.
func uploadRefusal(err error) error {
	var f *bits.Failure
	if !errors.As(err, &f) {
		return err
	}
	status := f.Status
	if f.Result == bits.ResultTooLarge {
		status = http.StatusRequestEntityTooLarge
	}
	return cmg.Refuse(status, f.Code, "the upload was refused", err)
}
