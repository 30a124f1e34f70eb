package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/role/agent"
)

func agentCommand(a *app) *cobra.Command {
	return roleCommand[agent.Config]{
		use: "agent", section: "agent",
		short: "Run the client on a managed device",
		long: `Runs the client on a device: it registers through the gateway, fetches policy,
obeys it and reports. It proves itself by a client certificate, or registers
with a token from: cmg token new`,
		run: func(ctx context.Context, s *setup, c agent.Config, again func() (agent.Config, error)) error {
			c.Log = s.log
			ag, err := agent.New(c)
			if err != nil {
				return err
			}
			l := s.life()
			health, asked := l.add(cmg.RoleAgent, "up")
			health.Set("up", nil) // nobody connects to it
			return l.run(ctx, func(ctx context.Context) error { return s.runAgent(ctx, ag, again, asked) })
		},
	}.command(a)
}

// runAgent runs an agent until ctx ends or it is done. When asked to, it
// takes a new configuration that is good: the pass under way is broken off,
// downloads go on where they were.
func (s *setup) runAgent(ctx context.Context, ag *agent.Agent, again func() (agent.Config, error), asked <-chan struct{}) error {
	for {
		running, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- ag.Run(running) }()
		next := s.nextAgent(again, asked, ended)
		if next == nil {
			defer stop()
			return <-ended
		}
		stop()
		if err := <-ended; err != nil && ctx.Err() != nil {
			return err
		}
		var err error
		if ag, err = agent.New(*next); err != nil { // not before the other has written its state
			return err
		}
	}
}

// nextAgent waits until there is a good configuration to go on with; nil: the
// agent has ended by itself.
func (s *setup) nextAgent(again func() (agent.Config, error), asked <-chan struct{}, ended chan error) *agent.Config {
	for {
		select {
		case err := <-ended:
			ended <- err
			return nil
		case <-asked:
		}
		c, err := again()
		if err == nil {
			err = tryAgent(c)
		}
		if err != nil {
			s.log.Error("the configuration was not taken: going on with the one before", "err", strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		s.log.Info("configuration taken")
		c.Log = s.log
		return &c
	}
}
