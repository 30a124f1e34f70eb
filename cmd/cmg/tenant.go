package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

func tenantCommand(a *app) *cobra.Command {
	return group("tenant", "Say whose Microsoft Entra ID tokens are trusted", `A tenant's tokens prove devices and users that have no certificate. The site
fetches the tenant's public keys and gives them to the gateways.`,
		tenantAddCommand(a), tenantListCommand(a), tenantShowCommand(a), tenantRemoveCommand(a), tenantRefreshCommand(a),
		blockCommand(a, site.BlockTenant, "GUID", "Shut out whoever is proven by a tenant", ""),
		unblockCommand(a, site.BlockTenant, "GUID", "Let a blocked tenant in again"))
}

func tenantAddCommand(a *app) *cobra.Command {
	var t site.Tenant
	var cloud, roots string
	var replace bool
	c := &cobra.Command{Use: "add TENANT", Short: "Let callers of a tenant in", Args: takes("TENANT"),
		Long: `Lets callers in who show an access token of the tenant for one of the
audiences. TENANT is the tenant's id, a GUID.`,
		Example: "  cmg tenant add 7c1d6a0e-1f4b-4f0e-9b5a-0d2f3c4b5a69 --audience https://ConfigMgrService --client 2e8c…"}
	f := c.Flags()
	f.StringVar(&t.Name, "name", "", "name for people")
	f.StringSliceVar(&t.Audiences, "audience", nil, "value of aud that is meant for this site; may be repeated")
	f.StringVar(&t.Client, "client", "", "id of the application that clients sign in with (AADCLIENTAPPID)")
	f.StringVar(&t.Resource, "resource", "", "what clients ask a token for (AADRESOURCEURI; default: the first audience)")
	f.StringSliceVar(&t.Apps, "app", nil, "id of an application whose tokens are taken (appid, azp); may be repeated; default: any")
	f.StringVar(&cloud, "cloud", "public", strings.Join(slices.Sorted(maps.Keys(cmg.EntraClouds)), " or "))
	f.StringVar(&t.Authority, "authority", "", "address of another authority, https://host[:port]")
	f.StringVar(&roots, "authority-roots", "", "PEM file that signs the authority's certificate (default: the system's roots)")
	f.BoolVar(&replace, "replace", false, "change a tenant that is known")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) (err error) {
		if t.ID, err = cmg.ParseTenantID(args[0]); err != nil {
			return usage("%w", err)
		}
		if len(t.Audiences) == 0 {
			return usage("--audience is missing: what is a token for this site meant for?\nexample: %s", strings.TrimSpace(c.Example))
		}
		if t.Authority == "" {
			var ok bool
			if t.Authority, ok = cmg.EntraClouds[cloud]; !ok {
				return usage("--cloud %q is not %s", cloud, strings.Join(slices.Sorted(maps.Keys(cmg.EntraClouds)), " or "))
			}
		}
		if t.Authority = strings.TrimSuffix(t.Authority, "/"); t.Resource == "" {
			t.Resource = t.Audiences[0]
		}
		if roots != "" {
			b, err := os.ReadFile(roots)
			if err != nil {
				return err
			}
			if _, err := auth.NewFetcher(b); err != nil {
				return fmt.Errorf("%s: %w", roots, err)
			}
			t.Roots = string(b)
		}
		return db.AddTenant(ctx, t, replace)
	})
}

func tenantListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List the tenants", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		all, err := db.Tenants(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, all)
		}
		return a.table("TENANT\tAUTHORITY\tKEYS\tFETCHED\tSTATE\tNAME", func(w *tabwriter.Writer) {
			for _, t := range all {
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\n", t.ID, t.Authority, len(t.Keys), stamp(t.Fetched), tenantState(t), t.Name)
			}
		})
	})
}

func tenantState(t site.Tenant) string {
	switch {
	case t.Problem != "":
		return fmt.Sprintf("failing (%d)", t.Failures)
	case t.Fetched.IsZero():
		return "new"
	}
	return "ok"
}

func tenantShowCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "show TENANT", Short: "Show all of a tenant, as JSON", Args: takes("TENANT")}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		id, err := cmg.ParseTenantID(args[0])
		if err != nil {
			return usage("%w", err)
		}
		t, err := db.Tenant(ctx, id)
		if err != nil {
			return err
		}
		return writeJSON(a.stdout, t)
	})
}

func tenantRemoveCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "remove TENANT", Short: "Let callers of a tenant in no more", Args: takes("TENANT")}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		id, err := cmg.ParseTenantID(args[0])
		if err != nil {
			return usage("%w", err)
		}
		return db.RemoveTenant(ctx, id)
	})
}

func tenantRefreshCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "refresh", Short: "Fetch the keys of all tenants now", Args: takes()}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		return db.RefreshTenants(ctx)
	})
}
