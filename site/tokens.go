package site

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// What a token is refused for.
var (
	ErrTokenUnknown     = fmt.Errorf("token is not known: %w", cmg.ErrForbidden)
	ErrTokenBlocked     = fmt.Errorf("token is blocked: %w", cmg.ErrForbidden)
	ErrTokenNotYetValid = fmt.Errorf("token is not valid yet: %w", cmg.ErrForbidden)
	ErrTokenExpired     = fmt.Errorf("token has expired: %w", cmg.ErrForbidden)
	ErrProofUsed        = fmt.Errorf("proof was used before: %w", cmg.ErrForbidden)
	ErrTokenSpent       = fmt.Errorf("token has no use left: %w", cmg.ErrForbidden)
)

// A Token is the record of an issued token. Its text is stored nowhere.
type Token struct {
	ID        string       `json:"id"`      // the claim jti
	Kind      string       `json:"kind"`    // the claim knd: registration, device, session, content
	Device    cmg.DeviceID `json:"device"`  // to whom; empty for a registration token
	Note      string       `json:"note"`    // for people; a content token's package
	Created   time.Time    `json:"created"` // set by RecordToken
	NotBefore time.Time    `json:"not_before"`
	Expires   time.Time    `json:"expires"`
	MaxUses   int          `json:"max_uses"` // registrations it is good for; 0: any number
	Uses      int          `json:"uses"`     // registrations so far
	Blocked   bool         `json:"blocked"`
	Sources   []string     `json:"sources,omitempty"` // CIDR prefixes that may register with it; none: any address
}

const tokenColumns = `id, kind, device, note, created, not_before, expires, max_uses, uses, blocked, sources`

var (
	qToken       = query(`SELECT ` + tokenColumns + ` FROM tokens WHERE id = ?`)
	qTokens      = query(`SELECT ` + tokenColumns + ` FROM tokens WHERE kind = ? ORDER BY kind, created DESC, id DESC LIMIT ?`)
	qInsertToken = query(`INSERT INTO tokens (` + tokenColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?)`)
	qBlockToken  = query(`UPDATE tokens SET blocked = ? WHERE id = ?`)
	qSpendToken  = query(`UPDATE tokens SET uses = uses + 1 WHERE id = ?`)
	qUseProof    = query(`INSERT INTO proofs (proof, until) VALUES (?, ?) ON CONFLICT (proof) DO NOTHING`)
	qPruneProofs = query(`DELETE FROM proofs WHERE until < ?`)
	qPruneTokens = query(`DELETE FROM tokens WHERE expires < ? AND (kind <> 'device' OR expires < ?)`)
)

// RecordToken keeps the id and validity of an issued token. An id that is
// recorded already is ErrConflict.
func (s *Site) RecordToken(ctx context.Context, t Token) error {
	if err := t.valid(); err != nil {
		return err
	}
	return s.update(ctx, func(tx *tx) error { return tx.recordToken(t) })
}

// RecordTokenFor is RecordToken for a token that is given for a proof, such
// as a signed time, which is good for one use before until. A proof that was
// used already is ErrProofUsed, also after a restart and by whichever process.
// more are further tokens that are given for it.
func (s *Site) RecordTokenFor(ctx context.Context, t Token, proof string, until time.Time, more ...Token) error {
	for _, t := range append(more, t) {
		if err := t.valid(); err != nil {
			return err
		}
	}
	return s.update(ctx, func(tx *tx) error {
		if err := tx.exec(qPruneProofs, micros(tx.now)); err != nil {
			return err
		}
		n, err := tx.changed(qUseProof, proof, micros(until))
		if err != nil {
			return err
		} else if n == 0 {
			return ErrProofUsed
		}
		for _, m := range more {
			if err := tx.recordToken(m); err != nil {
				return err
			}
		}
		return tx.recordToken(t)
	})
}

// UseProof spends a proof that is good for one use before until. One that was
// used already is ErrProofUsed, also after a restart and by whichever process.
func (s *Site) UseProof(ctx context.Context, proof string, until time.Time) error {
	return s.update(ctx, func(tx *tx) error {
		if err := tx.exec(qPruneProofs, micros(tx.now)); err != nil {
			return err
		}
		n, err := tx.changed(qUseProof, proof, micros(until))
		if err == nil && n == 0 {
			err = ErrProofUsed
		}
		return err
	})
}

func (t Token) valid() error {
	if t.ID == "" || t.Kind == "" || t.Expires.IsZero() || t.MaxUses < 0 {
		return fmt.Errorf("record token %.60q: id, kind and expiry have to be set: %w", t.ID, cmg.ErrInvalid)
	}
	return nil
}

// Tokens that live for hours are not audited one by one: what lets a device
// have them is.
func (t *tx) recordToken(tok Token) error {
	err := t.exec(qInsertToken, tok.ID, tok.Kind, string(tok.Device), tok.Note, micros(t.now),
		micros(tok.NotBefore), micros(tok.Expires), tok.MaxUses, strings.Join(tok.Sources, " "))
	if err != nil || tok.Kind != "registration" && tok.Kind != "device" {
		return err
	}
	detail := "kind=" + tok.Kind + " until=" + tok.Expires.UTC().Format(time.RFC3339)
	if tok.Device != "" {
		detail += " device=" + string(tok.Device)
	}
	if tok.Kind == "registration" {
		detail += fmt.Sprintf(" max_uses=%d from=%s note=%s", tok.MaxUses, strings.Join(tok.Sources, ","), tok.Note)
	}
	return t.audit("token.issue", tok.ID, detail)
}

// Token gives the record of a token.
func (s *Site) Token(ctx context.Context, id string) (Token, error) {
	t, err := scanToken(s.row(ctx, qToken, id).Scan)
	return t, missing("token", id, err)
}

// CheckToken says why a token may not be used now: ErrTokenUnknown,
// ErrTokenBlocked, ErrTokenNotYetValid or ErrTokenExpired. It does not look
// at the uses, which only count for a new device.
func (s *Site) CheckToken(ctx context.Context, id string) error {
	t, err := scanToken(s.row(ctx, qToken, id).Scan)
	return t.check(err, s.now())
}

func (t Token) check(err error, at time.Time) error {
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return ErrTokenUnknown
	case err != nil:
		return fault("read token", err)
	case t.Blocked:
		return ErrTokenBlocked
	case at.Before(t.NotBefore):
		return ErrTokenNotYetValid
	case !at.Before(t.Expires):
		return ErrTokenExpired
	}
	return nil
}

// Tokens lists the tokens of one kind, newest first, at most limit (0: all).
func (s *Site) Tokens(ctx context.Context, kind string, limit int) ([]Token, error) {
	return list(ctx, s.read, scanToken, qTokens, kind, upTo(limit))
}

// BlockToken blocks a token, or lifts the block.
func (s *Site) BlockToken(ctx context.Context, id string, blocked bool) error {
	if blocked {
		return s.Block(ctx, BlockToken, id, "")
	}
	return s.Unblock(ctx, BlockToken, id)
}

// PruneTokens forgets tokens that expired before then, device tokens those
// that expired before devices, and blocks that have nothing left to block; it
// tells how many tokens. A device token may be renewed for a while after its
// end: forgotten earlier, a blocked one would be good for that again.
func (s *Site) PruneTokens(ctx context.Context, then, devices time.Time) (n int64, err error) {
	err = s.publish(ctx, func(tx *tx) (int64, error) {
		if n, err = tx.changed(qPruneTokens, micros(then), micros(devices)); err != nil {
			return 0, err
		}
		return tx.changed(qPruneBlocks, micros(then))
	})
	return n, err
}

func scanToken(scan func(...any) error) (t Token, err error) {
	var created, notBefore, expires int64
	var sources string
	err = scan(&t.ID, &t.Kind, &t.Device, &t.Note, &created, &notBefore, &expires, &t.MaxUses, &t.Uses, &t.Blocked, &sources)
	t.Sources = strings.Fields(sources)
	t.Created, t.NotBefore, t.Expires = fromMicros(created), fromMicros(notBefore), fromMicros(expires)
	return t, err
}

// A Certificate is one that the site issued.
type Certificate struct {
	Role        cmg.RoleKind
	Name        string // the role's name, such as gateway-1
	Certificate *x509.Certificate
	Recorded    time.Time
}

var (
	qInsertCertificate = query(`INSERT INTO certificates (thumbprint, role, name, der, not_after, recorded) VALUES (?, ?, ?, ?, ?, ?)
	ON CONFLICT (thumbprint) DO NOTHING`)
	qCertificate  = query(`SELECT role, name, der, recorded FROM certificates WHERE thumbprint = ?`)
	qCertificates = query(`SELECT role, name, der, recorded FROM certificates ORDER BY thumbprint`)
)

// RecordCertificate keeps a certificate that the site issued, so that others
// can look it up by its thumbprint. Recording it again changes nothing.
func (s *Site) RecordCertificate(ctx context.Context, role cmg.RoleKind, name string, c *x509.Certificate) error {
	return s.update(ctx, func(tx *tx) error {
		n, err := tx.changed(qInsertCertificate, thumbprint(c.Raw), string(role), name, c.Raw, micros(c.NotAfter), micros(tx.now))
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("certificate.issue", thumbprint(c.Raw), "role="+string(role)+" name="+name+" subject="+c.Subject.String())
	})
}

// CertificateByThumbprint gives an issued certificate; the thumbprint is the
// SHA-256 of its DER in lower-case hex.
func (s *Site) CertificateByThumbprint(ctx context.Context, thumbprint string) (Certificate, error) {
	c, err := scanCertificate(s.row(ctx, qCertificate, thumbprint).Scan)
	return c, missing("certificate", thumbprint, err)
}

// Certificates lists every certificate that the site issued.
func (s *Site) Certificates(ctx context.Context) ([]Certificate, error) {
	return list(ctx, s.read, scanCertificate, qCertificates)
}

func scanCertificate(scan func(...any) error) (c Certificate, err error) {
	var der []byte
	var recorded int64
	if err = scan(&c.Role, &c.Name, &der, &recorded); err != nil {
		return c, err
	}
	c.Recorded = fromMicros(recorded)
	c.Certificate, err = x509.ParseCertificate(der)
	return c, err
}
