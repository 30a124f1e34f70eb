package gateway

import (
	"sync/atomic"

	"github.com/opencmg/cmg/gate"
	"github.com/opencmg/cmg/meter"
)

// perKind are the labels of what is counted for each kind of request.
var perKind = []string{"site", "endpoint", "prefix", "connection_point", "proof", "class"}

// perPoint are the labels of what is told of a connection point.
var perPoint = []string{"site", "connection_point"}

// The metrics of a gateway. docs/metrics.md is made of them.
var (
	mRequests      = metric("requests_total", meter.Counter, "Requests that are over.", perKind...)
	mRequestBytes  = metric("request_bytes_total", meter.Counter, "Bytes that clients sent above TLS, heads and bodies.", perKind...)
	mResponseBytes = metric("response_bytes_total", meter.Counter, "Bytes that clients were sent above TLS, heads and bodies, by requests that are over.", perKind...)
	mSent          = metric("sent_bytes_total", meter.Counter, "Bytes that clients were sent above TLS, piece by piece.")
	mDuration      = metric("request_duration_seconds", meter.Durations, "From a request's head to the end of its answer; long polls wait by intent.", "site", "endpoint", "prefix")
	mRefusals      = metric("refusals_total", meter.Counter, "Requests that this instance answered with a refusal of its own.", "code")
	mInFlight      = metric("in_flight_requests", meter.Gauge, "Requests that wait for their answer's end.")
	mParked        = metric("parked_requests", meter.Gauge, "Requests over HTTP/1.1 that hold no buffer while they wait.")
	mUpgraded      = metric("upgraded_connections", meter.Gauge, "Connections of clients that went on with another protocol, such as WebSockets.")
	mConnections   = metric("client_connections", meter.Gauge, "Connections of clients that are open.")
	mShed          = metric("shed_connections_total", meter.Counter, "Connections closed before the handshake, since there were too many.")
	mAddresses     = metric("address_limited_total", meter.Counter, "Requests and handshakes refused because too many came from one address.", "what")
	mHandshakes    = metric("handshake_errors_total", meter.Counter, "TLS handshakes that clients did not finish.")
	mHandshakeFull = metric("handshakes_shed_total", meter.Counter, "Connections closed since their handshake could not begin in time.")
	mRepeated      = metric("repeated_requests_total", meter.Counter, "Requests that were sent inward a second time.")
	mAborted       = metric("aborted_requests_total", meter.Counter, "Requests that ended without their whole answer.")
	mManifests     = metric("manifests_total", meter.Counter, "Content manifests given.")
	mChannels      = metric("channels", meter.Gauge, "Connections that a connection point holds open.", perPoint...)
	mChannelFlight = metric("channel_in_flight_requests", meter.Gauge, "Requests on a connection point's channels.", perPoint...)
	mChannelTrip   = metric("channel_round_trip_seconds", meter.Gauge, "The longest of a connection point's channels' last round trips.", perPoint...)
	mWaiting       = metric("waiting_requests", meter.Gauge, "Requests that wait for a connection point.")
	mWaitingBytes  = metric("waiting_bytes", meter.Gauge, "Bytes of memory that requests hold which wait for a connection point.")
	mWaitRefused   = metric("waiting_refused_total", meter.Counter, "Requests that could not wait for a connection point, since too much waited.")
	mWaitExpired   = metric("waiting_expired_total", meter.Counter, "Requests for which no connection point came in time.")
	mPublication   = metric("publication_version", meter.Gauge, "Version of the publication in force; 0: none.", "site")
	mLogged        = metric("access_log_lines_total", meter.Counter, "Lines about requests that were written to the log.")
	mLogDropped    = metric("access_log_dropped_total", meter.Counter, "Lines about requests that were dropped, since they came too fast.")
	mReloads       = metric("config_reloads_total", meter.Counter, "Attempts to take the configuration anew.", "result")
	mReloadBad     = metric("config_refused", meter.Gauge, "1 while the last configuration was refused and the one before is in force.")
	mBudget        = metric("budget_bytes", meter.Gauge, "Bytes that may be sent to clients in the budget's window.")
	mBudgetUsed    = metric("budget_used_bytes", meter.Gauge, "Bytes sent to clients in the budget's window.")
	mBudgetState   = metric("budget_state", meter.Gauge, "How the budget stands: 0 fine, 1 warning, 2 critical, 3 exhausted.")
	mBudgetCut     = metric("budget_cut_answers_total", meter.Counter, "Answers that were broken off when the budget was used up.")
	mGateInside    = metric("admitted_requests", meter.Gauge, "Requests inward, of max_requests.")
	mGateWaiting   = metric("queued_requests", meter.Gauge, "Requests that wait for one of max_requests, or of a route's max_concurrent.")
	mGateRefused   = metric("gate_refused_requests_total", meter.Counter, "Requests that max_requests (all) or a route's max_concurrent (route) turned away: nobody more could wait (full), or there was no room in time (late).", "gate", "reason")
	mMemoryStep    = metric("memory_step", meter.Gauge, "How short memory is: 0 fine, 1 from 85 % of the limit, 2 from 92 %, 3 from 95 %.")
	mMemoryEnded   = metric("memory_ended_requests_total", meter.Counter, "Parked requests that were ended to give memory back.")
	mCallers       = metric("callers", meter.Gauge, "Callers that are counted one by one.")
	mCertificate   = metric("certificate_seconds", meter.Gauge, "Until the certificate that clients meet ends; below 0 once it has.")
	mCertAlert     = metric("certificate_alert_days", meter.Gauge, "60, 30, 14, 7 or 1 once no more days are left of that certificate; 0 once it has ended, -1 before.")
	mCertProblem   = metric("certificate_problem", meter.Gauge, "1 while a newer certificate is not good, or cannot be fetched.")
	mBootstraps    = metric("bootstraps_total", meter.Counter, "Answers to clients that did not know a management point yet.")
	mWithoutRow    = metric("callers_without_row_total", meter.Counter, "Look-ups of a caller that found the table full: counted together.")
)

// Metrics lists what /metrics shows, beside the Go runtime's and the
// process's own.
var Metrics []*meter.Family

func metric(name string, kind meter.Kind, help string, labels ...string) *meter.Family {
	f := &meter.Family{Name: "cmg_gateway_" + name, Kind: kind, Help: help, Labels: labels}
	Metrics = append(Metrics, f)
	return f
}

// gather tells how all metrics stand.
func (g *Gateway) gather(e *meter.Emit) {
	g.gatherAccounts(e)
	g.gatherCertificate(e)
	n := func(f *meter.Family, v *atomic.Int64) { e.Value(f, float64(v.Load())) }
	n(mInFlight, &g.counts.inFlight)
	n(mParked, &g.counts.parked)
	n(mUpgraded, &g.counts.upgraded)
	n(mShed, &g.counts.shed)
	n(mHandshakes, &g.counts.handshakeErrors)
	n(mHandshakeFull, &g.counts.handshakesFull)
	n(mRepeated, &g.counts.repeated)
	n(mAborted, &g.counts.aborted)
	n(mManifests, &g.counts.manifests)
	g.counts.refusals.Range(func(code, v any) bool {
		e.Value(mRefusals, float64(v.(*atomic.Int64).Load()), code.(string))
		return true
	})
	e.Value(mAddresses, float64(g.live.Load().addresses.refused()), "request")
	e.Value(mAddresses, float64(g.live.Load().greetings.refused()), "handshake")
	e.Value(mLogged, float64(g.requestLog.Written()))
	e.Value(mLogDropped, float64(g.requestLog.Dropped()))
	e.Value(mReloads, float64(g.reload.Taken()), "taken")
	e.Value(mReloads, float64(g.reload.Refused()), "refused")
	e.Value(mReloadBad, g.reload.Badness())
	routes := gate.Stats{}
	for _, site := range g.sites {
		site.gather(e, &routes)
	}
	all := g.gate.Stats()
	for name, s := range map[string]gate.Stats{"all": all, "route": routes} {
		e.Value(mGateRefused, float64(s.Full), name, "full")
		e.Value(mGateRefused, float64(s.Late), name, "late")
	}
	e.Value(mGateInside, float64(all.Inside))
	e.Value(mGateWaiting, float64(all.Waiting+routes.Waiting))
	e.Value(mMemoryStep, float64(g.memory.level()))
	e.Value(mMemoryEnded, float64(g.memory.ended.Load()))
	e.Value(mConnections, float64(len(g.clients.slots)))
	n(mWaiting, &g.waiting.requests)
	n(mWaitingBytes, &g.waiting.bytes)
	n(mWaitRefused, &g.waiting.refused)
	n(mWaitExpired, &g.waiting.expired)
}

// gather tells how one site stands, and adds up its routes' gates.
func (s *served) gather(e *meter.Emit, sum *gate.Stats) {
	e.Value(mPublication, float64(s.version()), s.code)
	for name, r := range s.points.rows() {
		e.Value(mChannels, float64(r.Channels), s.code, name)
		e.Value(mChannelFlight, float64(r.InFlight), s.code, name)
		e.Value(mChannelTrip, r.RoundTrip/1000, s.code, name)
	}
	if ed := s.edge.Load(); ed != nil {
		for _, r := range ed.routes {
			if r.gate != nil {
				g := r.gate.Stats()
				sum.Waiting, sum.Full, sum.Late = sum.Waiting+g.Waiting, sum.Full+g.Full, sum.Late+g.Late
			}
		}
	}
}

func (g *Gateway) gatherAccounts(e *meter.Emit) {
	names := g.slots.names()
	for _, ep := range g.accounts.all() {
		ep.each(func(slot, proof, class int, t meter.Traffic) {
			labels := []string{ep.site, ep.name, ep.prefix, names[slot], proofNames[proof], classNames[class]}
			e.Value(mRequests, float64(t.Requests), labels...)
			e.Value(mRequestBytes, float64(t.In), labels...)
			e.Value(mResponseBytes, float64(t.Out), labels...)
		})
		e.Histogram(mDuration, ep.latency(), ep.site, ep.name, ep.prefix)
	}
	e.Value(mSent, float64(g.accounts.sent.Load()))
	e.Value(mCallers, float64(g.accounts.callers.rows()))
	if g.budget != nil {
		g.budget.gather(e)
	}
	e.Value(mWithoutRow, float64(g.accounts.callers.full.Load()))
}

// gatherCertificate tells how the certificate that clients meet stands.
func (g *Gateway) gatherCertificate(e *meter.Emit) {
	st, problem := g.live.Load().shown.Status(), 0.0
	if st.Problem != "" {
		problem = 1
	}
	if !st.NotAfter.IsZero() {
		e.Value(mCertificate, st.NotAfter.Sub(g.now()).Seconds())
	}
	e.Value(mCertAlert, float64(st.Alert))
	e.Value(mCertProblem, problem)
	e.Value(mBootstraps, float64(g.counts.bootstraps.Load()))
}
