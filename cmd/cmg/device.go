package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/site"
)

func deviceCommand(a *app) *cobra.Command {
	return group("device", "List, show, approve, notify, block and delete devices", "",
		deviceListCommand(a), deviceShowCommand(a), deviceApproveCommand(a), deviceNotifyCommand(a), deviceDeleteCommand(a),
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
	var asJSON, duplicates bool
	var approval string
	c := &cobra.Command{Use: "list", Short: "List registered devices", Args: takes(),
		Example: "  cmg device list --approval pending\n  cmg device list --duplicates"}
	c.Flags().BoolVar(&duplicates, "duplicates", false, "only those that call their hardware as another device does")
	c.Flags().StringVar(&approval, "approval", "", "only those that are pending, approved or blocked")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		switch cmg.Approval(approval) {
		case "", cmg.Pending, cmg.Approved, cmg.Blocked:
		default:
			return usage("--approval %q is not pending, approved or blocked", approval)
		}
		var devices []cmg.Device
		var err error
		if duplicates {
			devices, err = db.DuplicateDevices(ctx, 0)
		} else {
			devices, err = allDevices(ctx, db)
		}
		if err != nil {
			return err
		}
		devices = slices.DeleteFunc(devices, func(d cmg.Device) bool { return approval != "" && string(d.Approval) != approval })
		listed, err := withPresence(ctx, db, devices, a.now())
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, listed)
		}
		return a.table("DEVICE\tNAME\tPROOF\tAPPROVAL\tREGISTERED\tLAST SEEN\tONLINE", func(w *tabwriter.Writer) {
			for _, d := range listed {
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

func deviceShowCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "show GUID", Short: "Show all that is known of a device", Args: takes("GUID")}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		id, err := cmg.ParseDeviceID(args[0])
		if err != nil {
			return err
		}
		d, err := db.Device(ctx, id)
		if err != nil {
			return err
		}
		others, err := db.SameHardware(ctx, d)
		if err != nil {
			return err
		}
		same := make([]cmg.DeviceID, len(others))
		for i, o := range others {
			same[i] = o.ID
		}
		if asJSON {
			return writeJSON(a.stdout, struct {
				cmg.Device
				SameHardware []cmg.DeviceID `json:"same_hardware"`
			}{d, same})
		}
		sum := sha256.Sum256(d.Certificate)
		return a.table("DEVICE\t"+string(d.ID), func(w *tabwriter.Writer) {
			for _, l := range [][2]string{
				{"name", d.Name}, {"full name", d.FQDN}, {"agent", d.Agent}, {"approval", string(d.Approval)},
				{"proven by", string(d.Proof)}, {"client certificate", d.Thumbprint}, {"signing certificate", hex.EncodeToString(sum[:])},
				{"hardware", d.Hardware}, {"registered", stamp(d.Registered)}, {"last seen", stamp(d.LastSeen)},
			} {
				fmt.Fprintf(w, "%s\t%s\n", l[0], l[1])
			}
			for _, o := range others {
				fmt.Fprintf(w, "same hardware\t%s %s, last seen %s\n", o.ID, o.Name, stamp(o.LastSeen))
			}
		})
	})
}

func deviceDeleteCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "delete GUID", Short: "Forget a device and its reports", Args: takes("GUID"),
		Long: `Forgets a device, its reports and how far it was with deployments. Its tokens
open nothing at the management point from then on; what it may download already
stays open to it for up to content_token_life. A device that can still prove
itself registers anew: to keep one out, block it. A blocked device cannot be
deleted.`}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		id, err := cmg.ParseDeviceID(args[0])
		if err != nil {
			return err
		}
		return db.DeleteDevice(ctx, id)
	})
}
