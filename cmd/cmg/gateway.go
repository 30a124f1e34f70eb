package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/role/gateway"
)

func gatewayCommand(a *app) *cobra.Command {
	return roleCommand[gateway.Config]{
		use: "gateway", section: "gateway",
		short: "Run a gateway instance: meets clients on the internet",
		long: `Runs an instance of the gateway: it meets clients, proves who they are and
sends what is published down the channels that connection points opened. It
needs a certificate that clients trust, and one from the site:
cmg site issue gateway --name gateway-1 --host gw.example.com`,
		run: func(ctx context.Context, s *setup, c gateway.Config, again func() (gateway.Config, error)) error {
			l := s.life()
			c.Health, c.Again.Asked = l.add(cmg.RoleGateway, "up")
			c.Now = s.app.now
			c.Sockets, c.Again.Read, c.Again.Parts = s.app.sockets, again, linkGateway
			g, err := newGateway(c, s.log)
			if err != nil {
				return err
			}
			defer easeCollector(s.app.lookup)()
			return l.run(ctx, g.Run)
		},
	}.command(a)
}

// newGateway makes a gateway with its links to the content store.
func newGateway(c gateway.Config, log *slog.Logger) (*gateway.Gateway, error) {
	c.Log = log
	if err := linkGateway(&c); err != nil {
		return nil, err
	}
	return gateway.New(c)
}

// linkGateway makes a gateway's links to the content store.
func linkGateway(c *gateway.Config) error {
	c.Links = nil
	if c.Content.URL == "" {
		return nil
	}
	key, err := blob.LoadKey(c.Content.KeyFile)
	if err != nil {
		return fmt.Errorf("gateway: content: %w", err)
	}
	settings, err := auth.ClientTo(auth.ClientFiles{Roots: c.Content.Roots, Now: c.Now})
	if err != nil {
		return fmt.Errorf("gateway: content: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = settings
	c.Links, err = blob.NewLinked(blob.LinkedConfig{URL: c.Content.URL, Key: key, Now: c.Now, Client: &http.Client{Transport: transport}})
	if err != nil {
		return fmt.Errorf("gateway: content: %w", err)
	}
	return nil
}
