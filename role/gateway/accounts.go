package gateway

import (
	"cmp"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/meter"
)

// accounts is what this instance passed, counted where clients see it: bytes
// above TLS, heads and bodies. What a request adds to is found when its
// publication is taken; a request itself only adds, in its connection's
// shard.
//
// A head of HTTP/2 counts as many bytes as the same head as text, however it
// was packed. A write that fails half-way counts whole.
type accounts struct {
	log      *slog.Logger
	sent     meter.Sum // bytes of answers, piece by piece: ahead of the tallies
	callers  *callers
	manifest *endpoint // content manifests
	none     *endpoint // no route, or no head that can be read
	other    *endpoint // routes beyond maxEndpoints

	mu        sync.Mutex
	endpoints map[endpointName]*endpoint
}

// maxEndpoints bounds what publications can make this instance count; those
// of routes that are gone stay, for a counter may not go back.
const maxEndpoints = 1024

func newAccounts(log *slog.Logger, maxCallers int) *accounts {
	fixed := func(name string) *endpoint { return newEndpoint(endpointName{name: name}) }
	return &accounts{log: log, sent: meter.NewSum(), callers: newCallers(log, maxCallers), manifest: fixed("(manifest)"), none: fixed("(none)"), other: fixed("(other)"),
		endpoints: map[endpointName]*endpoint{}}
}

// endpointName is how an endpoint stands in reports.
type endpointName struct{ site, name, prefix string }

// endpoint finds or makes the endpoint of a route.
func (a *accounts) endpoint(site string, r *cmg.Route) *endpoint {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := endpointName{site, r.Name, strings.ToLower(r.Prefix)}
	e := a.endpoints[n]
	switch {
	case e != nil:
	case len(a.endpoints) >= maxEndpoints:
		a.log.Warn("too many endpoints to account for each", "endpoint", r.Name, "prefix", r.Prefix, "limit", maxEndpoints)
		return a.other
	default:
		e = newEndpoint(n)
		a.endpoints[n] = e
	}
	return e
}

// all lists the endpoints in order.
func (a *accounts) all() []*endpoint {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := []*endpoint{a.none, a.manifest, a.other}
	for _, e := range a.endpoints {
		list = append(list, e)
	}
	slices.SortFunc(list, func(x, y *endpoint) int {
		return cmp.Or(cmp.Compare(x.site, y.site), cmp.Compare(x.name, y.name), cmp.Compare(x.prefix, y.prefix))
	})
	return list
}

// An endpoint counts the requests of one route.
type endpoint struct {
	endpointName
	shards []endpointShard
}

const (
	proofs     = 4 // none, certificate, token, entra
	classes    = 6 // of status; 0: no answer was begun
	maxPoints  = 30
	noPoint    = 0             // slot of requests that no connection point took
	otherPoint = maxPoints + 1 // slot of the points beyond maxPoints
)

type endpointShard struct {
	latency meter.Latency
	points  [maxPoints + 2]atomic.Pointer[tallies] // by the point's slot; nil until there is something to count
	_       [64]byte
}

type tallies struct {
	by [proofs][classes]meter.Tally // whole cache lines
}

func newEndpoint(n endpointName) *endpoint {
	return &endpoint{endpointName: n, shards: make([]endpointShard, meter.Shards())}
}

func (e *endpoint) tally(at meter.Shard, slot int, proof, class int) *meter.Tally {
	p := &e.shards[at].points[slot]
	t := p.Load()
	if t == nil {
		if t = new(tallies); !p.CompareAndSwap(nil, t) {
			t = p.Load()
		}
	}
	return &t.by[proof][class]
}

// each gives the sums that are not empty. Its caller names the slots.
func (e *endpoint) each(f func(slot, proof, class int, t meter.Traffic)) {
	var sums [maxPoints + 2][proofs][classes]meter.Traffic
	for s := range e.shards {
		for slot := range sums {
			t := e.shards[s].points[slot].Load()
			if t == nil {
				continue
			}
			for p := range proofs {
				for c := range classes {
					sums[slot][p][c] = sums[slot][p][c].Plus(t.by[p][c].Load())
				}
			}
		}
	}
	for slot := range sums {
		for p := range proofs {
			for c := range classes {
				if t := sums[slot][p][c]; t != (meter.Traffic{}) {
					f(slot, p, c, t)
				}
			}
		}
	}
}

func (e *endpoint) latency() meter.Histogram {
	var ls []*meter.Latency
	for s := range e.shards {
		ls = append(ls, &e.shards[s].latency)
	}
	return meter.SumLatency(ls...)
}

var (
	proofNames = [proofs]string{"none", "certificate", "token", "entra"}
	classNames = [classes]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"}
)

func proofIndex(p cmg.Proof) int {
	switch p {
	case cmg.ProofCertificate:
		return 1
	case cmg.ProofToken:
		return 2
	case cmg.ProofEntra:
		return 3
	}
	return 0
}

// accountRows tells the status page what was passed.
func (g *Gateway) accountRows() any {
	type row struct {
		Site     string `json:"site,omitempty"`
		Endpoint string `json:"endpoint"`
		Prefix   string `json:"prefix,omitempty"`
		Point    string `json:"connection_point,omitempty"`
		Proof    string `json:"proof"`
		Class    string `json:"class"`
		Requests int64  `json:"requests"`
		In       int64  `json:"request_bytes"`
		Out      int64  `json:"response_bytes"`
	}
	rows := []row{}
	names := g.slots.names()
	for _, e := range g.accounts.all() {
		e.each(func(slot, proof, class int, t meter.Traffic) {
			rows = append(rows, row{e.site, e.name, e.prefix, names[slot], proofNames[proof], classNames[class], t.Requests, t.In, t.Out})
		})
	}
	return rows
}
