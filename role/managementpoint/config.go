package managementpoint

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/handover"
	"github.com/opencmg/cmg/site"
	"github.com/opencmg/cmg/web"
)

// Config says what a management point needs. Fields with a JSON name come
// from the config file; main sets the rest.
type Config struct {
	Name       string             `json:"name"`        // host name as clients see it; empty: the first DNS name of the identity's certificate
	Listen     string             `json:"listen"`      // host:port for HTTPS; empty: :443
	ListenHTTP string             `json:"listen_http"` // host:port for HTTP without TLS, for clients inside that know nothing else; empty: none
	Identity   auth.IdentityFiles `json:"identity"`    // role management-point
	Signing    auth.IdentityFiles `json:"signing"`     // role site: signs publications
	TokenKeys  string             `json:"token_keys"`  // keyring file of the site's tokens
	Status     string             `json:"status"`      // host:port for /livez, /readyz and /status over HTTP; empty: none
	AuditHead  string             `json:"audit_head"`  // file for the signed end of the audit log; empty: audit.head in the site's folder

	Approval         string        `json:"approval"`           // manual or automatic; empty: manual
	ContentTokenLife time.Duration `json:"content_token_life"` // 0: 24h
	SessionTokenLife time.Duration `json:"session_token_life"` // 0: 8h
	DeviceTokenLife  time.Duration `json:"device_token_life"`  // 0: 2160h
	DeviceTokenGrace time.Duration `json:"device_token_grace"` // after its end a device may renew its token with proof of its key; 0: 720h; below 0: never
	ClockAllowance   time.Duration `json:"clock_allowance"`    // how far a signed time in a message's headers may be from ours; 0: 24h
	ProofAllowance   time.Duration `json:"proof_allowance"`    // the same of the proof for a session token; 0: 15m

	Uploads       UploadConfig       `json:"uploads"`      // files from devices, by BITS
	Distribution  DistributionConfig `json:"distribution"` // packages, as a distribution point shows them
	Compatibility Compatibility      `json:"compatibility"`

	NotifyListen   string        `json:"notify_listen"`   // host:port where clients inside are notified over TCP, the field's port is 10123; empty: none
	NotifyInterval time.Duration `json:"notify_interval"` // how often a waiting client confirms that it is online; 0: 15m
	NotifyClients  int           `json:"notify_clients"`  // that wait at once, at most; 0: 65536

	Site    *site.Site        `json:"-"` // the site's database; the caller closes it after Run
	Again   web.Again[Config] `json:"-"` // how the configuration is taken anew
	Sockets *handover.Sockets `json:"-"` // inherits listeners and hands them on; nil: they are the point's own
	Health  *web.Health       `json:"-"` // told how it fares; nil: one of its own
	Log     *slog.Logger      `json:"-"` // nil is silent
	Now     func() time.Time  `json:"-"` // nil: time.Now
}

// maxAllowance is what the field's clients need at most (PROTOCOL 5): a clock
// that is a day off.
const maxAllowance = 24 * time.Hour

// maxLife is what a gateway accepts of any token.
const maxLife = 100 * 24 * time.Hour

// complete checks c and fills in what is left out.
func (c *Config) complete() error {
	if c.Site == nil {
		return fmt.Errorf("no site database: %w", cmg.ErrInvalid)
	}
	switch c.Approval {
	case "":
		c.Approval = "manual"
	case "manual", "automatic":
	default:
		return fmt.Errorf("approval %.40q is neither manual nor automatic: %w", c.Approval, cmg.ErrInvalid)
	}
	for _, l := range []struct {
		name  string
		life  *time.Duration
		usual time.Duration
	}{
		{"content_token_life", &c.ContentTokenLife, 24 * time.Hour},
		{"session_token_life", &c.SessionTokenLife, 8 * time.Hour},
		{"device_token_life", &c.DeviceTokenLife, 90 * 24 * time.Hour},
	} {
		if *l.life == 0 {
			*l.life = l.usual
		}
		if *l.life < time.Second || *l.life > maxLife {
			return fmt.Errorf("%s %s is not between a second and 100 days: %w", l.name, *l.life, cmg.ErrInvalid)
		}
	}
	switch {
	case c.DeviceTokenGrace == 0:
		c.DeviceTokenGrace = 30 * 24 * time.Hour
	case c.DeviceTokenGrace < 0:
		c.DeviceTokenGrace = 0
	}
	if c.DeviceTokenGrace > auth.MaxGrace {
		return fmt.Errorf("device_token_grace %s is longer than 90 days: %w", c.DeviceTokenGrace, cmg.ErrInvalid)
	}
	for _, l := range []struct {
		name      string
		allowance *time.Duration
		usual     time.Duration
	}{{"clock_allowance", &c.ClockAllowance, maxAllowance}, {"proof_allowance", &c.ProofAllowance, 15 * time.Minute}} {
		if *l.allowance == 0 {
			*l.allowance = l.usual
		}
		if *l.allowance < time.Second || *l.allowance > maxAllowance {
			return fmt.Errorf("%s %s is not between a second and 24h: %w", l.name, *l.allowance, cmg.ErrInvalid)
		}
	}
	if c.NotifyInterval == 0 {
		c.NotifyInterval = 15 * time.Minute
	}
	if c.NotifyInterval < time.Second || c.NotifyInterval > time.Hour {
		return fmt.Errorf("notify_interval %s is not between a second and an hour: %w", c.NotifyInterval, cmg.ErrInvalid)
	}
	if c.NotifyClients == 0 {
		c.NotifyClients = 65536
	}
	if c.NotifyClients < 0 {
		return fmt.Errorf("notify_clients %d is negative: %w", c.NotifyClients, cmg.ErrInvalid)
	}
	if c.Listen == "" {
		c.Listen = ":443"
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Identity.Now, c.Signing.Now = c.Now, c.Now
	c.Log = web.Log(c.Log)
	return nil
}
