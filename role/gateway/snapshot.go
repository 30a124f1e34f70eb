package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/content"
	"github.com/opencmg/cmg/web"
)

// A snapshot is what a configuration, and the files it names, make of the
// gateway: immutable. A new one meets new connections and
// requests; what is open stays as it is.
type snapshot struct {
	given    Config // as it came
	cfg      Config // with what it leaves out
	identity *auth.Identity
	front    *tls.Config // clients
	served   *auth.Front // the certificate in it
	channel  *tls.Config // connection points at their own port, and within a WebSocket
	signer   *auth.CallerSigner
	locator  *content.Locator // nil: no content

	addresses *addresses // nil: no limit
	greetings *addresses // of handshakes; nil: no limit
}

// fixed are the keys that cannot change while the gateway runs: what it
// listens on, what its state belongs to, and the sizes of tables that are in
// use.
var fixed = []string{"name", "listen", "reuse_port", "channel", "channel_https", "status", "state_dir", "max_connections", "max_requests", "max_callers", "budget.window"}

// build checks c, reads its files and makes a snapshot of it.
func build(given Config) (*snapshot, error) {
	c := given.withDefaults()
	s := &snapshot{given: given}
	var err error
	if s.identity, err = auth.LoadIdentity(c.Identity); err != nil {
		return nil, fmt.Errorf("gateway: identity: %w", err)
	}
	name := s.identity.Name()
	if name.Role != cmg.RoleGateway {
		return nil, fmt.Errorf("gateway: identity: the certificate %s is for the role %q, not %q: %w", c.Identity.Certificate, name.Role, cmg.RoleGateway, cmg.ErrInvalid)
	}
	if c.Name == "" {
		c.Name = name.Name
	}
	if c.StateDir == "" {
		return nil, fmt.Errorf("gateway: state_dir is empty: %w", cmg.ErrInvalid)
	}
	if c.ACME.Dir == "" {
		c.ACME.Dir = filepath.Join(c.StateDir, "acme")
	}
	if s.served, err = auth.NewFront(auth.FrontConfig{Certificate: c.Certificate, Key: c.Key, PasswordFile: c.PasswordFile, ACME: c.ACME, Log: c.Log, Now: c.Now}); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	s.front, s.channel = s.identity.WithChannel(s.served.Settings()), s.identity.ChannelServer()
	if c.Links != nil {
		if s.locator, err = content.NewLocator(content.LocatorConfig{Links: c.Links, Now: c.Now}); err != nil {
			return nil, fmt.Errorf("gateway: content: %w", err)
		}
	}
	s.signer = auth.NewCallerSigner(s.identity)
	if err := c.AccessLog.Check(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if c.Budget, err = c.Budget.withDefaults(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if c.CallerLimits, err = c.CallerLimits.withDefaults(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if c.AddressLimits, err = c.AddressLimits.withDefaults(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	limits := c.AddressLimits
	s.addresses = newAddresses(CallerLimits{Rate: limits.Rate, Burst: limits.Burst})
	s.greetings = newAddresses(CallerLimits{Rate: limits.HandshakeRate, Burst: limits.HandshakeBurst})
	s.cfg = c
	return s, nil
}

// install makes c the running configuration, but for what is fixed.
func (g *Gateway) install(c Config) (changed, later []string, err error) {
	old := g.live.Load()
	stays := fixed
	if (old.given.Budget.Bytes > 0) != (c.Budget.Bytes > 0) {
		stays = append(slices.Clone(stays), "budget.bytes") // there is a file, or there is none
	}
	changed, later = web.Differences(old.given, &c, stays...)
	c.Log, c.Now, c.Health, c.Sockets, c.Again = old.given.Log, old.given.Now, old.given.Health, old.given.Sockets, old.given.Again
	s, err := build(c)
	if err != nil {
		return nil, nil, err
	}
	if was, is := old.identity.Name(), s.identity.Name(); was != is {
		return nil, nil, fmt.Errorf("gateway: identity: the certificate is that of %s, and this is %s: %w", is, was, cmg.ErrConflict)
	}
	s.served.After(old.served)
	g.tickets.use(s.front)
	g.live.Store(s)
	select {
	case g.newFront <- struct{}{}:
	default:
	}
	g.requestLog.Configure(s.cfg.AccessLog)
	if g.budget != nil {
		g.budget.configure(s.cfg.Budget)
	}
	return changed, later, g.again()
}

// again makes the edge anew, for what in it comes from the configuration.
func (g *Gateway) again() error {
	g.taking.Lock()
	defer g.taking.Unlock()
	old := g.edge.Load()
	if old == nil {
		return nil
	}
	e, err := g.newEdge(old.publication)
	if err != nil {
		return errors.New("the publication in force cannot be read again: " + err.Error())
	}
	g.edge.Store(e)
	return nil
}

// files are those that the running configuration names.
func (g *Gateway) files() []string {
	c := g.live.Load().cfg
	return []string{c.Certificate, c.Key, c.PasswordFile, c.ACME.Roots, c.Identity.Certificate, c.Identity.Key, c.Identity.Roots, c.Content.KeyFile, c.Content.Roots}
}

// followFront follows the certificate that clients meet, of whichever
// configuration runs, until ctx ends.
func (g *Gateway) followFront(ctx context.Context) {
	for ctx.Err() == nil {
		served := g.live.Load().served
		one, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { served.Run(one) })
		select {
		case <-ctx.Done():
		case <-g.newFront:
		}
		stop()
		wg.Wait()
	}
}

// configure changes what the budget is.
func (b *budget) configure(c BudgetConfig) {
	b.mu.Lock()
	b.conf = c
	now := b.last
	b.mu.Unlock()
	b.look(now)
}
