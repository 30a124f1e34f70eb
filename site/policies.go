package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// An Assignment names a policy without its body.
type Assignment struct {
	ID         string
	Version    string
	Category   string
	Flags      uint32
	Collection string     // whose devices it is for; empty: all
	SHA256     cmg.Digest // of the body
	Added      time.Time
}

const assignmentColumns = `id, version, category, flags, sha256, added, collection`

var (
	qPolicy       = query(`SELECT id, version, category, flags, body, collection FROM policies WHERE id = ? AND retired = 0`)
	qAnyPolicy    = query(`SELECT id, version, category, flags, body, collection FROM policies WHERE id = ?`)
	qPolicies     = query(`SELECT ` + assignmentColumns + ` FROM policies WHERE retired = 0 ORDER BY retired, added, id`)
	qInForce      = query(`SELECT id, version, category, flags, body, collection FROM policies WHERE retired = 0 ORDER BY retired, added, id`)
	qNewest       = query(`SELECT coalesce(max(added), 0) FROM policies WHERE retired = 0`)
	qInsertPolicy = query(`INSERT INTO policies (` + assignmentColumns + `, body, retired) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)`)
	qRetirePolicy = query(`UPDATE policies SET retired = 1 WHERE id = ? AND retired = 0`)
)

// AddPolicy puts a policy in force for the devices of its collection, which
// has to be there. The same again changes
// nothing; an id that was used for anything else, retired or not, is
// ErrConflict: new instructions get a new id.
func (s *Site) AddPolicy(ctx context.Context, p cmg.Policy) error {
	if err := checkPolicy(p); err != nil {
		return err
	}
	return s.update(ctx, func(tx *tx) error { return tx.addPolicy(p) })
}

// SupersedePolicies is AddPolicy that in the same transaction takes those out
// of force that retire chooses. It is asked of every policy in force, in the
// order they were made; where it gives an error nothing is changed.
func (s *Site) SupersedePolicies(ctx context.Context, p cmg.Policy, retire func(cmg.Policy) (bool, error)) error {
	if err := checkPolicy(p); err != nil {
		return err
	}
	return s.update(ctx, func(tx *tx) error {
		inForce, err := list(tx.ctx, tx.tx, scanPolicy, qInForce)
		if err != nil {
			return err
		}
		for _, old := range inForce {
			yes, err := retire(old)
			if err == nil && yes {
				err = errors.Join(tx.exec(qRetirePolicy, old.ID), tx.audit("policy.retire", old.ID, "for="+p.ID))
			}
			if err != nil {
				return err
			}
		}
		return tx.addPolicy(p)
	})
}

func checkPolicy(p cmg.Policy) error {
	guid, err := cmg.ParseDeviceID(strings.TrimSuffix(strings.TrimPrefix(p.ID, "{"), "}"))
	if err != nil || p.ID != "{"+guid.GUID()+"}" {
		return fmt.Errorf("add policy: id %.60q is not a braced GUID in upper case: %w", p.ID, cmg.ErrInvalid)
	}
	if p.Version == "" || len(p.Body) == 0 {
		return fmt.Errorf("add policy %s: version and body have to be set: %w", p.ID, cmg.ErrInvalid)
	}
	return nil
}

func (t *tx) addPolicy(p cmg.Policy) error {
	old, err := found(scanPolicy(t.row(qAnyPolicy, p.ID).Scan))
	if err != nil {
		return err
	}
	if old != nil {
		live, err := found(scanPolicy(t.row(qPolicy, p.ID).Scan))
		if err == nil && (live == nil || live.Version != p.Version || live.Category != p.Category || live.Flags != p.Flags || live.Collection != p.Collection || !bytes.Equal(live.Body, p.Body)) {
			err = fmt.Errorf("add policy %s: the id is used: %w", p.ID, cmg.ErrConflict)
		}
		return err
	}
	if p.Collection != "" {
		c, err := scanCollection(t.row(qCollection, collectionKey(p.Collection)).Scan)
		if err != nil {
			return missing("collection", p.Collection, err)
		}
		p.Collection = c.Name
	}
	// The time is the order: never that of another, also when the clock goes back.
	var newest int64
	if err := t.row(qNewest).Scan(&newest); err != nil {
		return fault("read policies", err)
	}
	err = t.exec(qInsertPolicy, p.ID, p.Version, p.Category, p.Flags, p.SHA256().String(), max(micros(t.now), newest+1), p.Collection, p.Body)
	return errors.Join(err, t.policyChanged(), t.audit("policy.add", p.ID, "version="+p.Version+" category="+p.Category+" sha256="+p.SHA256().String()+" collection="+p.Collection))
}

// Policies lists what is in force for a device, in the order it was made; of
// the empty id, what is in force for anybody.
func (s *Site) Policies(ctx context.Context, device cmg.DeviceID) ([]Assignment, error) {
	all, err := list(ctx, s.read, scanAssignment, qPolicies)
	if err != nil || device == "" {
		return all, err
	}
	m := s.membership(device)
	theirs := all[:0]
	for _, a := range all {
		yes, err := m.in(ctx, a.Collection)
		if err != nil {
			return nil, err
		}
		if yes {
			theirs = append(theirs, a)
		}
	}
	return theirs, nil
}

// Applies says whether a policy is for a device.
func (s *Site) Applies(ctx context.Context, p cmg.Policy, device cmg.DeviceID) (bool, error) {
	return s.membership(device).in(ctx, p.Collection)
}

// Policy gives a policy that is in force, with its body. The id is compared
// as it stands: a braced GUID in upper case.
func (s *Site) Policy(ctx context.Context, id string) (cmg.Policy, error) {
	p, err := scanPolicy(s.row(ctx, qPolicy, id).Scan)
	return p, missing("policy", id, err)
}

// RetirePolicy takes a policy out of force.
func (s *Site) RetirePolicy(ctx context.Context, id string) error {
	return s.update(ctx, func(tx *tx) error {
		n, err := tx.changed(qRetirePolicy, id)
		if err = gone("policy", id, n, err); err != nil {
			return err
		}
		return errors.Join(tx.policyChanged(), tx.audit("policy.retire", id, ""))
	})
}

func scanPolicy(scan func(...any) error) (p cmg.Policy, err error) {
	err = scan(&p.ID, &p.Version, &p.Category, &p.Flags, &p.Body, &p.Collection)
	return p, err
}

func scanAssignment(scan func(...any) error) (a Assignment, err error) {
	var sum string
	var added int64
	if err = scan(&a.ID, &a.Version, &a.Category, &a.Flags, &sum, &added, &a.Collection); err != nil {
		return a, err
	}
	a.Added = fromMicros(added)
	a.SHA256, err = cmg.ParseDigest(sum)
	return a, err
}
