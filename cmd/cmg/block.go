package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg/site"
)

// blockCommand makes a verb that shuts something out.
func blockCommand(a *app, kind site.BlockKind, what, short, long string) *cobra.Command {
	var reason string
	c := &cobra.Command{Use: "block " + what, Short: short, Long: long, Args: takes(what)}
	c.Flags().StringVar(&reason, "reason", "", "why; kept in lists and in the audit log")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		return db.Block(ctx, kind, args[0], reason)
	})
}

func unblockCommand(a *app, kind site.BlockKind, what, short string) *cobra.Command {
	c := &cobra.Command{Use: "unblock " + what, Short: short, Args: takes(what)}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		return db.Unblock(ctx, kind, args[0])
	})
}

func certificateCommand(a *app) *cobra.Command {
	return group("certificate", "Block client certificates", "",
		blockCommand(a, site.BlockCertificate, "SERIAL", "Shut a client certificate out",
			"SERIAL is its serial number in hex, as certificate tools print it, with or\nwithout colons: of whichever authority. Or it is the SHA-256 of the whole\ncertificate (64 digits), which names exactly one."),
		unblockCommand(a, site.BlockCertificate, "SERIAL", "Let a blocked certificate in again"))
}

func blocksCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "blocks", Short: "List who is shut out", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		blocks, err := db.Blocks(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, blocks)
		}
		return a.table("KIND\tVALUE\tSINCE\tUNTIL\tBY\tREASON", func(w *tabwriter.Writer) {
			for _, b := range blocks {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", b.Kind, b.Value, stamp(b.Made), stamp(b.Until), b.Actor, b.Reason)
			}
		})
	})
}
