package site

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// A PublicationState is all that gateways and connection points have to know,
// as of one version.
type PublicationState struct {
	Version   uint64
	Changed   time.Time // when the version began
	Site      string    // site code
	Hierarchy string    // GUID in lower case
	Routes    []cmg.Route
	Mappings  []cmg.Mapping
	Anchors   []string          // PEM, one certificate each
	Keys      []json.RawMessage // public keys of site tokens, JWK
	Blocks    cmg.Blocks

	Revocation cmg.Revocation
	Tenants    []cmg.Tenant
}

// Publication is the part for gateways, ready to be signed. Equal states give
// equal publications.
func (p PublicationState) Publication() cmg.Publication {
	return cmg.Publication{
		Version: p.Version, Site: p.Site, Hierarchy: p.Hierarchy, Issued: p.Changed,
		Routes: p.Routes, Anchors: p.Anchors, Keys: p.Keys, Blocks: p.Blocks,
		Revocation: p.Revocation, Tenants: p.Tenants,
	}
}

// A PublishedRoute is a route and where a connection point sends what came on it.
type PublishedRoute struct {
	Route  cmg.Route `json:"route"`
	Target string    `json:"target"` // http(s)://host[:port][/base]; base takes the prefix's place
}

var (
	qVersion     = query(`SELECT publication FROM site WHERE one = 1`)
	qPublication = query(`SELECT publication, published, code, hierarchy_id FROM site WHERE one = 1`)
	qBump        = query(`UPDATE site SET publication = publication + 1, published = ? WHERE one = 1`)
	qRoutes      = query(`SELECT route, target FROM routes ORDER BY prefix_key`)
	qPutRoute    = query(`INSERT INTO routes (prefix_key, route, target) VALUES (?, ?, ?)
	ON CONFLICT (prefix_key) DO UPDATE SET route = excluded.route, target = excluded.target
	WHERE routes.route <> excluded.route OR routes.target <> excluded.target`)
	qAnchors      = query(`SELECT pem FROM anchors ORDER BY thumbprint`)
	qAddAnchor    = query(`INSERT INTO anchors (thumbprint, pem) VALUES (?, ?) ON CONFLICT (thumbprint) DO NOTHING`)
	qCountAnchors = query(`SELECT count(*) FROM anchors`)
	qRemoveAnchor = query(`DELETE FROM anchors WHERE thumbprint = ?`)
	qKeys         = query(`SELECT jwk FROM token_keys ORDER BY id`)
	qAddKey       = query(`INSERT INTO token_keys (id, jwk) VALUES (?, ?) ON CONFLICT (id) DO NOTHING`)
	qRemoveKey    = query(`DELETE FROM token_keys WHERE id = ?`)
)

// publish runs f in a transaction; what f counts as changed begins a new
// version of the publication in the same transaction.
func (s *Site) publish(ctx context.Context, f func(*tx) (changed int64, err error)) error {
	return s.update(ctx, func(tx *tx) error {
		n, err := f(tx)
		if err != nil || n == 0 {
			return err
		}
		return tx.exec(qBump, micros(tx.now))
	})
}

// PublicationVersion gives the version alone: cheap enough to ask at every poll.
func (s *Site) PublicationVersion(ctx context.Context) (v uint64, err error) {
	err = s.row(ctx, qVersion).Scan(&v)
	return v, fault("read publication version", err)
}

// PublicationState reads everything published, all of one version.
func (s *Site) PublicationState(ctx context.Context) (p PublicationState, err error) {
	t, err := s.read.BeginTx(ctx, nil) // one snapshot for all queries
	if err != nil {
		return p, fault("begin", err)
	}
	defer t.Rollback()
	var changed int64
	if err = t.QueryRowContext(ctx, qPublication).Scan(&p.Version, &changed, &p.Site, &p.Hierarchy); err != nil {
		return p, fault("read publication", err)
	}
	p.Changed = fromMicros(changed)
	routes, err := list(ctx, t, scanRoute, qRoutes)
	if err != nil {
		return p, err
	}
	for _, r := range routes {
		p.Routes = append(p.Routes, r.Route)
		p.Mappings = append(p.Mappings, cmg.Mapping{Prefix: r.Route.Prefix, Target: r.Target})
	}
	if p.Anchors, err = list(ctx, t, scanText, qAnchors); err != nil {
		return p, err
	}
	blocked, err := list(ctx, t, scanBlock, qBlocks)
	if err != nil {
		return p, err
	}
	p.Blocks = published(blocked)
	keys, err := list(ctx, t, scanText, qKeys)
	if err != nil {
		return p, err
	}
	for _, k := range keys {
		p.Keys = append(p.Keys, json.RawMessage(k))
	}
	if p.Revocation, err = revocationOf(ctx, t); err != nil {
		return p, err
	}
	p.Tenants, err = publishedTenants(ctx, t)
	return p, err
}

// AddRoute publishes a route and maps its prefix to target. A route with the
// same prefix, compared without case, is replaced.
func (s *Site) AddRoute(ctx context.Context, r cmg.Route, target string) error {
	return s.AddRoutes(ctx, PublishedRoute{Route: r, Target: target})
}

// AddRoutes is AddRoute for several routes, all or none, as one new version.
func (s *Site) AddRoutes(ctx context.Context, rs ...PublishedRoute) error {
	for _, r := range rs {
		if err := r.check(); err != nil {
			return err
		}
	}
	return s.publish(ctx, func(tx *tx) (changed int64, err error) { return tx.putRoutes(rs) })
}

func (p PublishedRoute) check() error {
	if err := p.Route.Check(); err != nil {
		return err
	}
	return cmg.Mapping{Prefix: p.Route.Prefix, Target: p.Target}.Check()
}

func (t *tx) putRoutes(rs []PublishedRoute) (changed int64, err error) {
	for _, r := range rs {
		b, err := json.Marshal(r.Route)
		if err != nil {
			return 0, fmt.Errorf("write route %s: %w", r.Route.Prefix, err)
		}
		n, err := t.changed(qPutRoute, strings.ToLower(r.Route.Prefix), string(b), r.Target)
		if err != nil {
			return 0, err
		}
		if n > 0 {
			if err := t.audit("route.publish", r.Route.Prefix, "target="+r.Target+" route="+string(b)); err != nil {
				return 0, err
			}
		}
		changed += n
	}
	return changed, nil
}

// Routes lists what is published, by prefix.
func (s *Site) Routes(ctx context.Context) ([]PublishedRoute, error) {
	return list(ctx, s.read, scanRoute, qRoutes)
}

// AddAnchor lets gateways trust clients under a root or through an
// intermediate: one or more PEM certificates, each of an authority.
func (s *Site) AddAnchor(ctx context.Context, bundle []byte) error {
	certs, err := authorities(bundle)
	if err != nil {
		return fmt.Errorf("add anchor: %w", err)
	}
	return s.publish(ctx, func(tx *tx) (changed int64, err error) {
		for _, c := range certs {
			text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
			n, err := tx.changed(qAddAnchor, thumbprint(c.Raw), string(text))
			if err == nil && n > 0 {
				err = tx.audit("anchor.add", thumbprint(c.Raw), "subject="+c.Subject.String())
			}
			if err != nil {
				return 0, err
			}
			changed += n
		}
		var all int
		if err := tx.row(qCountAnchors).Scan(&all); err != nil {
			return 0, fault("count anchors", err)
		}
		if all > cmg.MaxAnchors {
			return 0, fmt.Errorf("add anchor: there would be %d, at most %d: %w", all, cmg.MaxAnchors, cmg.ErrTooLarge)
		}
		return changed, nil
	})
}

func authorities(bundle []byte) (certs []*x509.Certificate, err error) {
	for {
		var b *pem.Block
		if b, bundle = pem.Decode(bundle); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %.40q is not a certificate: %w", b.Type, cmg.ErrInvalid)
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse certificate: %w (%w)", err, cmg.ErrInvalid)
		}
		if !c.IsCA {
			return nil, fmt.Errorf("certificate %.100q is not an authority's: %w", c.Subject, cmg.ErrInvalid)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("no PEM certificate in it: %w", cmg.ErrInvalid)
	}
	return certs, nil
}

// Anchors lists the trust anchors and intermediates, PEM, one each.
func (s *Site) Anchors(ctx context.Context) ([]string, error) {
	return list(ctx, s.read, scanText, qAnchors)
}

// RemoveAnchor takes back an anchor by its thumbprint (SHA-256, hex).
func (s *Site) RemoveAnchor(ctx context.Context, thumb string) error {
	return s.publish(ctx, func(tx *tx) (int64, error) {
		n, err := tx.changed(qRemoveAnchor, strings.ToLower(thumb))
		if err = gone("anchor", thumb, n, err); err != nil {
			return 0, err
		}
		return n, tx.audit("anchor.remove", strings.ToLower(thumb), "")
	})
}

// AddTokenKeys publishes the public keys (JWK with kid) that site tokens are
// signed with. Keys that are published already stay as they are, so this may
// be called at every start.
func (s *Site) AddTokenKeys(ctx context.Context, keys []json.RawMessage) error {
	return s.publish(ctx, func(tx *tx) (changed int64, err error) {
		for _, k := range keys {
			var h struct{ Kid, D, K string }
			if err := json.Unmarshal(k, &h); err != nil || h.Kid == "" || h.D != "" || h.K != "" {
				return 0, fmt.Errorf("publish token key: it is not a public JWK with a kid: %w", cmg.ErrInvalid)
			}
			n, err := tx.changed(qAddKey, h.Kid, string(k))
			if err == nil && n > 0 {
				err = tx.audit("tokenkey.add", h.Kid, "")
			}
			if err != nil {
				return 0, err
			}
			changed += n
		}
		return changed, nil
	})
}

// RemoveTokenKey takes back a token key: what it signed is refused from then on.
func (s *Site) RemoveTokenKey(ctx context.Context, kid string) error {
	return s.publish(ctx, func(tx *tx) (int64, error) {
		n, err := tx.changed(qRemoveKey, kid)
		if err = gone("token key", kid, n, err); err != nil {
			return 0, err
		}
		return n, tx.audit("tokenkey.remove", kid, "")
	})
}

func scanText(scan func(...any) error) (t string, err error) {
	err = scan(&t)
	return t, err
}

func scanRoute(scan func(...any) error) (r PublishedRoute, err error) {
	var route string
	if err = scan(&route, &r.Target); err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(route), &r.Route)
}
