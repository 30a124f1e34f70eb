package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencmg/cmg"
)

// A Tenant is a tenant of Microsoft Entra ID and how fetching its keys went.
type Tenant struct {
	cmg.Tenant
	Roots    string    `json:"-"`              // PEM: who signs the authority's server; empty: the system's roots
	Tried    time.Time `json:"tried,omitzero"` // when its keys were asked for last
	Failures int       `json:"failures"`       // since they came last
	Problem  string    `json:"problem,omitempty"`
	Added    time.Time `json:"added"`
}

const maxTenants = 64

var (
	qTenants   = query(`SELECT id, name, authority, roots, audiences, client, resource, apps, keys, fetched, tried, failures, problem, added FROM tenants ORDER BY id`)
	qPutTenant = query(`INSERT INTO tenants (id, name, authority, roots, audiences, client, resource, apps, keys, fetched, tried, failures, problem, added)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, '[]', 0, 0, 0, '', ?)
	ON CONFLICT (id) DO UPDATE SET name = excluded.name, authority = excluded.authority, roots = excluded.roots, audiences = excluded.audiences,
	client = excluded.client, resource = excluded.resource, apps = excluded.apps, tried = 0, failures = 0, problem = '',
	keys = CASE WHEN tenants.authority = excluded.authority THEN tenants.keys ELSE '[]' END`)
	qTenantThere  = query(`SELECT count(*) FROM tenants WHERE id = ?`)
	qCountTenants = query(`SELECT count(*) FROM tenants`)
	qRemoveTenant = query(`DELETE FROM tenants WHERE id = ?`)
	qPutKeys      = query(`UPDATE tenants SET keys = ? WHERE id = ? AND authority = ? AND keys <> ?`)
	qRefreshKeys  = query(`UPDATE tenants SET tried = 0, failures = 0 WHERE id > ''`)
	qKeysFetched  = query(`UPDATE tenants SET fetched = ?, tried = ?, failures = 0, problem = '' WHERE id = ?`)
	qKeysFailed   = query(`UPDATE tenants SET tried = ?, failures = failures + 1, problem = ? WHERE id = ?`)
)

// AddTenant lets callers of a tenant in. One that is known is changed if
// replace says so; its keys stay as long as its authority does.
func (s *Site) AddTenant(ctx context.Context, t Tenant, replace bool) error {
	t.Issuers = cmg.EntraIssuers(t.Authority, t.ID)
	if err := t.Check(); err != nil {
		return err
	}
	audiences, apps, err := asJSON(t.Audiences, t.Apps)
	if err != nil {
		return err
	}
	return s.publish(ctx, func(tx *tx) (int64, error) {
		var there, all int
		if err := errors.Join(tx.row(qTenantThere, t.ID).Scan(&there), tx.row(qCountTenants).Scan(&all)); err != nil {
			return 0, fault("read tenant", err)
		}
		if there > 0 && !replace {
			return 0, fmt.Errorf("tenant %s is known already; --replace changes it: %w", t.ID, cmg.ErrConflict)
		}
		if all-there >= maxTenants {
			return 0, fmt.Errorf("add tenant: there are %d already: %w", all, cmg.ErrTooLarge)
		}
		n, err := tx.changed(qPutTenant, t.ID, t.Name, t.Authority, t.Roots, audiences, t.Client, t.Resource, apps, micros(tx.now))
		return n, errors.Join(err, tx.audit("tenant.add", t.ID, "authority="+t.Authority+" audiences="+audiences+" apps="+apps))
	})
}

// Tenants lists the tenants.
func (s *Site) Tenants(ctx context.Context) ([]Tenant, error) {
	return list(ctx, s.read, scanTenant, qTenants)
}

// Tenant gives one tenant.
func (s *Site) Tenant(ctx context.Context, id string) (Tenant, error) {
	all, err := s.Tenants(ctx)
	if err != nil {
		return Tenant{}, err
	}
	if i := slices.IndexFunc(all, func(t Tenant) bool { return t.ID == id }); i >= 0 {
		return all[i], nil
	}
	return Tenant{}, fmt.Errorf("tenant %.60q: %w", id, cmg.ErrNotFound)
}

// RefreshTenants has the keys of every tenant fetched soon, as if their time
// had come.
func (s *Site) RefreshTenants(ctx context.Context) error {
	return s.update(ctx, func(tx *tx) error { return tx.exec(qRefreshKeys) })
}

// RemoveTenant lets the callers of a tenant in no more.
func (s *Site) RemoveTenant(ctx context.Context, id string) error {
	return s.publish(ctx, func(tx *tx) (int64, error) {
		n, err := tx.changed(qRemoveTenant, id)
		if err = gone("tenant", id, n, err); err != nil {
			return n, err
		}
		return n, tx.audit("tenant.remove", id, "")
	})
}

// PutTenantKeys keeps the keys of a tenant that were fetched from its
// authority, or why they could not be: then those that are known stay.
func (s *Site) PutTenantKeys(ctx context.Context, t cmg.Tenant, keys []json.RawMessage, problem error) error {
	return s.publish(ctx, func(tx *tx) (int64, error) {
		now := micros(tx.now)
		if problem != nil {
			return 0, tx.exec(qKeysFailed, now, cutText(problem.Error()), t.ID)
		}
		text, err := json.Marshal(keys)
		if err != nil {
			return 0, fmt.Errorf("write keys of tenant %s: %w", t.ID, err)
		}
		n, err := tx.changed(qPutKeys, string(text), t.ID, t.Authority, string(text))
		if err == nil && n > 0 {
			err = tx.audit("tenant.keys", t.ID, fmt.Sprintf("keys=%d", len(keys)))
		}
		if err != nil {
			return 0, err
		}
		return n, tx.exec(qKeysFetched, now, now, t.ID)
	})
}

func scanTenant(scan func(...any) error) (t Tenant, err error) {
	var audiences, apps, keys string
	var fetched, tried, added int64
	if err = scan(&t.ID, &t.Name, &t.Authority, &t.Roots, &audiences, &t.Client, &t.Resource, &apps, &keys, &fetched, &tried, &t.Failures, &t.Problem, &added); err != nil {
		return t, err
	}
	t.Issuers = cmg.EntraIssuers(t.Authority, t.ID)
	t.Fetched, t.Tried, t.Added = fromMicros(fetched), fromMicros(tried), fromMicros(added)
	return t, errors.Join(json.Unmarshal([]byte(audiences), &t.Audiences), json.Unmarshal([]byte(apps), &t.Apps), json.Unmarshal([]byte(keys), &t.Keys))
}

// publishedTenants is what gateways have to know of the tenants: when their
// keys were fetched is none of it, or every fetch would be a new publication.
func publishedTenants(ctx context.Context, db querier) (ts []cmg.Tenant, err error) {
	all, err := list(ctx, db, scanTenant, qTenants)
	for _, t := range all {
		t.Fetched = time.Time{}
		ts = append(ts, t.Tenant)
	}
	return ts, err
}
