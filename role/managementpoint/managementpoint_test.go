package managementpoint

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/site"
)

func TestNewChecksItsConfig(t *testing.T) {
	l := newLab(t)
	for name, change := range map[string]func(*Config){
		"no site":            func(c *Config) { c.Site = nil },
		"approval":           func(c *Config) { c.Approval = "maybe" },
		"life":               func(c *Config) { c.DeviceTokenLife = maxLife + 1 },
		"negative life":      func(c *Config) { c.SessionTokenLife = -1 },
		"wrong role":         func(c *Config) { c.Identity = l.files("gateway-gw1") },
		"wrong signing role": func(c *Config) { c.Signing = l.files("gateway-gw1") },
		"key of another":     func(c *Config) { c.Identity.Key = l.file("gateway-gw1.key") },
	} {
		c := l.cfg
		change(&c)
		if _, err := New(c); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	c := l.cfg
	c.TokenKeys = l.file("none")
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), c.TokenKeys) {
		t.Errorf("missing keyring: %v", err)
	}
}

func TestRun(t *testing.T) {
	l := newLab(t)
	run := func(ctx context.Context, change func(*Config)) error {
		c := l.cfg
		c.Listen, c.Status = "127.0.0.1:0", "127.0.0.1:0"
		change(&c)
		return must(New(c))(t).Run(ctx)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := run(ended, func(*Config) {}); err != nil {
		t.Errorf("Run that was ended: %v", err)
	}
	taken := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer taken.Close()
	for name, change := range map[string]func(*Config){
		"listen": func(c *Config) { c.Listen = taken.Addr().String() },
		"status": func(c *Config) { c.Status = taken.Addr().String() },
	} {
		if err := run(t.Context(), change); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
			t.Errorf("%s on a port that is taken: %v", name, err)
		}
	}
	other := must(site.Create(t.Context(), l.file("other.db"), site.Settings{Code: "OTH"}))(t)
	defer other.Close()
	if err := run(t.Context(), func(c *Config) { c.Site = other }); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("another site's database: %v, want invalid", err)
	}
}
