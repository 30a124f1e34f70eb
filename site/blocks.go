package site

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// A BlockKind is what a block shuts out.
type BlockKind string

// What can be blocked.
const (
	BlockDevice      BlockKind = "device"      // value: its id
	BlockToken       BlockKind = "token"       // value: its id
	BlockCertificate BlockKind = "certificate" // value: see cmg.ParseCertificateName
	BlockTenant      BlockKind = "tenant"      // value: a directory tenant's GUID, lower case
)

// A Block shuts somebody out at every gateway.
type Block struct {
	Kind   BlockKind `json:"kind"`
	Value  string    `json:"value"`
	Reason string    `json:"reason"`
	Actor  string    `json:"actor"` // who made it
	Made   time.Time `json:"made"`
	Until  time.Time `json:"until,omitzero"` // when what is blocked ends by itself; zero: never

	former cmg.Approval // of a device, before
}

const (
	blockColumns = `kind, value, reason, actor, made, until, former`
	maxReason    = 256
)

var (
	qBlocks      = query(`SELECT ` + blockColumns + ` FROM blocks ORDER BY kind, value`)
	qBlock       = query(`SELECT ` + blockColumns + ` FROM blocks WHERE kind = ? AND value = ?`)
	qCountBlocks = query(`SELECT count(*) FROM blocks`)
	qInsertBlock = query(`INSERT INTO blocks (` + blockColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, value) DO NOTHING`)
	qUnblock     = query(`DELETE FROM blocks WHERE kind = ? AND value = ?`)
	qPruneBlocks = query(`DELETE FROM blocks WHERE until < ? AND until > 0 AND value NOT IN (SELECT id FROM tokens)`)
	qUnblockOf   = query(`DELETE FROM blocks WHERE kind = 'certificate' AND value = ? AND reason = ?`)
)

// Block shuts out what value names, as a new version of the publication. To
// block it again changes nothing. An unknown device or token is ErrNotFound;
// more than cmg.MaxBlocks are ErrTooLarge. With a device goes the TLS client
// certificate that it registered with.
func (s *Site) Block(ctx context.Context, kind BlockKind, value, reason string) error {
	value, err := kind.parse(value)
	if err != nil {
		return err
	}
	if len(reason) > maxReason {
		return fmt.Errorf("block %s: a reason of %d bytes, at most %d: %w", kind, len(reason), maxReason, cmg.ErrTooLarge)
	}
	return s.publish(ctx, func(tx *tx) (int64, error) {
		b := Block{Kind: kind, Value: value, Reason: reason}
		also, err := tx.shutOut(&b)
		if err != nil {
			return 0, err
		}
		n, err := tx.putBlock(b)
		if err != nil || n == 0 {
			return 0, err
		}
		if also != "" {
			if _, err := tx.putBlock(Block{Kind: BlockCertificate, Value: also, Reason: ofDevice(value)}); err != nil {
				return 0, err
			}
		}
		return n, tx.audit(string(kind)+".block", value, "reason="+reason)
	})
}

// parse gives a value in the form in which it is kept.
func (k BlockKind) parse(value string) (string, error) {
	switch k {
	case BlockDevice:
		id, err := cmg.ParseDeviceID(value)
		return string(id), err
	case BlockCertificate:
		return cmg.ParseCertificateName(value)
	case BlockTenant:
		id, err := cmg.ParseDeviceID(value)
		if err != nil || len(value) != 36 {
			return "", fmt.Errorf("tenant %.60q is not a GUID: %w", value, cmg.ErrInvalid)
		}
		return strings.ToLower(id.GUID()), nil
	case BlockToken:
		if value == "" || len(value) > 64 {
			return "", fmt.Errorf("token id %.80q is empty or longer than 64: %w", value, cmg.ErrInvalid)
		}
		return value, nil
	}
	return "", fmt.Errorf("block of unknown kind %.40q: %w", k, cmg.ErrInvalid)
}

// shutOut marks what is blocked in its own table and completes b; also is a
// certificate that goes with it.
func (t *tx) shutOut(b *Block) (also string, err error) {
	switch b.Kind {
	case BlockDevice:
		d, err := scanDevice(t.row(qDevice, b.Value).Scan)
		if err != nil {
			return "", missing("device", b.Value, err)
		}
		b.former = d.Approval
		return d.Thumbprint, t.exec(qSetApproval, string(cmg.Blocked), b.Value)
	case BlockToken:
		tok, err := scanToken(t.row(qToken, b.Value).Scan)
		if err != nil {
			return "", missing("token", b.Value, err)
		}
		b.Until = tok.Expires
		return "", t.exec(qBlockToken, true, b.Value)
	}
	return "", nil
}

func (t *tx) putBlock(b Block) (int64, error) {
	var n int
	if err := t.row(qCountBlocks).Scan(&n); err != nil {
		return 0, fault("count blocks", err)
	}
	if n >= cmg.MaxBlocks {
		return 0, fmt.Errorf("block %s %.80s: there are %d blocks, and more do not fit into a publication: %w", b.Kind, b.Value, n, cmg.ErrTooLarge)
	}
	return t.changed(qInsertBlock, string(b.Kind), b.Value, b.Reason, t.by, micros(t.now), micros(b.Until), string(b.former))
}

// Unblock lifts a block; there being none is ErrNotFound. A device gets back
// the approval it had.
func (s *Site) Unblock(ctx context.Context, kind BlockKind, value string) error {
	value, err := kind.parse(value)
	if err != nil {
		return err
	}
	return s.publish(ctx, func(tx *tx) (int64, error) {
		b, err := scanBlock(tx.row(qBlock, string(kind), value).Scan)
		if err != nil {
			return 0, missing("block of "+string(kind), value, err)
		}
		switch kind {
		case BlockDevice:
			err = tx.letIn(b)
		case BlockToken:
			err = tx.exec(qBlockToken, false, value)
		}
		if err != nil {
			return 0, err
		}
		n, err := tx.changed(qUnblock, string(kind), value)
		if err != nil {
			return 0, err
		}
		return n, tx.audit(string(kind)+".unblock", value, "")
	})
}

func (t *tx) letIn(b Block) error {
	if b.former != cmg.Approved {
		b.former = cmg.Pending
	}
	if err := t.exec(qSetApproval, string(b.former), b.Value); err != nil {
		return err
	}
	return t.letInCertificate(b.Value)
}

// ofDevice is the reason of a certificate's block that came with a device's.
func ofDevice(id string) string { return "of device " + id }

// letInCertificate lifts the block that came with a device's, and leaves one
// alone that an administrator made of the certificate itself.
func (t *tx) letInCertificate(device string) error {
	d, err := found(scanDevice(t.row(qDevice, device).Scan))
	if err != nil || d == nil || d.Thumbprint == "" {
		return err
	}
	return t.exec(qUnblockOf, d.Thumbprint, ofDevice(device))
}

// Blocks lists every block, by kind and value.
func (s *Site) Blocks(ctx context.Context) ([]Block, error) {
	return list(ctx, s.read, scanBlock, qBlocks)
}

func scanBlock(scan func(...any) error) (b Block, err error) {
	var made, until int64
	err = scan(&b.Kind, &b.Value, &b.Reason, &b.Actor, &made, &until, &b.former)
	b.Made, b.Until = fromMicros(made), fromMicros(until)
	return b, err
}

// published gives blocks as gateways are told of them.
func published(blocks []Block) (p cmg.Blocks) {
	for _, b := range blocks {
		switch b.Kind {
		case BlockDevice:
			p.Devices = append(p.Devices, cmg.DeviceID(b.Value))
		case BlockToken:
			p.Tokens = append(p.Tokens, b.Value)
		case BlockCertificate:
			p.Certificates = append(p.Certificates, b.Value)
		case BlockTenant:
			p.Tenants = append(p.Tenants, b.Value)
		}
	}
	return p
}
