package managementpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/web"
)

const (
	maxReport     = 8 << 20 // bytes
	maxRefusals   = 1024    // in one report
	refusalsEvery = time.Second
)

// takeRefusals keeps what connection points and gateways refused.
func (p *Point) takeRefusals(w http.ResponseWriter, r *http.Request) error {
	if _, called := cmg.CallerFrom(r.Context()); called || !p.fromConnectionPoint(r) {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Connection_Point_Required", "only a connection point of this site may report refusals", nil)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReport))
	if err != nil {
		return fmt.Errorf("read report: %w", err)
	}
	var rs []cmg.RefusalRecord
	if err := json.Unmarshal(b, &rs); err != nil || len(rs) > maxRefusals {
		return cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "the report cannot be read", err)
	}
	for i := range rs {
		rs[i] = rs[i].Bounded()
	}
	if err := p.cfg.Site.AddRefusals(r.Context(), rs); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// remember keeps a refusal of this management point.
func (p *Point) remember(r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody was refused: the other end has gone
	}
	facts := []cmg.Fact{{Name: "request", Value: r.Method + " " + r.URL.Path}}
	c, ok := cmg.CallerFrom(r.Context())
	if ok {
		facts = append(facts, cmg.Fact{Name: "proof", Value: string(c.Proof) + " " + c.TokenKind}, cmg.Fact{Name: "gateway", Value: c.Gateway})
		for _, f := range []cmg.Fact{{Name: "device", Value: string(c.Device)}, {Name: "token id", Value: c.TokenID},
			{Name: "certificate", Value: c.Thumbprint}, {Name: "name", Value: c.Name}} {
			if f.Value != "" {
				facts = append(facts, f)
			}
		}
	} else {
		facts = append(facts, cmg.Fact{Name: "caller", Value: "none was proven"})
	}
	p.refusals.Put(cmg.Record(r.Header.Get(web.RequestIDHeader), p.hop(), p.cfg.Now(), err, facts...))
}

func (p *Point) hop() string {
	return string(cmg.RoleManagementPoint) + "/" + p.live.Load().id.Name().Name
}

// storeRefusals writes what was refused since the last time.
func (p *Point) storeRefusals(ctx context.Context) error {
	rs := p.refusals.Take(maxRefusals)
	err := p.cfg.Site.AddRefusals(ctx, rs)
	if err != nil {
		p.refusals.Return(rs)
	}
	return err
}
