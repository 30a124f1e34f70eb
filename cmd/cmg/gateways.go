package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/site"
)

func gatewaysCommand(a *app) *cobra.Command {
	return group("gateways", "Name the gateways to clients", "A gateway service is a name and port that clients use; instances may come and go behind it.",
		gatewaysAddCommand(a), gatewaysListCommand(a))
}

func gatewaysAddCommand(a *app) *cobra.Command {
	c := &cobra.Command{Use: "add HOST[:PORT]", Short: "Add a gateway's service name", Args: takes("HOST")}
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		g, err := parseService(args[0])
		if err != nil {
			return err
		}
		return db.AddGateway(ctx, g)
	})
}

func gatewaysListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List the gateways' service names", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		services, err := db.Gateways(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, services)
		}
		return a.table("HOST\tPORT", func(w *tabwriter.Writer) {
			for _, g := range services {
				fmt.Fprintf(w, "%s\t%d\n", g.Host, g.Port)
			}
		})
	})
}

// parseService reads host or host:port; the port is 443 where none stands.
func parseService(s string) (cmg.GatewayService, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, "443"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" || strings.ContainsAny(host, "/@ ") || net.JoinHostPort(host, port) != s && host != s {
		return cmg.GatewayService{}, usage("gateway %q is not HOST or HOST:PORT", s)
	}
	return cmg.GatewayService{Host: host, Port: int(n)}, nil
}
