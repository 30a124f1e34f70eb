package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/site"
)

func uploadCommand(a *app) *cobra.Command {
	return group("upload", "See what devices have uploaded", "The files lie in the folder kept under uploads.dir of the management point, named by their ids.", uploadListCommand(a))
}

func uploadListCommand(a *app) *cobra.Command {
	var asJSON bool
	var device string
	var limit int
	c := &cobra.Command{Use: "list", Short: "List uploaded files, newest first", Args: takes(),
		Example: "  cmg upload list --device GUID:8C8E5B0E-6E3C-4D5B-9B1E-2F6A7C1D9E00"}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.Flags().StringVar(&device, "device", "", "of this device only")
	c.Flags().IntVar(&limit, "limit", 1000, "at most so many; 0: all")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		var id cmg.DeviceID
		if device != "" {
			var err error
			if id, err = cmg.ParseDeviceID(device); err != nil {
				return usage("--device: %w", err)
			}
		}
		uploads, err := db.Uploads(ctx, id, limit)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, uploads)
		}
		return a.table("ID\tDEVICE\tNAME\tSIZE\tSHA-256\tRECEIVED", func(w *tabwriter.Writer) {
			for _, u := range uploads {
				fmt.Fprintf(w, "%s\t%s\t%q\t%s\t%s\t%s\n", u.ID, u.Device, u.Name, size(u.Size), u.SHA256, stamp(u.Received))
			}
		})
	})
}
