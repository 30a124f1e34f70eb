package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

// deploymentCategory is that of policies that deploy packages.
const deploymentCategory = "ContentDeployment"

func deployCommand(a *app) *cobra.Command {
	var o deployOptions
	c := &cobra.Command{Use: "deploy PACKAGE", Short: "Tell devices to download a package into a folder", Args: takes("PACKAGE"),
		Long: `Makes a policy that has every device, or those of --collection, download the package, prints the policy's
id, and takes back the package's earlier deployment of the same collection to the same folder. A folder
that another package is deployed to is left to that one without --replace.`,
		Example: "  cmg deploy LAB00001 --to tools"}
	c.Flags().StringVar(&o.folder, "to", "", "folder on the device, relative to the agent's content folder")
	c.Flags().IntVar(&o.version, "version", 0, "version of the package; 0: the newest")
	c.Flags().StringVar(&o.collection, "collection", "", "whose devices (default: all devices)")
	c.Flags().BoolVar(&o.replace, "replace", false, "take the place of another package in the folder")
	onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		id, err := cmg.ParsePackageID(args[0])
		if err != nil {
			return err
		}
		policy, replaced, err := deploy(ctx, db, id, o)
		if err != nil {
			return err
		}
		for _, d := range replaced {
			fmt.Fprintf(a.stderr, "replaces policy %s: %s version %d in %s\n", d.Policy, d.Package, d.Version, d.Folder)
		}
		fmt.Fprintln(a.stdout, policy)
		return nil
	})
	run := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if o.folder == "" {
			return usage("--to is missing: name the folder on the device")
		}
		if err := cmg.CheckFolder(o.folder); err != nil {
			return usage("--to: %w", err)
		}
		return run(cmd, args)
	}
	c.AddCommand(deployListCommand(a), deployRemoveCommand(a))
	return c
}

type deployOptions struct {
	folder     string
	version    int    // 0: the newest
	replace    bool   // also another package
	collection string // empty: all devices
}

// A deployment is a policy in force that has devices hold a package.
type deployment struct {
	Policy     string        `json:"policy"`
	Package    cmg.PackageID `json:"package"`
	Version    int           `json:"version"`
	Folder     string        `json:"folder"`               // on the device, relative to the agent's content folder
	Collection string        `json:"collection,omitempty"` // whose devices; empty: all
	Added      time.Time     `json:"added"`
	Succeeded  int           `json:"succeeded"` // devices that said so
	Failed     int           `json:"failed"`
}

// deploymentsOf gives what a policy deploys, nothing for other policies.
func deploymentsOf(p cmg.Policy) (all []deployment, err error) {
	if p.Category != deploymentCategory {
		return nil, nil
	}
	body, err := ccm.ReadPolicyBody(p.Body)
	if err != nil {
		return nil, err
	}
	there, err := body.ContentDeployments()
	for _, d := range there {
		all = append(all, deployment{Policy: p.ID, Package: d.PackageID, Version: d.PackageVersion, Folder: d.Folder, Collection: p.Collection})
	}
	return all, err
}

// deploy puts a policy in force that has every device download the package,
// and gives the policy's id and what it takes the place of.
func deploy(ctx context.Context, db *site.Site, id cmg.PackageID, o deployOptions) (policy string, replaced []deployment, err error) {
	if err := cmg.CheckFolder(o.folder); err != nil {
		return "", nil, err
	}
	st, err := db.Settings(ctx)
	if err != nil {
		return "", nil, err
	}
	p, err := db.Package(ctx, id, o.version)
	if err != nil {
		return "", nil, err
	}
	body := ccm.PolicyBody{ID: "{" + strings.ToUpper(cmg.NewGUID()) + "}", Version: "1.00", Source: "SMS:" + st.Code}
	body.Instances = append(body.Instances, ccm.ContentDeployment{PackageID: p.ID, PackageVersion: p.Version, Folder: o.folder}.Instance())
	err = db.SupersedePolicies(ctx, cmg.Policy{ID: body.ID, Version: body.Version, Category: deploymentCategory, Collection: o.collection, Body: body.Encode()},
		func(old cmg.Policy) (bool, error) {
			there, err := deploymentsOf(old)
			if err != nil {
				return false, err
			}
			for _, d := range there {
				switch {
				case !strings.EqualFold(d.Folder, o.folder): // one folder on most devices
				case !strings.EqualFold(d.Collection, o.collection): // of two for one device the younger wins
				case d.Package != p.ID && !o.replace:
					return false, fmt.Errorf("deploy %s to %s: %s version %d is deployed there by policy %s; --replace takes its place: %w",
						p.ID, o.folder, d.Package, d.Version, d.Policy, cmg.ErrConflict)
				default:
					replaced = append(replaced, d)
					return true, nil
				}
			}
			return false, nil
		})
	return body.ID, replaced, err
}

func deployListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List the deployments in force, in the order they were made", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		all, err := deployments(ctx, db)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, all)
		}
		return a.table("POLICY\tPACKAGE\tVERSION\tFOLDER\tCOLLECTION\tDEPLOYED\tSUCCEEDED\tFAILED", func(w *tabwriter.Writer) {
			for _, d := range all {
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%d\t%d\n", d.Policy, d.Package, d.Version, d.Folder, cmp.Or(d.Collection, "all devices"), stamp(d.Added), d.Succeeded, d.Failed)
			}
		})
	})
}

// deployments lists what is deployed, and how many devices told how it went.
func deployments(ctx context.Context, db *site.Site) ([]deployment, error) {
	assigned, err := db.Policies(ctx, "")
	if err != nil {
		return nil, err
	}
	all := []deployment{}
	for _, as := range assigned {
		p, err := db.Policy(ctx, as.ID)
		if errors.Is(err, cmg.ErrNotFound) {
			continue // taken back meanwhile
		} else if err != nil {
			return nil, err
		}
		there, err := deploymentsOf(p)
		if err != nil {
			return nil, err
		}
		states, err := db.DeploymentStates(ctx, as.ID)
		if err != nil {
			return nil, err
		}
		for _, d := range there {
			d.Added = as.Added
			for _, s := range states {
				switch s.State {
				case "succeeded":
					d.Succeeded++
				case "failed":
					d.Failed++
				}
			}
			all = append(all, d)
		}
	}
	return all, nil
}

func deployRemoveCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "remove POLICY", Short: "Take a deployment back: no further device obeys it", Args: takes("POLICY"),
		Long: "Takes the policy out of force. What devices have downloaded stays where it is."}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		id, err := cmg.ParseDeviceID(strings.Trim(args[0], "{}"))
		if err != nil {
			return usage("policy %.60q is not a GUID, such as cmg deploy list shows", args[0])
		}
		return db.RetirePolicy(ctx, "{"+id.GUID()+"}")
	})
}
