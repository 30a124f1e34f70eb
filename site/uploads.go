package site

import (
	"context"
	"fmt"
	"time"

	"github.com/opencmg/cmg"
)

// An Upload is a file that a device uploaded and that is kept whole.
type Upload struct {
	ID       string       `json:"id"` // a GUID, the name of the file on the management point's disk
	Device   cmg.DeviceID `json:"device"`
	Name     string       `json:"name"` // as the device named it
	Size     int64        `json:"size"` // bytes
	SHA256   cmg.Digest   `json:"sha256"`
	Received time.Time    `json:"received"`
}

const uploadColumns = `id, device, name, size, sha256, received`

var (
	qAddUpload       = query(`INSERT INTO uploads (` + uploadColumns + `) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`)
	qUploads         = query(`SELECT ` + uploadColumns + ` FROM uploads` + newest)
	qUploadsOfDevice = query(`SELECT ` + uploadColumns + ` FROM uploads WHERE device = ?` + newest)
	qUploadUse       = query(`SELECT coalesce(sum(size), 0) FROM uploads WHERE device = ?`)
	qOldUploads      = query(`SELECT ` + uploadColumns + ` FROM uploads WHERE received < ? ORDER BY received, id LIMIT ?`)
	qRemoveUpload    = query(`DELETE FROM uploads WHERE id = ?`)
)

// AddUpload records a file. An id that is recorded already is left as it is:
// whoever could not hear that it was, says it again. A zero Received is now.
func (s *Site) AddUpload(ctx context.Context, u Upload) error {
	if u.ID == "" || u.Device == "" {
		return fmt.Errorf("add upload: id and device have to be set: %w", cmg.ErrInvalid)
	}
	return s.update(ctx, func(tx *tx) error {
		if u.Received.IsZero() {
			u.Received = tx.now
		}
		return tx.exec(qAddUpload, u.ID, string(u.Device), u.Name, u.Size, u.SHA256.String(), micros(u.Received))
	})
}

// Uploads lists files, newest first, at most limit (0: all), of one device or,
// where it is empty, of all.
func (s *Site) Uploads(ctx context.Context, device cmg.DeviceID, limit int) ([]Upload, error) {
	if device != "" {
		return list(ctx, s.read, scanUpload, qUploadsOfDevice, string(device), upTo(limit))
	}
	return list(ctx, s.read, scanUpload, qUploads, upTo(limit))
}

// UploadedBytes is how much of a device's is kept.
func (s *Site) UploadedBytes(ctx context.Context, device cmg.DeviceID) (n int64, err error) {
	err = s.row(ctx, qUploadUse, string(device)).Scan(&n)
	return n, fault("read uploads", err)
}

// UploadsBefore lists files received before a time, oldest first, at most
// limit (0: all).
func (s *Site) UploadsBefore(ctx context.Context, at time.Time, limit int) ([]Upload, error) {
	return list(ctx, s.read, scanUpload, qOldUploads, micros(at), upTo(limit))
}

// RemoveUpload forgets a file; one that is not recorded is no error. The bytes
// are the caller's to remove.
func (s *Site) RemoveUpload(ctx context.Context, id string) error {
	return s.update(ctx, func(tx *tx) error { return tx.exec(qRemoveUpload, id) })
}

func scanUpload(scan func(...any) error) (u Upload, err error) {
	var sum string
	var received int64
	if err = scan(&u.ID, &u.Device, &u.Name, &u.Size, &sum, &received); err != nil {
		return u, err
	}
	u.Received = fromMicros(received)
	u.SHA256, err = cmg.ParseDigest(sum)
	return u, err
}
