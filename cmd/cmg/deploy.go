package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

func deployCommand(a *app) *cobra.Command {
	var folder string
	var version int
	c := &cobra.Command{Use: "deploy PACKAGE", Short: "Tell all devices to download a package into a folder", Args: takes("PACKAGE"),
		Example: "  cmg deploy LAB00001 --to tools"}
	c.Flags().StringVar(&folder, "to", "", "folder on the device, relative to the agent's content folder")
	c.Flags().IntVar(&version, "version", 0, "version of the package; 0: the newest")
	return onSite(a, c, func(ctx context.Context, s siteFolder, db *site.Site, args []string) error {
		if folder == "" {
			return usage("--to is missing: name the folder on the device")
		}
		id, err := cmg.ParsePackageID(args[0])
		if err != nil {
			return err
		}
		policy, err := deploy(ctx, db, id, version, folder)
		if err == nil {
			fmt.Fprintln(a.stdout, policy)
		}
		return err
	})
}

// deploy puts a policy in force that has every device download the package,
// and gives the policy's id.
func deploy(ctx context.Context, db *site.Site, id cmg.PackageID, version int, folder string) (string, error) {
	st, err := db.Settings(ctx)
	if err != nil {
		return "", err
	}
	p, err := db.Package(ctx, id, version)
	if err != nil {
		return "", err
	}
	body := ccm.PolicyBody{ID: "{" + strings.ToUpper(cmg.NewGUID()) + "}", Version: "1.00", Source: "SMS:" + st.Code}
	body.Instances = append(body.Instances, ccm.ContentDeployment{PackageID: p.ID, PackageVersion: p.Version, Folder: folder}.Instance())
	return body.ID, db.AddPolicy(ctx, cmg.Policy{ID: body.ID, Version: body.Version, Category: "ContentDeployment", Body: body.Encode()})
}
