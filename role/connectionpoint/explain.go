package connectionpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/web"
)

const (
	maxReport   = 2 << 20 // bytes of one report
	handOnEvery = time.Second
	handOnMost  = 128 // refusals at once
)

func (p *Point) hop() string { return string(cmg.RoleConnectionPoint) + "/" + p.cfg.Name }

// isReport says that a request is a gateway's own report. No client's can be
// one: nothing can be published at the path.
func (r *relay) isReport() bool {
	return len(r.req.Path) == len(web.RefusalsPath) && string(r.req.Path) == web.RefusalsPath
}

// takeReport keeps what a gateway refused.
func (r *relay) takeReport(st *channel.Stream) error {
	r.p.requests.Add(-1) // it is none of a client's
	rs, err := readReport(st)
	if err != nil {
		st.Reset(channel.CodeProtocol, err.Error())
		return err
	}
	for _, rec := range rs {
		if strings.HasPrefix(rec.Hop, string(cmg.RoleGateway)+"/") { // it speaks for no other role
			r.p.refusals.Put(rec)
		}
	}
	r.res.Reset()
	r.res.Status, r.res.Reason, r.res.Length = http.StatusNoContent, []byte("No Content"), 0
	r.head = r.res.AppendCompact(r.head[:0])
	return st.Respond(r.head, nil, true)
}

func readReport(st *channel.Stream) (rs []cmg.RefusalRecord, err error) {
	var body bytes.Buffer
	p, end := st.First()
	body.Write(p)
	for !end {
		p, err := st.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if body.Write(p); body.Len() > maxReport {
			return nil, fmt.Errorf("report of more than %d bytes: %w", maxReport, cmg.ErrTooLarge)
		}
	}
	if err := json.Unmarshal(body.Bytes(), &rs); err != nil {
		return nil, fmt.Errorf("read report: %w: %w", err, cmg.ErrInvalid)
	}
	return rs, nil
}

// remember keeps what the server behind a path refused, and what could not be
// asked of it. The gateway gave the request its id.
func (r *relay) remember(err error) {
	if r.id == "" || err == nil && r.status < 400 {
		return
	}
	rec := cmg.RefusalRecord{ID: r.id, Hop: r.p.hop(), Time: r.p.cfg.Now().UTC(), Status: r.status}
	if r.row != nil {
		method, path, _ := requestLine(r.out)
		rec.Facts = append(rec.Facts, cmg.Fact{Name: "request to the server", Value: method + " " + path}, cmg.Fact{Name: "server", Value: r.row.target},
			cmg.Fact{Name: "gateway", Value: r.row.gateway})
	}
	switch {
	case err != nil && r.row == nil:
		rec.Code, rec.Status, rec.Why = "CMGConnector_Unreachable", http.StatusBadGateway, "nothing is mapped here"
	case err != nil:
		rec.Code, rec.Status, rec.Why = "CMGConnector_Failed", http.StatusBadGateway, "the server could not be asked"
		if code(err) == channel.CodeTimeout {
			rec.Code, rec.Status = "CMGConnector_Timeout", http.StatusGatewayTimeout
		}
	default:
		rec.Code, rec.Why = string(r.res.Reason), fmt.Sprintf("the server answered %d", r.status)
		for i := range r.res.Fields {
			if f := &r.res.Fields[i]; strings.EqualFold(string(f.Name), web.RefusalHeader) {
				rec.Facts = append(rec.Facts, cmg.Fact{Name: "the server's own code", Value: string(f.Value)})
			}
		}
	}
	if err != nil {
		rec.Cause = err.Error()
	}
	r.p.refusals.Put(rec)
}

// handOnRefusals tells the site what this point and its gateways refused, so
// that it can be asked of one place.
func (p *Point) handOnRefusals(ctx context.Context) {
	if !strings.HasPrefix(p.cfg.Map, "https://") {
		return // there is no site to tell
	}
	client := newSiteClient(p)
	defer client.close()
	t := time.NewTicker(handOnEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for {
			rs := p.refusals.Take(handOnMost)
			if len(rs) == 0 {
				break
			}
			if err := p.handOn(ctx, client.now(), rs); err != nil {
				var r *cmg.Refusal
				if !errors.As(err, &r) { // a site that says no says so again
					p.refusals.Return(rs)
				}
				p.log.Debug("refusals were not handed on", "err", err)
				break
			}
		}
	}
}

func (p *Point) handOn(ctx context.Context, client *http.Client, rs []cmg.RefusalRecord) error {
	body, err := json.Marshal(rs)
	if err != nil {
		return fmt.Errorf("write refusals: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(p.cfg.Map, "/")+web.RefusalsPath, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return web.ReadAnswer(resp)
}
