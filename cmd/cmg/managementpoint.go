package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/role/managementpoint"
)

// A siteSection says where the site is that the inside roles work for.
type siteSection struct {
	Dir string `json:"dir"` // the folder that cmg site init made
}

func managementPointCommand(a *app) *cobra.Command {
	return roleCommand[managementpoint.Config]{
		use: "management-point", section: "management_point",
		short: "Run a management point: registers devices, hands out policy",
		long: `Runs a management point: it registers devices, hands out policy, tokens and
content locations, and takes reports. It works on the database of the site
that the section "site" names (or CMG_SITE_DIR).`,
		run: func(ctx context.Context, s *setup, c managementpoint.Config, again func() (managementpoint.Config, error)) error {
			l := s.life()
			c.Health, c.Again.Asked = l.add(cmg.RoleManagementPoint, "up")
			c.Sockets, c.Again.Read = s.app.sockets, again
			return l.run(ctx, func(ctx context.Context) error { return s.runManagementPoint(ctx, c) })
		},
	}.command(a)
}

// runManagementPoint opens the site's database for as long as the management
// point runs.
func (s *setup) runManagementPoint(ctx context.Context, c managementpoint.Config) (err error) {
	var where siteSection
	if err := s.section("site", &where); err != nil {
		return err
	}
	if where.Dir == "" {
		return usage("no site: set dir in the section \"site\", or CMG_SITE_DIR")
	}
	if c.Site, err = siteFolder(where.Dir).open(ctx, s.app.now); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Site.Close()) }()
	c.Log, c.Now = s.log, s.app.now
	if c.AuditHead == "" {
		c.AuditHead = siteFolder(where.Dir).auditHead()
	}
	if c.Distribution.Dir != "" {
		store, openErr := blob.NewDisk(blob.DiskConfig{Dir: c.Distribution.Dir})
		if openErr != nil {
			return fmt.Errorf("distribution: %w", openErr)
		}
		defer func() { err = errors.Join(err, store.Close()) }()
		c.Distribution.Store = store
	}
	p, err := managementpoint.New(c)
	if err != nil {
		return err
	}
	return p.Run(ctx)
}
