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
	return group("device", "List, approve, notify and block devices", "",
		deviceListCommand(a), deviceApproveCommand(a), deviceNotifyCommand(a),
		blockCommand(a, site.BlockDevice, "GUID", "Shut a device out, whatever it shows",
			"Its tokens and the client certificate it registered with are refused by every\ngateway within seconds, also by one that loses its site afterwards."),
		unblockCommand(a, site.BlockDevice, "GUID", "Let a blocked device in again, approved as it was"))
}

func deviceApproveCommand(a *app) *cobra.Command {
	var undo bool
	c := &cobra.Command{Use: "approve GUID", Short: "Let a device have content and secrets", Args: takes("GUID"),
		Long: "Approves a device that waits for it. A blocked device has to be unblocked first."}
	c.Flags().BoolVar(&undo, "undo", false, "let it wait again")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		id, err := cmg.ParseDeviceID(args[0])
		if err != nil {
			return err
		}
		d, err := db.Device(ctx, id)
		if err != nil {
			return err
		}
		if d.Approval == cmg.Blocked {
			return fmt.Errorf("device %s is blocked: cmg device unblock lifts that: %w", id, cmg.ErrConflict)
		}
		approval := cmg.Approved
		if undo {
			approval = cmg.Pending
		}
		return db.SetApproval(ctx, id, approval)
	})
}

func deviceListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List registered devices", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		devices, err := listedDevices(ctx, db, a.now())
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, devices)
		}
		return a.table("DEVICE\tNAME\tPROOF\tAPPROVAL\tREGISTERED\tLAST SEEN\tONLINE", func(w *tabwriter.Writer) {
			for _, d := range devices {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.Name, d.Proof, d.Approval, stamp(d.Registered), stamp(d.LastSeen), d.online())
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
