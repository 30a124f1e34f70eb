package managementpoint

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

// keysAsked is how often at most a tenant's keys are fetched because a gateway
// met one that is not known: anybody can show a token that names a key.
const keysAsked = 15 * time.Second

// followTenants fetches the keys of the tenants whose time has come.
func (p *Point) followTenants(ctx context.Context) error {
	all, err := p.cfg.Site.Tenants(ctx)
	if err != nil {
		return err
	}
	for _, t := range all {
		if p.cfg.Now().Before(due(t.Tried, t.Failures, followKeys)) {
			continue
		}
		if err := p.fetchTenant(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// fetchTenant fetches one tenant's keys. That it cannot is kept with the
// tenant, and no error: its known keys go on.
func (p *Point) fetchTenant(ctx context.Context, t site.Tenant) error {
	f := p.fetcher
	if t.Roots != "" {
		var err error
		if f, err = auth.NewFetcher([]byte(t.Roots)); err != nil {
			return err
		}
		defer f.Close()
	}
	keys, err := f.TenantKeys(ctx, t.Tenant)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch {
	case err != nil:
		p.cfg.Log.Warn("a tenant's keys cannot be had; those that are known go on", "tenant", t.ID, "keys", len(t.Keys), "err", err)
	case t.Failures > 0 || len(t.Keys) == 0:
		p.cfg.Log.Info("a tenant's keys", "tenant", t.ID, "keys", len(keys))
	}
	return p.cfg.Site.PutTenantKeys(ctx, t.Tenant, keys, err)
}

// asked keeps gateways from having one tenant's keys fetched all the time.
type asked struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (a *asked) may(tenant string, at time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		a.last = map[string]time.Time{}
	}
	if at.Sub(a.last[tenant]) < keysAsked {
		return false
	}
	a.last[tenant] = at
	return true
}

// tenantKeys answers a gateway that met a key which it does not know: the
// tenant's keys are fetched, and what is new comes with the next publication.
func (p *Point) tenantKeys(w http.ResponseWriter, r *http.Request) error {
	if err := p.fromInside(r); err != nil {
		return err
	}
	t, err := p.cfg.Site.Tenant(r.Context(), r.URL.Query().Get("id"))
	if err != nil {
		return cmg.Refuse(http.StatusNotFound, "CMGMP_Tenant_Unknown", "the site does not know this tenant", err)
	}
	if p.asked.may(t.ID, p.cfg.Now()) {
		if err := p.fetchTenant(r.Context(), t); err != nil {
			return err
		}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// publishProofs says on the status page how lists and keys stand.
func (p *Point) publishProofs() {
	read := func(f func(ctx context.Context) (any, error)) func() any {
		return func() any {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			v, err := f(ctx)
			if err != nil {
				return map[string]string{"error": err.Error()}
			}
			return v
		}
	}
	p.health.Publish("revocation", read(func(ctx context.Context) (any, error) { return p.cfg.Site.RevocationSources(ctx) }))
	p.health.Publish("tenants", read(func(ctx context.Context) (any, error) {
		all, err := p.cfg.Site.Tenants(ctx)
		rows := []map[string]any{}
		for _, t := range all {
			rows = append(rows, map[string]any{"id": t.ID, "name": t.Name, "keys": len(t.Keys), "fetched": t.Fetched, "failures": t.Failures, "problem": t.Problem})
		}
		return rows, err
	}))
}
