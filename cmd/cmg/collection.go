package main

import (
	"cmp"
	"context"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/site"
)

const queryHelp = `A query compares what is known of a device:

  os = "linux" and name like "WEB-%" and not (approval = "pending")

with =, !=, like (% any characters, _ one), not like, and, or, not and
parentheses, all without letter case. Fields are id, name, fqdn, agent,
approval, proof, hardware, os (windows, linux, macos), and what discovery told,
as class.property. A comparison of a field that a device does not have is
false. What discovery tells is the device's own word: give secrets to lists.`

func collectionCommand(a *app) *cobra.Command {
	return group("collection", "Make sets of devices that deployments are for", "",
		collectionAddCommand(a), collectionListCommand(a), collectionShowCommand(a), collectionRemoveCommand(a), collectionMembersCommand(a))
}

func collectionAddCommand(a *app) *cobra.Command {
	var query string
	c := &cobra.Command{Use: "add NAME", Short: "Make a collection: a list, or a query", Args: takes("NAME"),
		Long:    "Makes an empty list, to be filled by \"cmg collection members\", or a query.\n" + queryHelp,
		Example: "  cmg collection add Pilot\n  cmg collection add Web --query 'os = \"linux\" and name like \"WEB-%\"'"}
	c.Flags().StringVar(&query, "query", "", "which devices it holds; none: a list")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		return db.AddCollection(ctx, args[0], query)
	})
}

func collectionListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List the collections", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		all, err := db.Collections(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, all)
		}
		return a.table("COLLECTION\tMADE\tQUERY", func(w *tabwriter.Writer) {
			for _, c := range all {
				fmt.Fprintf(w, "%s\t%s\t%s\n", c.Name, stamp(c.Made), cmp.Or(c.Query, "(list)"))
			}
		})
	})
}

func collectionShowCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "show NAME", Short: "Show a collection and the devices it holds now", Args: takes("NAME")}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		col, err := db.Collection(ctx, args[0])
		if err != nil {
			return err
		}
		members, err := db.Members(ctx, args[0])
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, struct {
				site.Collection
				Devices []cmg.Device `json:"devices"`
			}{col, members})
		}
		fmt.Fprintf(a.stdout, "%s  %s\n", col.Name, cmp.Or(col.Query, "(list)"))
		return a.table("DEVICE\tNAME\tAPPROVAL\tLAST SEEN", func(w *tabwriter.Writer) {
			for _, d := range members {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", d.ID, d.Name, d.Approval, stamp(d.LastSeen))
			}
		})
	})
}

func collectionRemoveCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "remove NAME", Short: "Forget a collection that no policy in force is for", Args: takes("NAME")}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		return db.RemoveCollection(ctx, args[0])
	})
}

func collectionMembersCommand(a *app) *cobra.Command {
	var in, out []string
	c := &cobra.Command{Use: "members NAME", Short: "Put devices into a list, take them out", Args: takes("NAME"),
		Long:    "Changes a list. Without --add and --remove it prints the ids of the devices that\nthe collection holds, also of a query.",
		Example: "  cmg collection members Pilot --add GUID:… --remove GUID:…"}
	c.Flags().StringSliceVar(&in, "add", nil, "device to put in; may be repeated")
	c.Flags().StringSliceVar(&out, "remove", nil, "device to take out; may be repeated")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		if len(in)+len(out) == 0 {
			members, err := db.Members(ctx, args[0])
			for _, d := range members {
				fmt.Fprintln(a.stdout, d.ID)
			}
			return err
		}
		ids := func(texts []string) (all []cmg.DeviceID, err error) {
			for _, t := range texts {
				id, err := cmg.ParseDeviceID(t)
				if err != nil {
					return nil, err
				}
				all = append(all, id)
			}
			return all, nil
		}
		add, err := ids(in)
		if err != nil {
			return err
		}
		remove, err := ids(out)
		if err != nil {
			return err
		}
		return db.ChangeMembers(ctx, args[0], add, remove)
	})
}
