package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

func deviceNotifyCommand(a *app) *cobra.Command {
	var all, policy, restart bool
	var life time.Duration
	c := &cobra.Command{Use: "notify [GUID…]", Short: "Have devices do something now",
		Long: `Has devices get policy now, or whatever the flags say. Those that are online
learn it within seconds, the others when they are back. A change of policy does
this by itself.`,
		Example: "  cmg device notify --all",
		Args:    cobra.ArbitraryArgs}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "every device")
	f.BoolVar(&policy, "policy", false, "get policy; the default")
	f.BoolVar(&restart, "restart-check", false, "say whether the device waits for a restart")
	f.DurationVar(&life, "for", 72*time.Hour, "how long the notification waits for a device that is away; 720h at most")
	onSite(a, c, func(ctx context.Context, _ siteFolder, db *site.Site, args []string) error {
		var devices []cmg.DeviceID
		for _, arg := range args {
			id, err := cmg.ParseDeviceID(arg)
			if err != nil {
				return err
			}
			devices = append(devices, id)
		}
		task := ccm.TaskPolicy
		if restart {
			task = ccm.TaskRestartCheck
		}
		return db.Push(ctx, task, nil, life, devices...)
	})
	run := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case all == (len(args) > 0):
			return usage("name devices, or --all of them")
		case policy && restart:
			return usage("--policy and --restart-check are two notifications")
		case life <= 0 || life > site.MaxPushLife:
			return usage("--for %s is not between 1s and %s", life, site.MaxPushLife)
		}
		return run(cmd, args)
	}
	return c
}

// A listedDevice is a device with what is known of its being online.
type listedDevice struct {
	cmg.Device
	Online     bool      `json:"online"`               // lets itself be notified, as was written down last
	LastOnline time.Time `json:"last_online,omitzero"` // never: it was not yet
}

// withPresence says of devices which of them are online.
func withPresence(ctx context.Context, db *site.Site, devices []cmg.Device, now time.Time) ([]listedDevice, error) {
	known, err := db.Presences(ctx, "", 0)
	if err != nil {
		return nil, err
	}
	by := make(map[cmg.DeviceID]site.Presence, len(known))
	for _, p := range known {
		by[p.Device] = p
	}
	all := make([]listedDevice, 0, len(devices))
	for _, d := range devices {
		p := by[d.ID]
		all = append(all, listedDevice{Device: d, Online: p.OnlineAt(now), LastOnline: p.LastOnline})
	}
	return all, nil
}

// online says in a word how a device stands.
func (d listedDevice) online() string {
	switch {
	case d.Online:
		return "yes"
	case d.LastOnline.IsZero():
		return "-"
	}
	return fmt.Sprintf("no, since %s", stamp(d.LastOnline))
}
