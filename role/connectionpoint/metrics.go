package connectionpoint

import "github.com/opencmg/cmg/meter"

var perEndpoint = []string{"endpoint", "prefix", "gateway", "target"}

// The metrics of a connection point. docs/metrics.md is made of them.
var (
	mRequests      = metric("requests_total", meter.Counter, "Requests that are over.", perEndpoint...)
	mBearer        = metric("requests_with_token_total", meter.Counter, "Requests that showed a bearer token.", perEndpoint...)
	mFailed        = metric("failed_requests_total", meter.Counter, "Requests without an answer, or with one of 500 and above.", perEndpoint...)
	mRequestBytes  = metric("request_bytes_total", meter.Counter, "Bytes that the target was sent above TLS, heads and bodies.", perEndpoint...)
	mResponseBytes = metric("response_bytes_total", meter.Counter, "Bytes that the target sent above TLS, heads and bodies.", perEndpoint...)
	mDuration      = metric("request_duration_seconds", meter.Durations, "From a request's arrival to the end of its answer; long polls wait by intent.", perEndpoint...)
	mInFlight      = metric("in_flight_requests", meter.Gauge, "Requests that wait for their answer's end.")
	mParked        = metric("parked_requests", meter.Gauge, "Requests that wait for the beginning of their answer and hold no worker.")
	mUpstreams     = metric("http2_connections", meter.Gauge, "HTTP/2 connections to targets, on which requests wait.")
	mRefused       = metric("refused_requests_total", meter.Counter, "Requests given back to the gateway, since there were max_requests.")
	mUnmapped      = metric("unmapped_requests_total", meter.Counter, "Requests that could not be read, or that nothing is mapped for.")
	mChannels      = metric("channels", meter.Gauge, "Connections to a gateway that are up.", "gateway")
	mChannelFlight = metric("channel_in_flight_requests", meter.Gauge, "Requests on the channels to a gateway.", "gateway")
	mChannelTrip   = metric("channel_round_trip_seconds", meter.Gauge, "The longest of the last round trips on the channels to a gateway.", "gateway")
	mTargetInside  = metric("target_admitted_requests", meter.Gauge, "Requests at a server, of its limit.", "target")
	mTargetLimit   = metric("target_limit_requests", meter.Gauge, "How many requests a server may have at once; an adaptive limit moves.", "target")
	mTargetWaiting = metric("target_queued_requests", meter.Gauge, "Requests that wait for room at a server.", "target")
	mTargetQueued  = metric("target_queued_requests_total", meter.Counter, "Requests that had to wait for room at a server.", "target")
	mTargetPolls   = metric("target_long_polls", meter.Gauge, "Long polls at a server.", "target")
	mTargetRefused = metric("target_refused_requests_total", meter.Counter, "Requests refused for a server's sake: the queue was full, they waited too long, it had as many long polls as it may, it was left alone.", "target", "reason")
	mTargetAlone   = metric("target_left_alone", meter.Gauge, "1: the server could not be reached several times and is left alone until it can be.", "target")
	mLogged        = metric("access_log_lines_total", meter.Counter, "Lines about requests that were written to the log.")
	mLogDropped    = metric("access_log_dropped_total", meter.Counter, "Lines about requests that were dropped, since they came too fast.")
	mReloads       = metric("config_reloads_total", meter.Counter, "Attempts to take the configuration anew.", "result")
	mReloadBad     = metric("config_refused", meter.Gauge, "1 while the last configuration was refused and the one before is in force.")
	mMap           = metric("map_version", meter.Gauge, "Version of the publication in the map in force; 0: none.")
)

// Metrics lists what /metrics shows, beside the Go runtime's and the
// process's own.
var Metrics []*meter.Family

func metric(name string, kind meter.Kind, help string, labels ...string) *meter.Family {
	f := &meter.Family{Name: "cmg_connection_point_" + name, Kind: kind, Help: help, Labels: labels}
	Metrics = append(Metrics, f)
	return f
}

// gather tells how all metrics stand.
func (p *Point) gather(e *meter.Emit) {
	for _, r := range p.traffic.all() {
		c, labels := r.sum(), []string{r.endpoint, r.prefix, r.gateway, r.target}
		if c.Requests == 0 {
			continue
		}
		e.Value(mRequests, float64(c.Requests), labels...)
		e.Value(mBearer, float64(c.bearer), labels...)
		e.Value(mFailed, float64(c.failed), labels...)
		e.Value(mRequestBytes, float64(c.In), labels...)
		e.Value(mResponseBytes, float64(c.Out), labels...)
		var ls []*meter.Latency
		for i := range r.latency {
			ls = append(ls, &r.latency[i])
		}
		e.Histogram(mDuration, meter.SumLatency(ls...), labels...)
	}
	e.Value(mInFlight, float64(p.active.Load()))
	e.Value(mParked, float64(p.parked.Load()))
	e.Value(mUpstreams, float64(p.live.Load().pool.http2()))
	e.Value(mRefused, float64(p.refused.Load()))
	e.Value(mUnmapped, float64(p.unmapped.Load()))
	e.Value(mLogged, float64(p.requestLog.Written()))
	e.Value(mLogDropped, float64(p.requestLog.Dropped()))
	e.Value(mReloads, float64(p.reload.Taken()), "taken")
	e.Value(mReloads, float64(p.reload.Refused()), "refused")
	e.Value(mReloadBad, p.reload.Badness())
	p.gatherTargets(e)
	p.gatherChannels(e)
	version := uint64(0)
	if t := p.maps.table.Load(); t != nil {
		version = t.version
	}
	e.Value(mMap, float64(version))
}

func (p *Point) gatherTargets(e *meter.Emit) {
	for target, r := range p.live.Load().pool.originRows() {
		e.Value(mTargetPolls, float64(r.Polls), target)
		alone := 0.0
		if r.Alone {
			alone = 1
		}
		e.Value(mTargetAlone, alone, target)
		e.Value(mTargetRefused, float64(r.Crowded), target, "long_polls")
		e.Value(mTargetRefused, float64(r.Skipped), target, "left_alone")
		if g := r.Gate; g != nil {
			e.Value(mTargetInside, float64(g.Inside), target)
			e.Value(mTargetLimit, float64(g.Limit), target)
			e.Value(mTargetWaiting, float64(g.Waiting), target)
			e.Value(mTargetQueued, float64(g.Queued), target)
			e.Value(mTargetRefused, float64(g.Full), target, "full")
			e.Value(mTargetRefused, float64(g.Late), target, "late")
		}
	}
}

func (p *Point) gatherChannels(e *meter.Emit) {
	for _, pl := range p.fleet.places() {
		var up, flight, trip float64
		for _, l := range p.fleet.links() {
			if h := l.cur.Load(); h != nil && l.place == pl {
				s := h.s
				up, flight, trip = up+1, flight+float64(s.InFlight()), max(trip, s.RTT().Seconds())
			}
		}
		e.Value(mChannels, up, pl.label)
		e.Value(mChannelFlight, flight, pl.label)
		e.Value(mChannelTrip, trip, pl.label)
	}
}
