package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/content"
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

// newGateway makes a gateway with its links to the sites' content stores.
func newGateway(c gateway.Config, log *slog.Logger) (*gateway.Gateway, error) {
	c.Log = log
	if err := linkGateway(&c); err != nil {
		return nil, err
	}
	return gateway.New(c)
}

// linkGateway makes a gateway's links to the sites' content stores.
func linkGateway(c *gateway.Config) (err error) {
	if c.Links, err = linksOf(c.Content, c.Now); err != nil {
		return fmt.Errorf("gateway: content: %w", err)
	}
	c.Sites = slices.Clone(c.Sites) // those of the configuration in force stay as they are
	for i := range c.Sites {
		if c.Sites[i].Links, err = linksOf(c.Sites[i].Content, c.Now); err != nil {
			return fmt.Errorf("gateway: sites: entry %d: content: %w", i+1, err)
		}
	}
	return nil
}

// linksOf makes the links to one content store; nil: there is none.
func linksOf(c gateway.ContentConfig, now func() time.Time) (content.Links, error) {
	if c.URL == "" {
		return nil, nil
	}
	key, err := blob.LoadKey(c.KeyFile)
	if err != nil {
		return nil, err
	}
	settings, err := auth.ClientTo(auth.ClientFiles{Roots: c.Roots, Now: now})
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = settings
	links, err := blob.NewLinked(blob.LinkedConfig{URL: c.URL, Key: key, Now: now, Client: &http.Client{Transport: transport}})
	if err != nil {
		return nil, err
	}
	return links, nil
}
