package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/role/managementpoint"
	"github.com/opencmg/cmg/site"
)

func auditCommand(a *app) *cobra.Command {
	return group("audit", "See who changed what, and whether that log is whole",
		"Every change of a site, by a command or by a role, is an entry in its audit\nlog, written in the same transaction. Each entry's hash covers the one before.",
		auditListCommand(a), auditVerifyCommand(a))
}

func auditListCommand(a *app) *cobra.Command {
	var asJSON bool
	var limit int
	c := &cobra.Command{Use: "list", Short: "List the newest entries", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.Flags().IntVar(&limit, "limit", 100, "how many; 0: all")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		entries, err := db.Audit(ctx, limit)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, entries)
		}
		return a.table("NO\tWHEN\tWHO\tWHAT\tWHICH\tDETAIL", func(w *tabwriter.Writer) {
			for _, e := range entries {
				fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", e.Seq, stamp(e.Made), e.Actor, e.Verb, e.Object, e.Detail)
			}
		})
	})
}

func auditVerifyCommand(a *app) *cobra.Command {
	var files []string
	c := &cobra.Command{Use: "verify", Short: "Check that no entry was changed, taken out or cut off", Args: takes(),
		Long: `Reads the whole log. A change or a gap is found by the hashes; an end that was
cut off by what the site's own row says of it, and by the signed head that every
command and the management point write into the site's folder (audit.head). A
copy of that file on another machine shows also what somebody did who could
write to the folder: name it with --head.`}
	c.Flags().StringArrayVar(&files, "head", nil, "copy of audit.head of an earlier time; may be repeated")
	return onSite(a, c, func(ctx context.Context, s siteFolder, db *site.Site, _ []string) error {
		heads, err := s.auditHeads(db.Clock(), files)
		if err != nil {
			return err
		}
		n, err := db.VerifyAudit(ctx, heads...)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "%d entries, whole; compared with %d signed heads\n", n, len(heads))
		return nil
	})
}

// auditHeads reads the signed head in the site's folder, if there is one, and
// those in files.
func (s siteFolder) auditHeads(now time.Time, files []string) (heads []site.AuditHead, err error) {
	id, err := auth.LoadIdentity(s.signing())
	if err != nil {
		return nil, err
	}
	for i, file := range append([]string{s.auditHead()}, files...) {
		b, err := os.ReadFile(file)
		if i == 0 && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var h site.AuditHead
		if err == nil {
			err = auth.ReadStatement(id, managementpoint.AuditHeadType, strings.TrimSpace(string(b)), now, &h)
		}
		if err != nil {
			return nil, fmt.Errorf("audit head %s: %w", file, err)
		}
		heads = append(heads, h)
	}
	return heads, nil
}

// audited runs a verb as whoever types it, and keeps the end of the audit log
// if the verb wrote to it.
func (a *app) audited(ctx context.Context, s siteFolder, db *site.Site, command string, f func(ctx context.Context) error) error {
	ctx = site.By(ctx, whoTypes()+" "+command)
	before, err := db.AuditHead(ctx)
	if err != nil {
		return err
	}
	err = f(ctx)
	after, headErr := db.AuditHead(context.WithoutCancel(ctx))
	if headErr != nil || after.Seq == before.Seq {
		return errors.Join(err, headErr)
	}
	if headErr = s.keepHead(after); headErr != nil {
		// What was to be done is done; the next to write keeps the head.
		fmt.Fprintf(a.stderr, "warning: keep the end of the audit log: %v\n", headErr)
	}
	return err
}

func (s siteFolder) keepHead(h site.AuditHead) error {
	id, err := auth.LoadIdentity(s.signing())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the site is being made
	}
	if err != nil {
		return err
	}
	return managementpoint.KeepAuditHead(id, s.auditHead(), h)
}

func whoTypes() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return name + "@" + host
}
