package managementpoint

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/bits"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

// UploadConfig says what devices may upload by BITS (PROTOCOL 8). Dir holds
// two folders: sessions, and kept with a file for every upload that is whole,
// named by its id.
type UploadConfig struct {
	bits.Config
	Keep      time.Duration `json:"keep"`       // how long a file is kept that was taken; 0: 720h
	KeepBytes int64         `json:"keep_bytes"` // of one device's files that are kept; 0: 16 GiB
}

const uploadPath = "/CCM_Incoming"

// uploadLimits bounds a message that was uploaded: what is too large for
// CCM_POST comes this way.
var uploadLimits = ccm.Limits{Message: 64 << 20, Payload: 64 << 20}

// openUploads takes up the uploads of an earlier process; without a folder
// none are taken.
func (p *Point) openUploads() error {
	c := p.cfg.Uploads
	if c.Dir == "" {
		return nil
	}
	if c.Keep == 0 {
		p.cfg.Uploads.Keep = 30 * 24 * time.Hour
	}
	if c.KeepBytes == 0 {
		p.cfg.Uploads.KeepBytes = 16 << 30
	}
	if p.cfg.Uploads.Keep < time.Minute || c.KeepBytes < 0 {
		return fmt.Errorf("uploads: keep %s is less than a minute, or keep_bytes negative: %w", p.cfg.Uploads.Keep, cmg.ErrInvalid)
	}
	if err := os.MkdirAll(p.keptFile(""), 0o700); err != nil {
		return fmt.Errorf("uploads: %w", err)
	}
	b := c.Config
	b.Dir, b.Deliver, b.Log, b.Now = filepath.Join(c.Dir, "sessions"), p.takeUpload, p.cfg.Log, p.cfg.Now
	var err error
	if p.uploads, err = bits.NewServer(b); err == nil {
		p.health.Publish("uploads", func() any { return p.uploads.Status() })
	}
	return err
}

func (p *Point) keptFile(id string) string { return filepath.Join(p.cfg.Uploads.Dir, "kept", id) }

// uploadName is what follows the path: one segment, in practice a GUID.
var uploadName = regexp.MustCompile(`^[A-Za-z0-9{_-][A-Za-z0-9{}()_. -]{0,199}$`)

// upload answers BITS_POST. Sessions belong to the device that began them.
func (p *Point) upload(w http.ResponseWriter, r *http.Request) error {
	if p.uploads == nil {
		return cmg.Refuse(http.StatusNotImplemented, "CMGMP_Uploads_Off", "this management point takes no uploads", nil)
	}
	d, err := p.requester(r)
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(r.URL.Path[len(uploadPath):], "/")
	if !uploadName.MatchString(name) {
		return cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "the path names no upload, such as /CCM_Incoming/{GUID}", nil)
	}
	if strings.EqualFold(r.Header.Get(bits.HeaderPacketType), string(bits.CreateSession)) {
		n, err := p.cfg.Site.UploadedBytes(r.Context(), d.ID)
		if err != nil {
			return err
		}
		if n >= p.cfg.Uploads.KeepBytes {
			return cmg.Refuse(http.StatusForbidden, "CMGMP_Uploads_Kept", "as much is kept of this device as may be", fmt.Errorf("%d bytes", n))
		}
	}
	_, called := cmg.CallerFrom(r.Context())
	return p.uploads.Serve(w, r, bits.Sender{Owner: string(d.ID), Name: name, Inside: !called})
}

// takeUpload is what becomes of a file that is whole. A message of the sort
// that reports are is taken as if it had been posted, and is kept as reports
// are; any other file is kept as it is. It is called again where the process
// ended before the answer: both can be done twice.
func (p *Point) takeUpload(ctx context.Context, u bits.Upload) error {
	contentType, err := messageType(u.Path)
	if err != nil {
		return err
	}
	if contentType != "" {
		taken, err := p.takeMessage(ctx, u, contentType)
		if taken || err != nil {
			return err
		}
	}
	kept := p.keptFile(u.ID)
	if err := os.Rename(u.Path, kept); err != nil {
		if _, e := os.Stat(kept); e != nil {
			return fmt.Errorf("keep upload %s: %w", u.ID, err)
		}
	}
	if err := syncFolder(p.keptFile("")); err != nil {
		return fmt.Errorf("keep upload %s: %w", u.ID, err)
	}
	return p.cfg.Site.AddUpload(ctx, site.Upload{
		ID: u.ID, Device: cmg.DeviceID(u.Owner), Name: u.Name, Size: u.Size, SHA256: u.SHA256, Received: p.cfg.Now(),
	})
}

// messageType gives the content type of a file that begins as a message does,
// with its boundary; empty for any other, and where there is no file any more.
func messageType(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	defer f.Close()
	const longest = 2 + 70 + 2 // dashes, boundary (RFC 2046 section 5.1.1), line end
	line, err := bufio.NewReaderSize(f, longest).ReadSlice('\n')
	if err != nil {
		return "", nil // too long or too short: no message
	}
	boundary, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\r\n"), "--")
	if !ok || !boundaryText.MatchString(boundary) {
		return "", nil
	}
	return `multipart/mixed; boundary="` + boundary + `"`, nil
}

var boundaryText = regexp.MustCompile(`^[A-Za-z0-9'()+_,./:=?-]{1,70}$`)

// uploadable are the endpoints whose messages may come as a file: nobody waits
// for an answer to them.
var uploadable = map[string]bool{ccm.EndpointDiscovery: true, ccm.EndpointState: true}

// takeMessage takes a message that was uploaded. taken is false for what is
// none that may come this way.
func (p *Point) takeMessage(ctx context.Context, u bits.Upload, contentType string) (taken bool, err error) {
	if u.Size > uploadLimits.Message {
		return false, nil
	}
	f, err := os.Open(u.Path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	m, err := ccm.ReadMessage(contentType, f, uploadLimits)
	if errors.Is(err, cmg.ErrInvalid) || errors.Is(err, cmg.ErrTooLarge) || err == nil && !uploadable[m.TargetEndpoint] {
		p.cfg.Log.Info("upload looks like a message and is kept as a file", slog.String("upload", u.ID), slog.Any("err", err))
		return false, nil
	} else if err != nil {
		return false, err
	}
	if string(m.Source) != u.Owner {
		return false, errMismatch
	}
	text, err := m.Text()
	if err != nil {
		return false, badRequest("the message's body cannot be read", err)
	}
	p.count.request(m.TargetEndpoint)
	if _, err = talks[m.TargetEndpoint](p, ctx, m, text); err != nil {
		return false, badRequest("the message's content is not as it should be", err)
	}
	return true, nil
}

// tendUploads drops uploads that rest for too long and files that were kept
// long enough.
func (p *Point) tendUploads(ctx context.Context) error {
	if p.uploads == nil {
		return nil
	}
	err := p.uploads.Expire(ctx)
	const some = 1000
	for {
		old, e := p.cfg.Site.UploadsBefore(ctx, p.cfg.Now().Add(-p.cfg.Uploads.Keep), some)
		for _, u := range old {
			// First the bytes: a record without them is tried again.
			if e = os.Remove(p.keptFile(u.ID)); e != nil && !errors.Is(e, fs.ErrNotExist) {
				return errors.Join(err, e)
			}
			if e = p.cfg.Site.RemoveUpload(ctx, u.ID); e != nil {
				break
			}
			p.cfg.Log.Info("upload removed: kept long enough", slog.String("upload", u.ID), slog.String("device", string(u.Device)))
		}
		if e != nil || len(old) < some {
			return errors.Join(err, e)
		}
	}
}

// syncFolder makes names in a folder durable, where the system can.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" { // journals names itself
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
