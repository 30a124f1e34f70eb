package main

import (
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/site"
)

func deviceCommand(a *app) *cobra.Command {
	return group("device", "See the registered devices", "", deviceListCommand(a))
}

func deviceListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List registered devices", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		devices, err := allDevices(ctx, db)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, devices)
		}
		return a.table("DEVICE\tNAME\tPROOF\tAPPROVAL\tREGISTERED\tLAST SEEN", func(w *tabwriter.Writer) {
			for _, d := range devices {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.Name, d.Proof, d.Approval, stamp(d.Registered), stamp(d.LastSeen))
			}
		})
	})
}

func allDevices(ctx context.Context, db *site.Site) (all []cmg.Device, err error) {
	const page = 1000
	for after := cmg.DeviceID(""); ; {
		some, err := db.Devices(ctx, after, page)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		if len(some) < page {
			return all, nil
		}
		after = some[len(some)-1].ID
	}
}
