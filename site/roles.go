package site

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencmg/cmg"
)

// firstRoleID is what the field's role ids begin after: 2^56 (PROTOCOL 1.1).
const firstRoleID = 1 << 56

var (
	qRoleID       = query(`SELECT id FROM role_ids WHERE kind = ? AND name = ?`)
	qInsertRoleID = query(`INSERT INTO role_ids (id, kind, name) SELECT coalesce(max(id), ?) + 1, ?, ? FROM role_ids RETURNING id`)

	qGateways      = query(`SELECT host, port FROM gateways ORDER BY host, port`)
	qAddGateway    = query(`INSERT INTO gateways (host, port) VALUES (?, ?) ON CONFLICT (host, port) DO NOTHING`)
	qRemoveGateway = query(`DELETE FROM gateways WHERE host = ? AND port = ?`)
)

// RoleID gives the id under which a role is published: always the same one
// for the same kind and name, and never one that another role had.
func (s *Site) RoleID(ctx context.Context, kind cmg.RoleKind, name string) (id cmg.RoleID, err error) {
	err = s.update(ctx, func(tx *tx) error {
		id, err = tx.roleID(kind, name)
		return err
	})
	return id, err
}

func (t *tx) roleID(kind cmg.RoleKind, name string) (cmg.RoleID, error) {
	if kind == "" || name == "" {
		return 0, fmt.Errorf("allot role id: kind and name have to be set: %w", cmg.ErrInvalid)
	}
	id, err := found(scanRoleID(t.row(qRoleID, string(kind), name).Scan))
	if err != nil || id != nil {
		if id == nil {
			return 0, err
		}
		return *id, nil
	}
	n, err := scanRoleID(t.row(qInsertRoleID, int64(firstRoleID), string(kind), name).Scan)
	if err != nil {
		return n, fault("allot role id", err)
	}
	return n, t.audit("role.allot", n.String(), "kind="+string(kind)+" name="+name)
}

func scanRoleID(scan func(...any) error) (cmg.RoleID, error) {
	var n int64
	err := scan(&n)
	return cmg.RoleID(n), err
}

// AddManagementPoint publishes every route of a management point that the
// inside reaches at target (https://host[:port]) and gives its role id, as
// one new version. Doing it again with another target moves it.
func (s *Site) AddManagementPoint(ctx context.Context, name, target string) (id cmg.RoleID, err error) {
	target = strings.TrimSuffix(target, "/")
	err = s.publish(ctx, func(tx *tx) (int64, error) {
		if id, err = tx.roleID(cmg.RoleManagementPoint, name); err != nil {
			return 0, err
		}
		var rs []PublishedRoute
		for _, r := range cmg.ManagementPointRoutes(id) {
			// The target takes the whole prefix's place, so it has to name the
			// endpoint again: /CCM_Proxy_MutualAuth/<id>/SMS_MP → target/SMS_MP.
			path := r.Prefix[strings.LastIndexByte(r.Prefix, '/'):]
			if path == cmg.DistributionPath || path == cmg.DistributionTokenPath {
				path = r.Prefix // its listings name paths as the client has to write them
			}
			p := PublishedRoute{Route: r, Target: target + path}
			if err := (cmg.Mapping{Prefix: r.Prefix, Target: p.Target}).Check(); err != nil {
				return 0, err
			}
			rs = append(rs, p)
		}
		return tx.putRoutes(rs)
	})
	return id, err
}

// AddGateway makes a gateway service known to the management point, which
// names it to clients. Adding it again changes nothing.
func (s *Site) AddGateway(ctx context.Context, g cmg.GatewayService) error {
	if g.Host == "" || strings.ContainsAny(g.Host, "/:@ ") || g.Port < 1 || g.Port > 65535 {
		return fmt.Errorf("add gateway %.100q port %d: not a host name and a port: %w", g.Host, g.Port, cmg.ErrInvalid)
	}
	return s.update(ctx, func(tx *tx) error {
		n, err := tx.changed(qAddGateway, strings.ToLower(g.Host), g.Port)
		if err != nil || n == 0 {
			return err
		}
		return tx.audit("gateway.add", strings.ToLower(g.Host), fmt.Sprintf("port=%d", g.Port))
	})
}

// Gateways lists the gateway services.
func (s *Site) Gateways(ctx context.Context) ([]cmg.GatewayService, error) {
	return list(ctx, s.read, scanGateway, qGateways)
}

// RemoveGateway makes a gateway service unknown again.
func (s *Site) RemoveGateway(ctx context.Context, g cmg.GatewayService) error {
	return s.update(ctx, func(tx *tx) error {
		n, err := tx.changed(qRemoveGateway, strings.ToLower(g.Host), g.Port)
		if err = gone("gateway", g.Host, n, err); err != nil {
			return err
		}
		return tx.audit("gateway.remove", strings.ToLower(g.Host), fmt.Sprintf("port=%d", g.Port))
	})
}

func scanGateway(scan func(...any) error) (g cmg.GatewayService, err error) {
	err = scan(&g.Host, &g.Port)
	return g, err
}
