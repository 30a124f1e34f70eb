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
	"github.com/opencmg/cmg/web"
)

// A snapshot is what a configuration, and the files it names, make of the
// gateway: immutable. A new one meets new connections and
// requests; what is open stays as it is.
type snapshot struct {
	given   Config      // as it came
	cfg     Config      // with what it leaves out
	parties []party     // in the order of Gateway.sites
	front   *tls.Config // clients
	shown   *auth.Front // the certificate in it
	channel *tls.Config // connection points at their own port, and within a WebSocket

	addresses *addresses // nil: no limit
	greetings *addresses // of handshakes; nil: no limit
}

// fixed are the keys that cannot change while the gateway runs: what it
// listens on, what its state belongs to, whom it serves, and the sizes of
// tables that are in use.
var fixed = []string{"name", "listen", "reuse_port", "channel", "channel_https", "status", "state_dir", "sites", "choice", "waiting",
	"max_connections", "max_requests", "max_callers", "budget.window"}

// build checks c, reads its files and makes a snapshot of it.
func build(given Config) (*snapshot, error) {
	c := given.withDefaults()
	s := &snapshot{given: given}
	if c.ACME.Dir == "" && c.StateDir != "" {
		c.ACME.Dir = filepath.Join(c.StateDir, "acme")
	}
	err := s.loadParties(&c)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if c.Name == "" {
		c.Name = s.parties[0].identity.Name().Name
	}
	if c.StateDir == "" {
		return nil, fmt.Errorf("gateway: state_dir is empty: %w", cmg.ErrInvalid)
	}
	if err := c.Choice.check(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if c.Waiting, err = c.Waiting.withDefaults(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
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
	was, sites := old.given, c.Sites
	was.Sites, c.Sites = bare(was.Sites), bare(c.Sites)
	changed, later = web.Differences(was, &c, stays...)
	if c.Sites = sites; slices.Contains(later, "sites") {
		c.Sites = old.given.Sites
	}
	c.Log, c.Now, c.Health, c.Sockets, c.Again = old.given.Log, old.given.Now, old.given.Health, old.given.Sockets, old.given.Again
	s, err := build(c)
	if err != nil {
		return nil, nil, err
	}
	for i := range s.parties {
		if was, is := old.parties[i].identity.Name(), s.parties[i].identity.Name(); was != is {
			return nil, nil, fmt.Errorf("gateway: identity: the certificate is that of %s, and this is %s: %w", is, was, cmg.ErrConflict)
		}
	}
	s.shown.After(old.shown)
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

// bare gives sites as the configuration has them, without what main made of
// it.
func bare(sites []Site) []Site {
	sites = slices.Clone(sites)
	for i := range sites {
		sites[i].Links = nil
	}
	return sites
}

// again makes the edges anew, for what in them comes from the configuration.
func (g *Gateway) again() error {
	g.taking.Lock()
	defer g.taking.Unlock()
	for _, s := range g.sites {
		old := s.edge.Load()
		if old == nil {
			continue
		}
		e, err := g.newEdge(s, old.publication)
		if err != nil {
			return errors.New("the publication in force cannot be read again: " + err.Error())
		}
		s.edge.Store(e)
		s.inquiry.rouse()
	}
	return nil
}

// files are those that the running configuration names.
func (g *Gateway) files() []string {
	c := g.live.Load().cfg
	files := []string{c.Certificate, c.Key, c.PasswordFile, c.ACME.Roots}
	for _, s := range append([]Site{{IdentityFiles: c.Identity, Content: c.Content}}, c.Sites...) {
		files = append(files, s.Certificate, s.Key, s.Roots, s.Content.KeyFile, s.Content.Roots)
	}
	return files
}

// followFront follows the certificate that clients meet, of whichever
// configuration runs, until ctx ends.
func (g *Gateway) followFront(ctx context.Context) {
	for ctx.Err() == nil {
		shown := g.live.Load().shown
		one, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { shown.Run(one) })
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
