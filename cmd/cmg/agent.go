package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg/role/agent"
)

func agentCommand(a *app) *cobra.Command {
	return roleCommand[agent.Config]{
		use: "agent", section: "agent",
		short: "Run the client on a managed device",
		long: `Runs the client on a device: it registers through the gateway, fetches policy,
obeys it and reports. It proves itself by a client certificate, or registers
with a token from: cmg token new`,
		run: func(ctx context.Context, s *setup, c agent.Config) error {
			c.Log = s.log
			ag, err := agent.New(c)
			if err != nil {
				return err
			}
			return ag.Run(ctx)
		},
	}.command(a)
}
