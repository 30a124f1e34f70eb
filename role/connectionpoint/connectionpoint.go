// Package connectionpoint holds channels open from inside a network to every
// gateway instance outside it, and passes what arrives to the servers it is
// mapped to.
//
// It fetches from its site what is published and where each prefix leads
// (see [cmg.Map]), carries the signed publication to each gateway, and keeps
// the last map on disk, so that it can start while its site is away. It
// listens on nothing but its status page.
package connectionpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/handover"
	"github.com/opencmg/cmg/meter"
	"github.com/opencmg/cmg/web"
)

// Config says what a connection point needs. Fields with a JSON name come
// from the configuration; main sets the rest.
type Config struct {
	Name        string               `json:"name"`         // empty: the name in its certificate
	Gateways    []Gateway            `json:"gateways"`     // every instance; at least one entry
	Identity    auth.IdentityFiles   `json:"identity"`     // issued by the site
	Map         string               `json:"map"`          // https:// address of a management point, or a file
	StateDir    string               `json:"state_dir"`    // keeps the last map
	Connections int                  `json:"connections"`  // to each gateway; 0: 2
	Targets     []Target             `json:"targets"`      // how to meet servers that are not our site's
	MaxRequests int                  `json:"max_requests"` // at once, parked ones too; 0: 131,072
	MapEvery    time.Duration        `json:"map_every"`    // how often to ask for a new map; 0: 5 s
	AnswerTime  time.Duration        `json:"answer_time"`  // a server may take so long to begin its answer; 0: 20 min, for long polls
	AccessLog   web.RequestLogConfig `json:"access_log"`   // which requests are logged
	ReportEvery time.Duration        `json:"report_every"` // how often to report the traffic of each endpoint; 0: 5 min
	Status      string               `json:"status"`       // health and status, plain HTTP: keep it on loopback; empty: none
	Drain       time.Duration        `json:"drain"`        // for requests under way when told to stop; 0: 20 s
	BetterEvery time.Duration        `json:"better_every"` // how often a better way than the one in use is tried again; 0: 10 min
	Proxy       Proxy                `json:"proxy"`        // web proxy towards the gateways
	Origins     OriginConfig         `json:"origins"`      // what each server is sent at most

	Again   web.Again[Config] `json:"-"` // how the configuration is taken anew
	Sockets *handover.Sockets `json:"-"` // inherits listeners and hands them on; nil: they are the point's own
	Health  *web.Health       `json:"-"` // told how it fares; nil: one of its own
	Log     *slog.Logger      `json:"-"` // nil is silent
	Now     func() time.Time  `json:"-"` // nil: time.Now
}

// A Target says how to make TLS connections to one server. A server that is
// not listed is met with the site's roots and this point's own certificate.
type Target struct {
	URL         string `json:"url"`         // https://host[:port], as in the map
	Roots       string `json:"roots"`       // PEM file; empty: the system's roots
	Certificate string `json:"certificate"` // PEM file; empty: none is shown
	Key         string `json:"key"`         // PEM file
}

// A Point is a connection point. Run it once.
type Point struct {
	cfg     Config // as it was at the start; of live what may change
	log     *slog.Logger
	live    atomic.Pointer[snapshot]
	reload  *web.Reloader
	health  *web.Health
	maps    *maps
	tickets tickets
	fleet   fleet
	judging sync.Mutex // of readiness

	jobs       chan job
	broken     chan *target // those that are to be left alone: see mend
	lookout    lookout
	retired    retired
	parked     atomic.Int64 // requests that wait without a worker
	traffic    *traffic
	requestLog *web.RequestLog
	workers    sync.WaitGroup
	publishes  sync.WaitGroup
	active     atomic.Int64
	idle       atomic.Int64
	requests   atomic.Int64
	failed     atomic.Int64
	refused    atomic.Int64 // there were MaxRequests
	unmapped   atomic.Int64
	refusals   *web.RefusalRing
}

// New checks c, reads its files and returns a Point that has started nothing.
func New(c Config) (*Point, error) {
	broken := make(chan *target, 64)
	s, err := build(c, broken)
	if err != nil {
		return nil, err
	}
	p := &Point{cfg: s.cfg, log: s.cfg.Log, health: c.Health, refusals: web.NewRefusalRing(true), jobs: make(chan job), broken: broken}
	if p.health == nil {
		p.health = web.NewHealth(string(cmg.RoleConnectionPoint))
	}
	p.live.Store(s)
	p.fleet.plan(s.cfg, p)
	p.maps = newMaps(p)
	p.traffic = newTraffic(p)
	p.requestLog = web.NewRequestLog(p.log, p.cfg.AccessLog)
	p.reload = web.NewReloader(p.health, p.log, c.Again, func() Config { return p.live.Load().given }, p.install, p.files)
	p.publishStatus()
	return p, nil
}

// publish sends the publication on every channel whose gateway lacks it. One
// that takes its time holds up no other.
func (p *Point) publish() {
	for _, l := range p.fleet.links() {
		if h := l.cur.Load(); h != nil {
			p.publishes.Go(h.publish)
		}
	}
}

func (c Config) withDefaults() Config {
	def := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	defTime := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Connections, 2)
	def(&c.MaxRequests, 131072)
	defTime(&c.MapEvery, 5*time.Second)
	defTime(&c.AnswerTime, 20*time.Minute)
	defTime(&c.Drain, 20*time.Second)
	defTime(&c.ReportEvery, 5*time.Minute)
	defTime(&c.BetterEvery, 10*time.Minute)
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Identity.Now = c.Now
	c.Log = web.Log(c.Log)
	return c
}

// Run keeps the channels open until ctx ends, then lets requests under way
// finish within Config.Drain. It returns after every goroutine it started
// has ended.
func (p *Point) Run(ctx context.Context) error {
	if err := os.MkdirAll(p.cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("connection point: state_dir: %w", err)
	}
	if err := p.maps.load(); err != nil {
		p.log.Warn("the kept map cannot be used; waiting for the site", "err", err)
	}
	var wg sync.WaitGroup
	if p.cfg.Status != "" {
		ln, err := p.cfg.Sockets.Listen(ctx, "status", p.cfg.Status, nil)
		if err != nil {
			return fmt.Errorf("connection point: listen for status: %w", err)
		}
		srv := &http.Server{Handler: p.health.Handler(), ReadHeaderTimeout: 5 * time.Second}
		wg.Go(func() {
			if err := web.Serve(ctx, srv, ln, time.Second); err != nil {
				p.log.Error("status", "err", err)
			}
		})
	}
	p.log.Info("connection point is up", "name", p.cfg.Name, "gateways", p.cfg.Gateways)
	wg.Go(func() { p.maps.follow(ctx) })
	wg.Go(func() { p.tendUpstreams(ctx) })
	wg.Go(func() { p.mend(ctx) })
	wg.Go(func() { p.tickets.follow(ctx, p) })
	wg.Go(func() { p.reload.Run(ctx) })
	wg.Go(func() { p.handOnRefusals(ctx) })
	wg.Go(func() { p.traffic.run(ctx) })
	wg.Go(func() { p.lookout.run(ctx) })
	lctx, stopLog := context.WithCancel(context.WithoutCancel(ctx)) // it outlives the requests
	defer stopLog()
	var logging sync.WaitGroup
	logging.Go(func() { p.requestLog.Run(lctx) })
	p.fleet.begin(ctx, p)
	p.health.Set("up", nil)
	p.fleet.wait()
	wg.Wait()
	p.publishes.Wait()
	close(p.jobs)
	p.workers.Wait()
	p.live.Load().pool.close()
	p.retired.close()
	stopLog()
	logging.Wait()
	return nil
}

// publishStatus says what the status page shows.
func (p *Point) publishStatus() {
	p.health.Publish("name", func() any { return p.cfg.Name })
	p.health.Publish("requests", func() any { return p.requests.Load() })
	p.health.Publish("in_flight", func() any { return p.active.Load() })
	p.health.Publish("parked", func() any { return p.parked.Load() })
	p.health.Publish("failed", func() any { return p.failed.Load() })
	p.health.Publish("traffic", p.traffic.status)
	p.health.Mount(web.RefusalsPath, p.refusals)
	p.health.Publish("targets", func() any { return p.live.Load().pool.originRows() })
	p.health.Mount("/metrics", meter.Handler(Metrics, p.gather))
	p.health.Publish("map", func() any { return p.maps.status() })
	p.health.Publish("gateways", func() any {
		rows := map[string][]any{}
		for _, l := range p.fleet.links() {
			rows[l.place.label] = append(rows[l.place.label], l.status())
		}
		return rows
	})
	p.updateReadiness()
}

func (p *Point) updateReadiness() {
	p.judging.Lock() // what was seen first is said first
	defer p.judging.Unlock()
	var errs []error
	for _, pl := range p.fleet.places() {
		switch n := pl.found(); {
		case n == 0:
			errs = append(errs, fmt.Errorf("no channel to %s", pl.label))
		case n < pl.want:
			errs = append(errs, fmt.Errorf("channels to %d of %d instances at %s", n, pl.want, pl.label))
		}
	}
	p.health.Set("gateways", errors.Join(errs...))
	var err error
	if p.maps.table.Load() == nil {
		err = errors.New("no map was received yet")
	}
	p.health.Set("map", err)
}
