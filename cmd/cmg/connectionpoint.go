package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg/role/connectionpoint"
)

func connectionPointCommand(a *app) *cobra.Command {
	return roleCommand[connectionpoint.Config]{
		use: "connection-point", section: "connection_point",
		short: "Run a connection point: keeps channels open outward",
		long: `Runs a connection point: it opens channels to every gateway, from the inside
outward only, and passes what arrives to the servers that the site maps.`,
		run: func(ctx context.Context, s *setup, c connectionpoint.Config) error {
			c.Log = s.log
			p, err := connectionpoint.New(c)
			if err != nil {
				return err
			}
			defer easeCollector(s.app.lookup)()
			return p.Run(ctx)
		},
	}.command(a)
}
