package site

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/opencmg/cmg"
)

// ErrDeviceBlocked tells that the device was blocked by an administrator.
var ErrDeviceBlocked = fmt.Errorf("device is blocked: %w", cmg.ErrForbidden)

const deviceColumns = `id, name, fqdn, agent, certificate, approval, proof, registered, last_seen, client_certificate, encryption, hardware`

var (
	qDevice            = query(`SELECT ` + deviceColumns + ` FROM devices WHERE id = ?`)
	qDevices           = query(`SELECT ` + deviceColumns + ` FROM devices WHERE id > ? ORDER BY id LIMIT ?`)
	qDeviceByKey       = query(`SELECT ` + deviceColumns + ` FROM devices WHERE key_id = ?`)
	qDeviceToken       = query(`SELECT registration_token FROM devices WHERE id = ?`)
	qInsertDevice      = query(`INSERT INTO devices (` + deviceColumns + `, key_id, registration_token) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`)
	qUpdateDevice      = query(`UPDATE devices SET name = ?, fqdn = ?, agent = ?, certificate = ?, key_id = ?, approval = ?, proof = ?, last_seen = ?, client_certificate = ?, encryption = ?, hardware = ?, registration_token = ? WHERE id = ?`)
	qTouchDevice       = query(`UPDATE devices SET last_seen = ? WHERE id = ? AND last_seen < ?`)
	qSetApproval       = query(`UPDATE devices SET approval = ? WHERE id = ?`)
	errOtherKey        = fmt.Errorf("the device is registered with another signing key: %w", cmg.ErrConflict)
	errOtherDevice     = fmt.Errorf("the signing key is registered by another device: %w", cmg.ErrConflict)
	errUnknownApproval = fmt.Errorf("approval is not pending, approved or blocked: %w", cmg.ErrInvalid)
)

// Register stores a device that has proven who it is and gives it back as it
// then stands, in one transaction with the use of the registration token.
//
// An empty d.ID becomes that of the device with the same signing key, or a new
// one: registering again gives the same id, also with a renewed certificate
// for the key. A set d.ID is kept; then only a certificate proof may replace
// the signing key, anything else is ErrConflict: but see [Site.RegisterNewKey].
// Registering again never lowers an approval. A blocked device is
// ErrDeviceBlocked and stays as it is. A new device that nothing proves is
// ErrTooManyWaiting where maxWaiting such wait for an administrator already.
//
// token is the id of the registration token that is spent, empty where none
// is. Its validity and uses are checked here; the errors are those of
// [Site.CheckToken] and ErrTokenSpent. A device that registers again with the
// token it registered with before does not spend another use, so that a
// registration whose answer was lost can be repeated.
func (s *Site) Register(ctx context.Context, d cmg.Device, token string) (cmg.Device, error) {
	return s.register(ctx, d, token, false)
}

// RegisterNewKey is Register for the device d.ID whose former key has signed
// for the new one: it takes the former's place whatever else proves the
// device.
func (s *Site) RegisterNewKey(ctx context.Context, d cmg.Device, token string) (cmg.Device, error) {
	return s.register(ctx, d, token, true)
}

func (s *Site) register(ctx context.Context, d cmg.Device, token string, newKey bool) (cmg.Device, error) {
	c, err := x509.ParseCertificate(d.Certificate)
	if err != nil {
		return cmg.Device{}, fmt.Errorf("register device: read signing certificate: %w (%w)", err, cmg.ErrInvalid)
	}
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	err = s.update(ctx, func(tx *tx) (err error) {
		d, err = tx.registerDevice(d, hex.EncodeToString(sum[:]), token, newKey)
		return err
	})
	if err != nil {
		return cmg.Device{}, fmt.Errorf("register device: %w", err)
	}
	return d, nil
}

// key is the SHA-256 of d's public key.
func (t *tx) registerDevice(d cmg.Device, key, token string, newKey bool) (cmg.Device, error) {
	old, err := t.registered(d, key, newKey)
	if err != nil {
		return d, err
	}
	if old != nil && old.Approval == cmg.Blocked {
		return d, ErrDeviceBlocked
	}
	spent, err := t.spend(token, old)
	if err != nil {
		return d, err
	}
	d.LastSeen = fromMicros(micros(t.now))
	if old == nil {
		if err := t.roomFor(d); err != nil {
			return d, err
		}
		if d.ID == "" {
			d.ID = cmg.NewDeviceID()
		}
		d.Registered = d.LastSeen
		err := t.exec(qInsertDevice, string(d.ID), d.Name, d.FQDN, d.Agent, d.Certificate,
			string(d.Approval), string(d.Proof), micros(d.Registered), micros(d.LastSeen), d.Thumbprint, bytesOf(d.Encryption), d.Hardware, key, spent)
		return d, errors.Join(err, t.beginPresence(d.ID), t.audit("device.register", string(d.ID), registrationDetail(d, key, token)))
	}
	d.ID, d.Registered = old.ID, old.Registered
	if old.Approval == cmg.Approved {
		d.Approval = cmg.Approved
	}
	if d.Proof == cmg.ProofNone { // nothing this time: what proved it before still did
		d.Proof = old.Proof
	}
	if d.Thumbprint == "" { // by token this time: the certificate may still be there
		d.Thumbprint = old.Thumbprint
	}
	err = t.exec(qUpdateDevice, d.Name, d.FQDN, d.Agent, d.Certificate, key,
		string(d.Approval), string(d.Proof), micros(d.LastSeen), d.Thumbprint, bytesOf(d.Encryption), d.Hardware, spent, string(d.ID))
	return d, errors.Join(err, t.audit("device.register", string(d.ID), registrationDetail(d, key, token)))
}

// registrationDetail is what the audit log keeps of a registration. The name
// is the device's own word: in quotes it cannot pass for the fields behind it.
func registrationDetail(d cmg.Device, key, token string) string {
	s := fmt.Sprintf("name=%q", d.Name) + " proof=" + string(d.Proof) + " approval=" + string(d.Approval) + " key=" + key
	if token != "" {
		s += " token=" + token
	}
	return s
}

// registered finds the device that d is, or nil for a new one.
func (t *tx) registered(d cmg.Device, key string, newKey bool) (*cmg.Device, error) {
	old, err := found(scanDevice(t.row(qDeviceByKey, key).Scan))
	if err != nil || d.ID == "" || (old != nil && old.ID == d.ID) {
		return old, err
	}
	if old != nil {
		return nil, errOtherDevice
	}
	old, err = found(scanDevice(t.row(qDevice, string(d.ID)).Scan))
	if err == nil && old != nil && d.Proof != cmg.ProofCertificate && !newKey {
		return nil, errOtherKey
	}
	return old, err
}

// spend checks the registration token and counts its use, unless old is
// registered with it already. It gives the token to keep with the device.
func (t *tx) spend(token string, old *cmg.Device) (string, error) {
	before := ""
	if old != nil {
		if err := t.row(qDeviceToken, string(old.ID)).Scan(&before); err != nil {
			return "", fault("read device", err)
		}
	}
	if token == "" {
		return before, nil
	}
	tok, err := scanToken(t.row(qToken, token).Scan)
	if err = tok.check(err, t.now); err != nil {
		return "", err
	}
	if token == before {
		return token, nil
	}
	if tok.MaxUses > 0 && tok.Uses >= tok.MaxUses {
		return "", ErrTokenSpent
	}
	return token, t.exec(qSpendToken, token)
}

// Device gives a registered device.
func (s *Site) Device(ctx context.Context, id cmg.DeviceID) (cmg.Device, error) {
	d, err := scanDevice(s.row(ctx, qDevice, string(id)).Scan)
	return d, missing("device", string(id), err)
}

// Devices lists devices by id, those after the given id (empty: from the
// first), at most limit of them (0: all).
func (s *Site) Devices(ctx context.Context, after cmg.DeviceID, limit int) ([]cmg.Device, error) {
	return list(ctx, s.read, scanDevice, qDevices, string(after), upTo(limit))
}

// Touch notes when devices were last seen, all in one transaction. Unknown
// ids are ignored, and a time before the one noted changes nothing.
func (s *Site) Touch(ctx context.Context, seen map[cmg.DeviceID]time.Time) error {
	if len(seen) == 0 {
		return nil
	}
	return s.update(ctx, func(tx *tx) error {
		for id, at := range seen {
			if err := tx.exec(qTouchDevice, micros(at), string(id), micros(at)); err != nil {
				return err
			}
		}
		return nil
	})
}

// SetApproval approves or blocks a device, or makes it pending again.
func (s *Site) SetApproval(ctx context.Context, id cmg.DeviceID, a cmg.Approval) error {
	if a != cmg.Pending && a != cmg.Approved && a != cmg.Blocked {
		return fmt.Errorf("set approval %.20q: %w", a, errUnknownApproval)
	}
	if a == cmg.Blocked {
		return s.Block(ctx, BlockDevice, string(id), "")
	}
	return s.publish(ctx, func(tx *tx) (lifted int64, err error) {
		if lifted, err = tx.changed(qUnblock, string(BlockDevice), string(id)); err != nil {
			return 0, err
		}
		n, err := tx.changed(qSetApproval, string(a), string(id))
		if err = gone("device", string(id), n, err); err != nil {
			return 0, err
		}
		if lifted > 0 {
			if err = tx.letInCertificate(string(id)); err != nil {
				return 0, err
			}
		}
		if err := tx.policyChanged(id); err != nil { // approved devices get more
			return 0, err
		}
		return lifted, tx.audit("device.approve", string(id), "approval="+string(a))
	})
}

func scanDevice(scan func(...any) error) (d cmg.Device, err error) {
	var registered, seen int64
	err = scan(&d.ID, &d.Name, &d.FQDN, &d.Agent, &d.Certificate, &d.Approval, &d.Proof, &registered, &seen, &d.Thumbprint, &d.Encryption, &d.Hardware)
	d.Registered, d.LastSeen = fromMicros(registered), fromMicros(seen)
	return d, err
}

// thumbprint is the SHA-256 of a certificate in lower-case hex.
func thumbprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
