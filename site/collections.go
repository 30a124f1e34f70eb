package site

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// A Collection is a named set of devices.
type Collection struct {
	Name  string    `json:"name"`
	Query string    `json:"query,omitempty"` // see Expression; empty: it is a list
	Made  time.Time `json:"made"`
}

// What is kept of a device's discovery at most: what is more is left out.
const (
	maxFacts     = 500
	maxFactName  = 128
	maxFactValue = 1024
)

var collectionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$`)

const collectionColumns = `name, query, made`

var (
	qCollections      = query(`SELECT ` + collectionColumns + ` FROM collections ORDER BY name_key`)
	qCollection       = query(`SELECT ` + collectionColumns + ` FROM collections WHERE name_key = ?`)
	qInsertCollection = query(`INSERT INTO collections (name_key, ` + collectionColumns + `) VALUES (?, ?, ?, ?) ON CONFLICT (name_key) DO NOTHING`)
	qDeleteCollection = query(`DELETE FROM collections WHERE name_key = ?`)
	qTargetsOf        = query(`SELECT count(*) FROM policies WHERE retired = 0 AND collection = ?`)

	qIsListed      = query(`SELECT 1 FROM collection_members WHERE name_key = ? AND device = ?`)
	qInsertListed  = query(`INSERT INTO collection_members (name_key, device) VALUES (?, ?) ON CONFLICT (name_key, device) DO NOTHING`)
	qRemoveListed  = query(`DELETE FROM collection_members WHERE name_key = ? AND device = ?`)
	qDeleteListed  = query(`DELETE FROM collection_members WHERE name_key = ?`)
	qDeleteMember  = query(`DELETE FROM collection_members WHERE device = ?`)
	qFacts         = query(`SELECT name, value FROM device_facts WHERE device = ?`)
	qInsertFact    = query(`INSERT INTO device_facts (device, name, value) VALUES (?, ?, ?)`)
	qDeleteFacts   = query(`DELETE FROM device_facts WHERE device = ?`)
	errNoList      = fmt.Errorf("the collection is a query: whom it holds follows from that: %w", cmg.ErrConflict)
	errCollectUsed = fmt.Errorf("policies in force are for it: %w", cmg.ErrConflict)
)

func collectionKey(name string) string { return strings.ToLower(name) }

// AddCollection makes a collection: by a query, or an empty list. A name that
// is taken, in whatever case, is ErrConflict.
func (s *Site) AddCollection(ctx context.Context, name, expression string) error {
	if !collectionName.MatchString(name) {
		return fmt.Errorf("add collection %.80q: a name is up to 64 letters, digits, blanks, dots, underscores and hyphens, the first a letter or digit: %w", name, cmg.ErrInvalid)
	}
	if expression != "" {
		if _, err := ParseExpression(expression); err != nil {
			return fmt.Errorf("add collection %s: %w", name, err)
		}
	}
	return s.update(ctx, func(tx *tx) error {
		n, err := tx.changed(qInsertCollection, collectionKey(name), name, expression, micros(tx.now))
		if err == nil && n == 0 {
			err = fmt.Errorf("add collection %s: there is one of this name: %w", name, cmg.ErrConflict)
		}
		return errors.Join(err, tx.audit("collection.add", name, "query="+expression))
	})
}

// Collection gives a collection by its name, in whatever case.
func (s *Site) Collection(ctx context.Context, name string) (Collection, error) {
	c, err := scanCollection(s.row(ctx, qCollection, collectionKey(name)).Scan)
	return c, missing("collection", name, err)
}

// Collections lists the collections by name.
func (s *Site) Collections(ctx context.Context) ([]Collection, error) {
	return list(ctx, s.read, scanCollection, qCollections)
}

// RemoveCollection forgets a collection. One that policies in force are for
// is ErrConflict.
func (s *Site) RemoveCollection(ctx context.Context, name string) error {
	return s.update(ctx, func(tx *tx) error {
		c, err := scanCollection(tx.row(qCollection, collectionKey(name)).Scan)
		if err != nil {
			return missing("collection", name, err)
		}
		var used int
		if err := tx.row(qTargetsOf, c.Name).Scan(&used); err != nil {
			return fault("count policies", err)
		}
		if used > 0 {
			return fmt.Errorf("remove collection %s: %w", c.Name, errCollectUsed)
		}
		return errors.Join(tx.exec(qDeleteListed, collectionKey(name)), tx.exec(qDeleteCollection, collectionKey(name)),
			tx.audit("collection.remove", c.Name, ""))
	})
}

// ChangeMembers puts devices into a list and takes others out. A device that
// is not registered is ErrNotFound; a collection with a query is ErrConflict.
func (s *Site) ChangeMembers(ctx context.Context, name string, in, out []cmg.DeviceID) error {
	return s.update(ctx, func(tx *tx) error {
		c, err := scanCollection(tx.row(qCollection, collectionKey(name)).Scan)
		if err != nil {
			return missing("collection", name, err)
		}
		if c.Query != "" {
			return fmt.Errorf("change collection %s: %w", c.Name, errNoList)
		}
		for _, d := range in {
			if _, err := scanDevice(tx.row(qDevice, string(d)).Scan); err != nil {
				return missing("device", string(d), err)
			}
			if err := errors.Join(tx.exec(qInsertListed, collectionKey(name), string(d)), tx.audit("collection.include", c.Name, "device="+string(d))); err != nil {
				return err
			}
		}
		for _, d := range out {
			if err := errors.Join(tx.exec(qRemoveListed, collectionKey(name), string(d)), tx.audit("collection.exclude", c.Name, "device="+string(d))); err != nil {
				return err
			}
		}
		return nil
	})
}

// AddDiscovery is AddReport for a discovery record, and replaces in the same
// transaction what is known of its device by what it tells: a record that is
// repeated changes nothing. Names are taken in lower case; what is too long, or
// too much, is left out.
func (s *Site) AddDiscovery(ctx context.Context, r cmg.Report, facts map[string]string) (added bool, err error) {
	err = s.update(ctx, func(tx *tx) error {
		if added, err = tx.addReport(r); err != nil || !added {
			return err
		}
		return tx.putFacts(r.Device, facts)
	})
	return added && err == nil, err
}

func (t *tx) putFacts(device cmg.DeviceID, facts map[string]string) error {
	if err := t.exec(qDeleteFacts, string(device)); err != nil {
		return err
	}
	kept := 0
	for name, value := range facts {
		if kept == maxFacts || name == "" || len(name) > maxFactName || len(value) > maxFactValue {
			continue
		}
		kept++
		if err := t.exec(qInsertFact, string(device), strings.ToLower(name), value); err != nil {
			return err
		}
	}
	return nil
}

// Members lists the devices of a collection by id, in steps through all
// devices where it is a query.
func (s *Site) Members(ctx context.Context, name string) (members []cmg.Device, err error) {
	c, err := s.Collection(ctx, name)
	if err != nil {
		return nil, err
	}
	const page = 500
	for after := cmg.DeviceID(""); ; {
		some, err := s.Devices(ctx, after, page)
		if err != nil {
			return nil, err
		}
		for _, d := range some {
			yes, err := s.membership(d.ID).in(ctx, c.Name)
			if err != nil {
				return nil, err
			}
			if yes {
				members = append(members, d)
			}
		}
		if len(some) < page {
			return members, nil
		}
		after = some[len(some)-1].ID
	}
}

// A membership answers in which collections one device is. It asks anew for
// every use: what a device told a moment ago counts at its next request.
type membership struct {
	site   *Site
	device cmg.DeviceID
	known  map[string]bool
	facts  map[string]string
}

func (s *Site) membership(d cmg.DeviceID) *membership {
	return &membership{site: s, device: d, known: map[string]bool{"": true}}
}

// in says whether the device is in a collection; a collection that is not
// there holds nobody, the empty name is everybody.
func (m *membership) in(ctx context.Context, name string) (yes bool, err error) {
	key := collectionKey(name)
	if yes, ok := m.known[key]; ok {
		return yes, nil
	}
	c, err := found(scanCollection(m.site.row(ctx, qCollection, key).Scan))
	switch {
	case err != nil:
		return false, err
	case c == nil:
	case c.Query == "":
		one, err := found(scanOne(m.site.row(ctx, qIsListed, key, string(m.device)).Scan))
		if err != nil {
			return false, err
		}
		yes = one != nil
	default:
		e, err := ParseExpression(c.Query)
		if err != nil {
			return false, fmt.Errorf("collection %s: %w", c.Name, err)
		}
		if err := m.learn(ctx); err != nil {
			return false, err
		}
		yes = e.Matches(m.facts)
	}
	m.known[key] = yes
	return yes, nil
}

// learn reads what is known of the device; what the site knows by itself
// counts more than what discovery tells.
func (m *membership) learn(ctx context.Context) error {
	if m.facts != nil {
		return nil
	}
	d, err := m.site.Device(ctx, m.device)
	if err != nil && !errors.Is(err, cmg.ErrNotFound) {
		return err
	}
	told, err := list(ctx, m.site.read, scanFact, qFacts, string(m.device))
	if err != nil {
		return err
	}
	m.facts = map[string]string{}
	for _, f := range told {
		m.facts[f[0]] = f[1]
	}
	for name, value := range map[string]string{"id": string(d.ID), "name": d.Name, "fqdn": d.FQDN, "agent": d.Agent,
		"approval": string(d.Approval), "proof": string(d.Proof), "hardware": d.Hardware} {
		if value != "" {
			m.facts[name] = value
		} else {
			delete(m.facts, name)
		}
	}
	return nil
}

func scanCollection(scan func(...any) error) (c Collection, err error) {
	var made int64
	err = scan(&c.Name, &c.Query, &made)
	c.Made = fromMicros(made)
	return c, err
}

func scanFact(scan func(...any) error) (f [2]string, err error) {
	err = scan(&f[0], &f[1])
	return f, err
}

func scanOne(scan func(...any) error) (n sql.NullInt64, err error) {
	err = scan(&n)
	return n, err
}
