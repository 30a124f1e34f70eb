package managementpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

// AuditHeadType is the type of the signed statement about the end of a site's
// audit log.
const AuditHeadType = "cmg-audit-head+jws"

// KeepAuditHead signs h into file, in place of what is there.
func KeepAuditHead(id *auth.Identity, file string, h site.AuditHead) error {
	text, err := auth.SignStatement(id, AuditHeadType, h)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("write audit head: %w", err)
	}
	defer os.Remove(f.Name()) // after the rename there is none of that name
	_, err = f.WriteString(text + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write audit head: %w", err)
	}
	return os.Rename(f.Name(), file)
}

// keepAuditHead keeps the end of the audit log beside the database, and tells
// the log of it: whoever collects logs has it where nobody here can change it.
func (p *Point) keepAuditHead(ctx context.Context) error {
	if p.cfg.AuditHead == "" {
		return nil
	}
	h, err := p.cfg.Site.AuditHead(ctx)
	if err != nil || h.Seq == p.headKept {
		return err
	}
	if err := KeepAuditHead(p.live.Load().signing, p.cfg.AuditHead, h); err != nil {
		return err
	}
	p.headKept = h.Seq
	p.cfg.Log.Info("audit log", "entries", h.Seq, "hash", h.Hash)
	return nil
}
