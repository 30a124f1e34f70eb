package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/site"
)

// commonMethods are those that the field's servers are asked with, and those
// of any HTTP server.
var commonMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "CCM_POST", "BITS_POST"}

const defaultMaxBody = 64 << 20

func routeCommand(a *app) *cobra.Command {
	return group("route", "Publish servers of the inside", "A gateway passes inward only what a route names; a connection point sends it to the route's target.",
		routeAddCommand(a), routeListCommand(a), routeRemoveCommand(a))
}

func routeAddCommand(a *app) *cobra.Command {
	r := cmg.Route{}
	var proofs []string
	var may site.Overwrite
	c := &cobra.Command{Use: "add PREFIX URL", Short: "Publish an HTTP(S) server under a path prefix", Args: takes("PREFIX", "URL"),
		Example: "  cmg route add /files https://files.inside.example"}
	c.Flags().StringSliceVar(&r.Methods, "method", commonMethods, "methods that may pass")
	c.Flags().StringSliceVar(&proofs, "proof", []string{string(cmg.ProofCertificate), string(cmg.ProofToken)}, "proofs that let a caller in")
	c.Flags().Int64Var(&r.MaxBody, "max-body", defaultMaxBody, "largest request body in bytes")
	c.Flags().BoolVar(&r.Idempotent, "idempotent", false, "every request here may be sent twice")
	c.Flags().BoolVar(&r.Waits, "waits", false, "requests may wait long for their answer: they share HTTP/2 connections to a target that speaks it")
	c.Flags().StringVar((*string)(&r.Class), "class", "", "what matters more when there is not room for all: registration, policy, state or bulk (default: policy)")
	c.Flags().Int64Var(&r.MaxConcurrent, "max-concurrent", 0, "requests inward at once, at each gateway instance; 0: no limit")
	c.Flags().StringVar(&r.Name, "name", "", "name for logs (default: the prefix)")
	c.Flags().BoolVar(&may.Replace, "replace", false, "take the place of the route with this prefix")
	addForce(c, &may)
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		r.Prefix = args[0]
		if r.Name == "" {
			r.Name = strings.Trim(r.Prefix, "/")
		}
		for _, p := range proofs {
			switch cmg.Proof(p) {
			case cmg.ProofCertificate, cmg.ProofToken:
				r.Proofs = append(r.Proofs, cmg.Proof(p))
			default:
				return usage("--proof %q is not certificate or token", p)
			}
		}
		return db.PublishRoute(ctx, r, args[1], may)
	})
}

func addForce(c *cobra.Command, may *site.Overwrite) {
	c.Flags().BoolVar(&may.ManagementPoint, "force", false, "also under a management point's own prefix: devices may lose their way to it")
}

// openRoute is a route for whatever a server may be asked.
func openRoute(prefix string) cmg.Route {
	return cmg.Route{
		Prefix: prefix, Name: strings.Trim(prefix, "/"), Methods: commonMethods, MaxBody: defaultMaxBody,
		Proofs: []cmg.Proof{cmg.ProofCertificate, cmg.ProofToken},
	}
}

func routeListCommand(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{Use: "list", Short: "List what is published, and where it leads", Args: takes()}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, _ []string) error {
		routes, err := db.Routes(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(a.stdout, routes)
		}
		return a.table("PREFIX\tTARGET\tPROOFS\tMETHODS\tMAX BODY", func(w *tabwriter.Writer) {
			for _, r := range routes {
				proofs := make([]string, len(r.Route.Proofs))
				for i, p := range r.Route.Proofs {
					proofs[i] = string(p)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", r.Route.Prefix, r.Target, strings.Join(proofs, ","), strings.Join(r.Route.Methods, ","), r.Route.MaxBody)
			}
		})
	})
}

func routeRemoveCommand(a *app) *cobra.Command {
	var may site.Overwrite
	c := &cobra.Command{Use: "remove PREFIX", Short: "Take a route back", Args: takes("PREFIX")}
	addForce(c, &may)
	return onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		return db.RemoveRoute(ctx, args[0], may)
	})
}
