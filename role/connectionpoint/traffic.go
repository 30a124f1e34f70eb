package connectionpoint

import (
	"cmp"
	"context"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/meter"
)

// A TrafficReport is what passed in one interval, in the terms of the
// field's ProxyTrafficStateDetails (PROTOCOL section 1.4).
type TrafficReport struct {
	ServerName            string
	StartTime, EndTime    time.Time
	MaxConcurrentRequests int64
	EndPoints             []EndPointTraffic // those with traffic
}

// An EndPointTraffic is one endpoint's part of a report, by gateway and
// target. Bytes are those of the connection to the target above TLS, heads
// and bodies; failed requests had no answer, or one of 500 and above.
type EndPointTraffic struct {
	Name, ProxyServer, TargetHost string
	TotalRequests                 int64
	TotalRequestsWithBearerToken  int64
	MaxConcurrentRequests         int64
	TotalRequestBytes             int64
	TotalResponseBytes            int64
	FailedRequests                int64
}

// What is kept of the past: 24 hours of five minutes.
const (
	keepReports = 288
	keepRows    = 20_000 // in all reports together
	maxRows     = 4096   // endpoints counted one by one; those beyond are counted together
)

// traffic counts what passes, and reports it.
type traffic struct {
	p    *Point
	most atomic.Int64 // requests at once, since the last report

	mu      sync.Mutex
	rows    map[rowName]*row
	reports []TrafficReport // the newest last
	kept    int             // rows in reports
	since   time.Time
}

type rowName struct{ endpoint, prefix, gateway, target string }

// A row counts the requests that came from one gateway to one endpoint.
type row struct {
	rowName
	shards  []rowShard
	active  atomic.Int64
	most    atomic.Int64 // active at once, since the last report
	told    counts       // in earlier reports
	latency []meter.Latency
}

type rowShard struct {
	tally          meter.Tally
	bearer, failed atomic.Int64
	_              [24]byte // the rest of a cache line
}

type counts struct {
	meter.Traffic
	bearer, failed int64
}

func newTraffic(p *Point) *traffic {
	return &traffic{p: p, rows: map[rowName]*row{}, since: p.cfg.Now()}
}

// resolve finds or makes the rows of an endpoint, one a gateway in the order
// of the configuration.
func (t *traffic) resolve(prefix string, target *target, routes []cmg.Route) []*row {
	name := path.Base(prefix)
	for _, r := range routes {
		if strings.EqualFold(r.Prefix, prefix) && r.Name != "" {
			name = r.Name
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	places := *t.p.fleet.ever.Load()
	rows := make([]*row, len(places))
	for i, pl := range places {
		g := pl.label
		n := rowName{name, prefix, g, target.address}
		if t.rows[n] == nil && len(t.rows) >= maxRows {
			n = rowName{"(other)", "", g, ""}
		}
		if t.rows[n] == nil {
			t.rows[n] = &row{rowName: n, shards: make([]rowShard, meter.Shards()), latency: make([]meter.Latency, meter.Shards())}
		}
		rows[i] = t.rows[n]
	}
	return rows
}

// raise makes most at least n.
func raise(most *atomic.Int64, n int64) {
	for {
		m := most.Load()
		if n <= m || most.CompareAndSwap(m, n) {
			return
		}
	}
}

func (r *row) begin() { raise(&r.most, r.active.Add(1)) }

func (r *row) end(at meter.Shard, in, out int64, bearer, failed bool, took time.Duration) {
	s := &r.shards[at]
	s.tally.Add(1, in, out)
	if bearer {
		s.bearer.Add(1)
	}
	if failed {
		s.failed.Add(1)
	}
	r.latency[at].Observe(took)
	r.active.Add(-1)
}

func (r *row) sum() (c counts) {
	for i := range r.shards {
		s := &r.shards[i]
		c.Traffic = c.Plus(s.tally.Load())
		c.bearer += s.bearer.Load()
		c.failed += s.failed.Load()
	}
	return c
}

// all lists the rows in order.
func (t *traffic) all() []*row {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sorted()
}

func (t *traffic) sorted() []*row {
	var rows []*row
	for _, r := range t.rows {
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b *row) int {
		return cmp.Or(cmp.Compare(a.endpoint, b.endpoint), cmp.Compare(a.prefix, b.prefix), cmp.Compare(a.gateway, b.gateway), cmp.Compare(a.target, b.target))
	})
	return rows
}

// report makes a report of what passed since the last one, and keeps it.
func (t *traffic) report(now time.Time) TrafficReport {
	t.mu.Lock()
	defer t.mu.Unlock()
	rep := TrafficReport{ServerName: t.p.cfg.Name, StartTime: t.since.UTC(), EndTime: now.UTC(), EndPoints: []EndPointTraffic{}}
	rep.MaxConcurrentRequests = t.most.Swap(t.p.active.Load())
	t.since = now
	for _, r := range t.sorted() {
		c, most := r.sum(), r.most.Swap(r.active.Load())
		e := EndPointTraffic{Name: r.endpoint, ProxyServer: r.gateway, TargetHost: r.target, MaxConcurrentRequests: most,
			TotalRequests: c.Requests - r.told.Requests, TotalRequestsWithBearerToken: c.bearer - r.told.bearer,
			TotalRequestBytes: c.In - r.told.In, TotalResponseBytes: c.Out - r.told.Out, FailedRequests: c.failed - r.told.failed}
		r.told = c
		if e.TotalRequests > 0 || most > 0 {
			rep.EndPoints = append(rep.EndPoints, e)
		}
	}
	t.reports, t.kept = append(t.reports, rep), t.kept+len(rep.EndPoints)
	for len(t.reports) > keepReports || t.kept > keepRows && len(t.reports) > 1 {
		t.kept -= len(t.reports[0].EndPoints)
		t.reports = slices.Delete(t.reports, 0, 1)
	}
	return rep
}

// run reports until ctx ends, and then what is left.
func (t *traffic) run(ctx context.Context) {
	tick := time.NewTicker(t.p.cfg.ReportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			t.tell()
			return
		case <-tick.C:
			t.tell()
		}
	}
}

func (t *traffic) tell() {
	rep := t.report(t.p.cfg.Now())
	t.p.log.Info("traffic", "ProxyTrafficStateDetails", rep)
}

func (t *traffic) status() any {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.reports)
}
