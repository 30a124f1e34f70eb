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
	"github.com/opencmg/cmg/role/connectionpoint"
	"github.com/opencmg/cmg/site"
)

func gatewaysCommand(a *app) *cobra.Command {
	return group("gateways", "Name the gateways to clients", "A gateway service is a name and port that clients use; instances may come and go behind it.",
		gatewaysAddCommand(a), gatewaysListCommand(a), gatewaysPortsCommand(a))
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

func gatewaysPortsCommand(a *app) *cobra.Command {
	var asJSON bool
	g := connectionpoint.Gateway{Instances: 1}
	c := &cobra.Command{Use: "ports HOST[:PORT]", Short: "Say which ports channels to a service use", Args: takes("HOST"),
		Long: `Says which addresses a connection point dials for the channels to a gateway
service, in their order: what a firewall between them has to let out.

  one-port    the clients' port, for any number of instances; the default
  multi-port  as the field: instance i of 0 to 15 by TCP at 10140+i, else by
              HTTPS at 10124+i, or at 443 where there is one instance only
  tcp         instance i of 0 to 15 by TCP at 10140+i, and nothing else`,
		Example: "  cmg gateways ports gw.example.com --instances 3 --mode multi-port",
		RunE: func(_ *cobra.Command, args []string) error {
			g.Service = args[0]
			places, err := g.Addresses()
			if err != nil {
				return usage("%w", err)
			}
			if asJSON {
				return writeJSON(a.stdout, places)
			}
			return a.table("INSTANCE\tFIRST\tELSE", func(w *tabwriter.Writer) {
				for i, p := range places {
					instance := strconv.Itoa(i)
					if p.Instances > 1 {
						instance = fmt.Sprintf("any of %d", p.Instances)
					}
					fmt.Fprintf(w, "%s\t%s\t%s\n", instance, p.Ways[0], strings.Join(p.Ways[1:], ", "))
				}
			})
		}}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.Flags().IntVar(&g.Instances, "instances", 1, "how many there are")
	c.Flags().StringVar(&g.Mode, "mode", "one-port", "one-port, multi-port or tcp")
	return c
}
