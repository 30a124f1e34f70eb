package connectionpoint

import (
	"fmt"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// A snapshot is what a configuration, and the files it names, make of the
// connection point: immutable. A new one meets new connections;
// what is open stays as it is.
type snapshot struct {
	given    Config // as it came
	cfg      Config // with what it leaves out
	identity *auth.Identity
	outer    *auth.Outer
	dialer   *dialer
	pool     *upstreams
}

// fixed are the keys that cannot change while the connection point runs.
var fixed = []string{"name", "map", "state_dir", "status", "max_requests", "map_every", "report_every"}

// build checks c, reads its files and makes a snapshot of it. broken takes
// targets that cannot be reached.
func build(given Config, broken chan<- *target) (*snapshot, error) {
	c := given.withDefaults()
	s := &snapshot{given: given}
	if len(c.Gateways) == 0 {
		return nil, fmt.Errorf("connection point: gateways is empty: %w", cmg.ErrInvalid)
	}
	for _, g := range c.Gateways {
		if _, err := g.places(); err != nil {
			return nil, fmt.Errorf("connection point: gateways: %w", err)
		}
	}
	var err error
	if s.identity, err = auth.LoadIdentity(c.Identity); err != nil {
		return nil, fmt.Errorf("connection point: identity: %w", err)
	}
	name := s.identity.Name()
	if name.Role != cmg.RoleConnectionPoint {
		return nil, fmt.Errorf("connection point: identity: the certificate %s is for the role %q, not %q: %w", c.Identity.Certificate, name.Role, cmg.RoleConnectionPoint, cmg.ErrInvalid)
	}
	if c.Name == "" {
		c.Name = name.Name
	}
	if c.StateDir == "" || c.Map == "" {
		return nil, fmt.Errorf("connection point: state_dir and map have to be set: %w", cmg.ErrInvalid)
	}
	if c.Origins, err = c.Origins.withDefaults(); err != nil {
		return nil, fmt.Errorf("connection point: %w", err)
	}
	if s.pool, err = newUpstreams(s.identity, c, broken); err != nil {
		return nil, fmt.Errorf("connection point: targets: %w", err)
	}
	if s.outer, err = auth.NewOuter(s.identity, c.Proxy.Roots); err != nil {
		return nil, fmt.Errorf("connection point: %w", err)
	}
	if s.dialer, err = newDialer(c.Proxy, s.outer); err != nil {
		return nil, fmt.Errorf("connection point: proxy: %w", err)
	}
	if err := c.AccessLog.Check(); err != nil {
		return nil, fmt.Errorf("connection point: %w", err)
	}
	s.cfg = c
	return s, nil
}

// install makes c the running configuration, but for what is fixed. New
// gateways get channels, those that are named no more lose theirs once the
// new ones are there.
func (p *Point) install(c Config) (changed, later []string, err error) {
	old := p.live.Load()
	changed, later = web.Differences(old.given, &c, fixed...)
	c.Log, c.Now, c.Health, c.Sockets, c.Again = old.given.Log, old.given.Now, old.given.Health, old.given.Sockets, old.given.Again
	s, err := build(c, p.broken)
	if err != nil {
		return nil, nil, err
	}
	if was, is := old.identity.Name(), s.identity.Name(); was != is {
		return nil, nil, fmt.Errorf("connection point: identity: the certificate is that of %s, and this is %s: %w", is, was, cmg.ErrConflict)
	}
	p.live.Store(s)
	p.requestLog.Configure(s.cfg.AccessLog)
	p.fleet.plan(s.cfg, p)
	if err := p.maps.again(); err != nil { // before the new channels bring requests
		return nil, nil, err
	}
	p.fleet.sail(p)
	p.retired.add(old.pool)
	return changed, later, nil
}

// files are those that the running configuration names.
func (p *Point) files() []string {
	c := p.live.Load().cfg
	files := []string{c.Identity.Certificate, c.Identity.Key, c.Identity.Roots, c.Proxy.Roots, c.Proxy.PasswordFile}
	for _, t := range c.Targets {
		files = append(files, t.Roots, t.Certificate, t.Key)
	}
	return files
}
