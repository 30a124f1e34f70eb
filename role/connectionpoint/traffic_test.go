package connectionpoint

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/meter"
)

// bookkeeping is a point's traffic without a point that runs.
func bookkeeping(now *time.Time) *traffic {
	p := &Point{cfg: Config{Name: "cp-1", Gateways: Plain("gw-1:10140", "gw-2:10140"), Now: func() time.Time { return *now }}}
	p.fleet.plan(p.cfg, p)
	p.traffic = newTraffic(p)
	return p.traffic
}

func TestTrafficReport(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	begin := now
	tr := bookkeeping(&now)
	routes := []cmg.Route{{Prefix: "/CCM_Proxy_ServerAuth/1/CCM_STS", Name: "Tokens"}}
	sts := tr.resolve("/ccm_proxy_serverauth/1/ccm_sts", &target{address: "mp:443"}, routes)
	bgb := tr.resolve("/bgb", &target{address: "mp:443"}, routes)
	if again := tr.resolve("/bgb", &target{address: "mp:443"}, nil); again[0] != bgb[0] {
		t.Error("a new map begins to count anew")
	}
	for range 3 {
		sts[1].begin()
	}
	for range 2 {
		sts[1].end(meter.Pick(), 10, 20, true, false, time.Millisecond)
	}
	bgb[0].begin()
	bgb[0].end(meter.Pick(), 5, 0, false, true, time.Hour)
	raise(&tr.most, 4)
	raise(&tr.most, 2)

	now = now.Add(5 * time.Minute)
	got := tr.report(now)
	want := TrafficReport{ServerName: "cp-1", StartTime: begin, EndTime: now, MaxConcurrentRequests: 4, EndPoints: []EndPointTraffic{
		{Name: "Tokens", ProxyServer: "gw-2:10140", TargetHost: "mp:443", TotalRequests: 2, TotalRequestsWithBearerToken: 2, MaxConcurrentRequests: 3, TotalRequestBytes: 20, TotalResponseBytes: 40},
		{Name: "bgb", ProxyServer: "gw-1:10140", TargetHost: "mp:443", TotalRequests: 1, MaxConcurrentRequests: 1, TotalRequestBytes: 5, FailedRequests: 1},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	// What is still under way is told of in the next report, and what ends
	// then too; nothing is told twice.
	sts[1].end(meter.Pick(), 1, 2, false, false, time.Millisecond)
	now = now.Add(5 * time.Minute)
	got = tr.report(now)
	want = TrafficReport{ServerName: "cp-1", StartTime: now.Add(-5 * time.Minute), EndTime: now, EndPoints: []EndPointTraffic{
		{Name: "Tokens", ProxyServer: "gw-2:10140", TargetHost: "mp:443", TotalRequests: 1, MaxConcurrentRequests: 1, TotalRequestBytes: 1, TotalResponseBytes: 2},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := tr.report(now); len(got.EndPoints) != 0 {
		t.Errorf("told twice: %+v", got)
	}
}

// TestTrafficIsBounded wants neither endpoints nor reports to grow for ever.
func TestTrafficIsBounded(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	tr := bookkeeping(&now)
	var rows []*row
	for i := range maxRows {
		rows = append(rows, tr.resolve(fmt.Sprint("/e", i), &target{address: "a"}, nil)...)
	}
	if n := len(tr.all()); n > maxRows+len(tr.p.cfg.Gateways) {
		t.Errorf("%d rows", n)
	}
	for range 2 * keepReports {
		for _, r := range rows[:100] {
			r.begin()
			r.end(0, 1, 1, false, false, 0)
		}
		tr.report(now)
	}
	if len(tr.reports) > keepReports || tr.kept > keepRows {
		t.Errorf("%d reports with %d rows are kept", len(tr.reports), tr.kept)
	}
}
