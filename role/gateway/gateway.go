// Package gateway is the cloud management gateway instance: it meets clients
// on the internet, proves who they are, and sends their requests down a
// channel that a connection point opened from the inside.
//
// It keeps no database. What it has to know (routes, trust anchors, token
// keys) arrives as a publication over the channel, signed by the site; the
// last good one is kept on disk, so that an instance that starts while its
// site is away still knows whom to refuse and why. Whatever is not published
// never leaves the edge.
package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/content"
	"github.com/opencmg/cmg/gate"
	"github.com/opencmg/cmg/handover"
	"github.com/opencmg/cmg/web"
)

// Config says what a gateway instance needs. Fields with a JSON name come
// from the configuration; main sets the rest.
type Config struct {
	Name           string               `json:"name"`            // of the instance; empty: the name in its channel certificate
	Listen         string               `json:"listen"`          // clients; empty: ":443"
	ReusePort      bool                 `json:"reuse_port"`      // share the client port with other instances on this machine
	Channel        string               `json:"channel"`         // connection points by TCP; empty: ":10140"; none: they come to the clients' port only
	ChannelHTTPS   string               `json:"channel_https"`   // one more address for connection points by HTTPS, such as ":10124"; empty: none
	Certificate    string               `json:"certificate"`     // the certificate clients see, with its chain: a PEM file, or a PFX (.pfx, .p12)
	Key            string               `json:"key"`             // PEM file; empty with a PFX
	PasswordFile   string               `json:"password_file"`   // of the PFX; empty: it has an empty password
	ACME           auth.ACMEConfig      `json:"acme"`            // fetches the certificate, in place of the files
	Identity       auth.IdentityFiles   `json:"identity"`        // issued by the site: the channel's certificate, its key, the site's roots
	Sites          []Site               `json:"sites"`           // further ones that this gateway serves; none: it serves one
	StateDir       string               `json:"state_dir"`       // keeps the last good publication
	Content        ContentConfig        `json:"content"`         // what main makes Links of
	Status         string               `json:"status"`          // health and status, plain HTTP: keep it on loopback; empty: none
	Predrain       time.Duration        `json:"predrain"`        // served as ever, but not ready, before a drain begins: for a balancer to notice
	Drain          time.Duration        `json:"drain"`           // for requests under way when told to stop; 0: 20 s
	MaxConnections int                  `json:"max_connections"` // client connections at once; 0: 16,384
	AccessLog      web.RequestLogConfig `json:"access_log"`      // which requests are logged
	Budget         BudgetConfig         `json:"budget"`          // what may be sent to clients
	CallerLimits   CallerLimits         `json:"caller_limits"`   // for each device
	AddressLimits  AddressLimits        `json:"address_limits"`  // for each address
	MaxRequests    int64                `json:"max_requests"`    // inward at once, a tenth of them for the first class only; 0: 65,536
	MaxCallers     int                  `json:"max_callers"`     // devices counted one by one; 0: 65,536
	Choice         Choice               `json:"choice"`          // of the connection point for a request; empty: round-robin
	Waiting        WaitingConfig        `json:"waiting"`         // requests that no connection point is there for

	Links   content.Links     `json:"-"` // signs and reads the content store's URLs; nil: this gateway serves no content of the first site
	Again   web.Again[Config] `json:"-"` // how the configuration is taken anew
	Sockets *handover.Sockets `json:"-"` // inherits listeners and hands them on; nil: they are the gateway's own
	Health  *web.Health       `json:"-"` // told how it fares; nil: one of its own
	Log     *slog.Logger      `json:"-"` // nil is silent
	Now     func() time.Time  `json:"-"` // nil: time.Now
}

// ContentConfig says where packages are kept and how their locations are signed.
type ContentConfig struct {
	URL     string `json:"url"`      // base address of the content store's listener, as clients reach it; empty: no content
	KeyFile string `json:"key_file"` // the store's signing key
	Roots   string `json:"roots"`    // PEM file that signs the store's certificate; empty: the system's roots
}

// A Gateway is one instance. Run it once.
type Gateway struct {
	*served // the first site, whose instance this is

	cfg        Config
	log        *slog.Logger
	now        func() time.Time
	sites      []*served // all of them, the first first
	live       atomic.Pointer[snapshot]
	reload     *web.Reloader
	tickets    tickets
	health     *web.Health
	slots      *pointSlots
	waiting    *waiting
	channels   channels
	ids        requestIDs
	counts     counters
	accounts   *accounts
	budget     *budget    // nil: there is none
	gate       *gate.Gate // of all requests
	memory     *memoryGuard
	newFront   chan struct{} // the running configuration has another front
	tunnels    tunnels
	requestLog *web.RequestLog

	taking   sync.Mutex // one publication at a time
	judging  sync.Mutex // of readiness
	limits   timeLimits
	draining atomic.Bool
	settled  chan struct{} // closed when nobody is waited for any more who has asked for nothing
	clients  clients
	fronts   fronts // of HTTP/2
	refusals *web.RefusalRing

	accepting sync.WaitGroup // at the doors of clients
}

// New checks c, reads its files and returns a Gateway that has started
// nothing.
func New(c Config) (*Gateway, error) {
	s, err := build(c)
	if err != nil {
		return nil, err
	}
	g := &Gateway{cfg: s.cfg, log: s.cfg.Log, now: s.cfg.Now, health: c.Health, slots: newPointSlots(), waiting: &waiting{WaitingConfig: s.cfg.Waiting},
		ids: newRequestIDs(), limits: usual(), settled: make(chan struct{}), newFront: make(chan struct{}, 1), refusals: web.NewRefusalRing(false)}
	if g.health == nil {
		g.health = web.NewHealth(string(cmg.RoleGateway))
	}
	g.live.Store(s)
	g.addSites(s)
	g.tickets.begin(g)
	g.accounts = newAccounts(g.log, g.cfg.MaxCallers)
	g.memory = newMemoryGuard()
	g.gate = gate.New(gate.Config{Limit: max(g.cfg.MaxRequests, 1), Reserve: true})
	g.requestLog = web.NewRequestLog(g.log, g.cfg.AccessLog)
	g.clients.slots = make(chan struct{}, g.cfg.MaxConnections)
	g.reload = web.NewReloader(g.health, g.log, c.Again, func() Config { return g.live.Load().given }, g.install, g.files)
	g.publishStatus()
	return g, nil
}

func (c Config) withDefaults() Config {
	def := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	def(&c.Listen, ":443")
	def(&c.Channel, ":10140")
	if c.Drain == 0 {
		c.Drain = 20 * time.Second
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 16384
	}
	if c.MaxRequests == 0 {
		c.MaxRequests = 65536
	}
	if c.MaxCallers == 0 {
		c.MaxCallers = 65536
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Identity.Now = c.Now
	c.Log = web.Log(c.Log)
	return c
}

// Run serves until ctx ends, then lets requests under way finish within
// Config.Drain. It returns after every goroutine it started has ended.
func (g *Gateway) Run(ctx context.Context) error {
	if err := os.MkdirAll(g.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("gateway: state_dir: %w", err)
	}
	if err := g.loadBudget(); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	for _, s := range g.sites {
		if err := g.loadPublication(s); err != nil {
			g.log.Warn("the kept publication cannot be used; waiting for a connection point", "site", s.code, "err", err)
		}
	}
	doors, err := g.open(ctx)
	if err != nil {
		return err
	}
	defer doors.close()

	// What serves clients stops first; channels stay until no client is left.
	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInner()
	g.channels.begin(inner)
	var back, fronts sync.WaitGroup
	fail := make(chan error, 4)
	run := func(wg *sync.WaitGroup, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				fail <- err
			}
		})
	}
	if g.cfg.Status != "" {
		ln, err := g.cfg.Sockets.Listen(ctx, "status", g.cfg.Status, nil)
		if err != nil {
			return fmt.Errorf("gateway: listen for status: %w", err)
		}
		srv := &http.Server{Handler: g.health.Handler(), ReadHeaderTimeout: 5 * time.Second}
		run(&back, func() error { return web.Serve(inner, srv, ln, time.Second) })
	}
	if doors.channel != nil {
		run(&back, func() error { return g.serveChannels(inner, doors.channel) })
	}
	back.Go(func() { g.requestLog.Run(inner) })
	back.Go(func() { g.reload.Run(inner) })
	back.Go(func() { g.tickets.run(inner) })
	back.Go(func() { g.guardMemory(inner) })
	for _, s := range g.sites {
		back.Go(func() { s.inquiry.run(inner) })
		back.Go(func() { g.reportRefusals(inner, s) })
	}
	back.Go(func() { g.followFront(inner) })
	if g.budget != nil {
		back.Go(func() { g.budget.run(inner, g.now) })
	}
	sctx, stopServing := context.WithCancel(inner) // not before a drain has begun
	defer stopServing()
	g.accepting.Add(len(doors.front))
	for _, ln := range doors.front {
		run(&fronts, func() error { return g.serveClients(sctx, ln) })
	}
	g.log.Info("gateway is up", "name", g.cfg.Name, "clients", doors.front[0].Addr().String(), "channels", doors.channelAddr())
	g.health.Set("up", nil)

	select {
	case <-ctx.Done():
		err = nil
	case err = <-fail:
	}
	g.leave(doors)
	stopServing()
	fronts.Wait()
	stopInner()
	doors.close()
	back.Wait()
	g.channels.wait()
	return err
}
