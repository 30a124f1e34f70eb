package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/web"
)

const (
	reportMost = 32 // refusals in one report
	reportTime = 10 * time.Second
)

// hop names this instance in what it remembers.
func (g *Gateway) hop() string { return string(cmg.RoleGateway) + "/" + g.cfg.Name }

// remember keeps a refusal with what led to it: which route, which proof,
// which publication. It is told to nobody outside.
func (x *exchange) remember(r *cmg.Refusal) {
	facts := []cmg.Fact{{Name: "request", Value: x.method + " " + string(x.path)}, {Name: "from", Value: x.remote}}
	fact := func(name, value string) { facts = append(facts, cmg.Fact{Name: name, Value: value}) }
	if x.route != nil {
		fact("route", x.route.Prefix)
		fact("route takes", fmt.Sprintf("%v by %v, at most %d bytes", x.route.Methods, x.route.Proofs, x.route.MaxBody))
	}
	if x.req.Length > 0 {
		fact("body", strconv.FormatInt(x.req.Length, 10)+" bytes")
	}
	site := x.site
	if site == nil {
		site = x.g.served
	}
	if e := site.edge.Load(); e != nil {
		fact("publication", "version "+strconv.FormatUint(e.publication.Version, 10)+" of "+e.publication.Issued.Format(time.RFC3339))
	}
	if b := &x.bill; b.caller != nil {
		fact("caller", b.caller.key)
	}
	if r.Status != http.StatusTooManyRequests { // it was good, and there are many of them
		facts = append(facts, auth.Describe(x.evidence)...)
	}
	rec := cmg.Record(x.id, x.g.hop(), x.started, r, facts...)
	x.bill.evidence = rec.Facts
	x.g.refusals.Put(rec)
	site.refusals.Put(rec)
}

// reportRefusals hands what was refused on to the site whose callers they
// were, where somebody can ask.
func (g *Gateway) reportRefusals(ctx context.Context, site *served) {
	t := time.NewTicker(g.limits.report)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for {
			rs := site.refusals.Take(reportMost)
			if len(rs) == 0 {
				break
			}
			if err := g.sendReport(ctx, site, rs); err != nil {
				site.refusals.Return(rs)
				g.log.Debug("refusals were not reported", "err", err)
				break
			}
		}
	}
}

var errNoPoint = errors.New("no connection point is there")

// sendReport sends refusals down a channel as a request of this instance's
// own, to the connection point itself.
func (g *Gateway) sendReport(ctx context.Context, site *served, rs []cmg.RefusalRecord) error {
	body, err := json.Marshal(rs)
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	_, s := site.points.pick(nil)
	if s == nil {
		return errNoPoint
	}
	var req h1.Request
	if err := req.Begin(http.MethodPost, "connection-point", web.RefusalsPath, int64(len(body))); err != nil {
		return err
	}
	head, first := req.AppendCompact(nil), body
	if len(body) > channel.MaxInline {
		first = nil
	}
	st, err := s.Open(head, first, first != nil)
	if err != nil {
		return err
	}
	defer st.Close()
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() { st.Reset(channel.CodeCancelled, "the report took too long") })()
	if first == nil {
		if err := unlessStopped(st.WriteEnd(body)); err != nil {
			return err
		}
	}
	for !st.HasHead() {
		select {
		case <-st.Ready():
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := st.Err(); err != nil {
			return err
		}
	}
	h, err := st.Head()
	if err != nil {
		return err
	}
	var res h1.Response
	if err := res.ParseCompact(h); err != nil || res.Status >= 300 {
		return fmt.Errorf("report refusals: the connection point answered %d: %w", res.Status, errors.Join(err, cmg.ErrUnavailable))
	}
	return nil
}
