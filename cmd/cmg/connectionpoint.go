package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/role/connectionpoint"
)

func connectionPointCommand(a *app) *cobra.Command {
	return roleCommand[connectionpoint.Config]{
		use: "connection-point", section: "connection_point",
		short: "Run a connection point: keeps channels open outward",
		long: `Runs a connection point: it opens channels to every gateway, from the inside
outward only, and passes what arrives to the servers that the site maps.`,
		run: func(ctx context.Context, s *setup, c connectionpoint.Config, again func() (connectionpoint.Config, error)) error {
			l := s.life()
			c.Health, c.Again.Asked = l.add(cmg.RoleConnectionPoint, "") // its channels have to be up before another lets go of his
			c.Log, c.Sockets, c.Again.Read = s.log, s.app.sockets, again
			p, err := connectionpoint.New(c)
			if err != nil {
				return err
			}
			defer easeCollector(s.app.lookup)()
			return l.run(ctx, p.Run)
		},
	}.command(a)
}
