package managementpoint

import (
	"context"
	"fmt"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// A snapshot is what a configuration, and the files it names, make of the
// management point: immutable. A new one meets new connections and requests.
type snapshot struct {
	given   Config // as it came
	cfg     Config // with what it leaves out
	id      *auth.Identity
	signing *auth.Identity
	keyring *auth.Keyring
	signed  *signatures // of assignments, by the key of signing
}

// fixed are the keys that cannot change while the management point runs.
var fixed = []string{"name", "listen", "listen_http", "status", "audit_head", "uploads", "distribution", "notify_listen"}

// build reads the files c names and checks them against one another.
func build(given Config) (*snapshot, error) {
	c := given
	if err := c.complete(); err != nil {
		return nil, fmt.Errorf("management point: %w", err)
	}
	s := &snapshot{given: given, signed: new(signatures)}
	var err error
	if s.id, err = auth.LoadIdentity(c.Identity); err != nil {
		return nil, fmt.Errorf("management point: %w", err)
	}
	if s.signing, err = auth.LoadIdentity(c.Signing); err != nil {
		return nil, fmt.Errorf("management point: site signing %w", err)
	}
	if s.keyring, err = auth.LoadKeyring(c.TokenKeys); err != nil {
		return nil, fmt.Errorf("management point: %w", err)
	}
	own, signer := s.id.Name(), s.signing.Name()
	if own.Role != cmg.RoleManagementPoint || signer.Role != cmg.RoleSite || own.Site != signer.Site {
		return nil, fmt.Errorf("management point: identity %s and signing identity %s are not a management point and its site: %w", own, signer, cmg.ErrInvalid)
	}
	if c.Name == "" {
		c.Name = own.Name
		if dns := s.id.Certificate().DNSNames; len(dns) > 0 {
			c.Name = dns[0]
		}
	}
	s.cfg = c
	return s, nil
}

// install makes c the running configuration, but for what is fixed. Keys that
// are new in the keyring are published first.
func (p *Point) install(c Config) (changed, later []string, err error) {
	old := p.live.Load()
	if c.AuditHead == "" { // main names the usual file
		c.AuditHead = old.given.AuditHead
	}
	c.Distribution.Store = old.given.Distribution.Store
	changed, later = web.Differences(old.given, &c, fixed...)
	c.Site, c.Log, c.Now, c.Health, c.Sockets, c.Again = old.given.Site, old.given.Log, old.given.Now, old.given.Health, old.given.Sockets, old.given.Again
	s, err := build(c)
	if err != nil {
		return nil, nil, err
	}
	if was, is := old.id.Name(), s.id.Name(); was != is {
		return nil, nil, fmt.Errorf("management point: identity: the certificate is that of %s, and this is %s: %w", is, was, cmg.ErrConflict)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.cfg.Site.AddTokenKeys(ctx, s.keyring.PublicKeys()); err != nil {
		return nil, nil, fmt.Errorf("management point: %w", err)
	}
	p.live.Store(s)
	p.maps.forget() // the signer may be another one
	return changed, later, nil
}

// files are those that the running configuration names.
func (p *Point) files() []string {
	c := p.live.Load().cfg
	return []string{c.Identity.Certificate, c.Identity.Key, c.Identity.Roots, c.Signing.Certificate, c.Signing.Key, c.Signing.Roots, c.TokenKeys}
}
