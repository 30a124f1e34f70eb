package site

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencmg/cmg"
)

var (
	qRoute          = query(`SELECT route, target FROM routes WHERE prefix_key = ?`)
	qRoleWithID     = query(`SELECT name FROM role_ids WHERE id = ? AND kind = ?`)
	qRemoveRoute    = query(`DELETE FROM routes WHERE prefix_key = ?`)
	proxiedPrefixes = []string{cmg.PrefixMutualAuth, cmg.PrefixServerAuth}
)

// An Overwrite says what a change of a route may touch. The zero value
// touches nothing that is there.
type Overwrite struct {
	Replace         bool // a route with the same prefix
	ManagementPoint bool // the routes of a management point: devices live by them
}

// PublishRoute is AddRoute that leaves alone what may does not permit: then
// it is ErrConflict.
func (s *Site) PublishRoute(ctx context.Context, r cmg.Route, target string, may Overwrite) error {
	p := PublishedRoute{Route: r, Target: target}
	if err := p.check(); err != nil {
		return err
	}
	return s.publish(ctx, func(tx *tx) (int64, error) {
		if err := tx.mayTouch(r.Prefix, may); err != nil {
			return 0, err
		}
		old, err := found(scanRoute(tx.row(qRoute, strings.ToLower(r.Prefix)).Scan))
		if err != nil {
			return 0, err
		}
		if old != nil && !may.Replace {
			return 0, fmt.Errorf("route %s leads to %s already; --replace takes its place: %w", old.Route.Prefix, old.Target, cmg.ErrConflict)
		}
		return tx.putRoutes([]PublishedRoute{p})
	})
}

// RemoveRoute takes back the route with this prefix, compared without case. A
// management point's is ErrConflict where may does not permit it.
func (s *Site) RemoveRoute(ctx context.Context, prefix string, may Overwrite) error {
	return s.publish(ctx, func(tx *tx) (int64, error) {
		if err := tx.mayTouch(prefix, may); err != nil {
			return 0, err
		}
		n, err := tx.changed(qRemoveRoute, strings.ToLower(prefix))
		if err = gone("route", prefix, n, err); err != nil {
			return 0, err
		}
		return n, tx.audit("route.remove", prefix, "")
	})
}

// mayTouch refuses a prefix under a management point's role id. One that is
// not published yet counts too: it would take requests away from one that is.
func (t *tx) mayTouch(prefix string, may Overwrite) error {
	id, ok := ProxiedRole(prefix)
	if !ok || may.ManagementPoint {
		return nil
	}
	name, err := found(scanText(t.row(qRoleWithID, int64(id), string(cmg.RoleManagementPoint)).Scan))
	if err != nil || name == nil {
		return err
	}
	return fmt.Errorf("route %s is of the management point %s, without which devices get no policy; --force does it all the same: %w", prefix, *name, cmg.ErrConflict)
}

// ProxiedRole gives the role id in a prefix such as
// /CCM_Proxy_MutualAuth/<id>/SMS_MP, and whether there is one.
func ProxiedRole(prefix string) (cmg.RoleID, bool) {
	for _, start := range proxiedPrefixes {
		if len(prefix) <= len(start) || !strings.EqualFold(prefix[:len(start)], start) {
			continue
		}
		segment, _, _ := strings.Cut(prefix[len(start):], "/")
		id, err := cmg.ParseRoleID(segment)
		return id, err == nil && id <= 1<<63-1
	}
	return 0, false
}

// FirstRoleID is the id that a new site gives to its first role.
const FirstRoleID = cmg.RoleID(firstRoleID + 1)
