// Package site is the memory of a site: devices, tokens issued, packages,
// policies, reports and what is published to the gateways, in one SQL database.
//
// All SQL of the product is here. A [Site] may be used by many goroutines and
// several processes may open the same database at once: a command line writes
// while a management point runs. What a method has acknowledged (it returned
// no error) is on disk and survives a kill of the process and of the machine.
//
// Whatever a gateway learns through a [cmg.Publication], or a connection point
// through a [cmg.Map], has one version number that grows in the very
// transaction that changes any of it; see [Site.PublicationState].
//
// Errors wrap the kinds of package cmg: ErrNotFound for a missing row,
// ErrConflict for one that stands in the way, ErrInvalid for an argument that
// can never be right, ErrUnavailable while another process holds the database
// for longer than it may.
package site

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// Settings are what a site is made with; they never change.
type Settings struct {
	Code        string // three of A-Z and 0-9, such as LAB
	HierarchyID string // GUID without braces, lower case; empty makes a new one
	Name        string // for people
}

var siteCode = regexp.MustCompile(`^[A-Z0-9]{3}$`)

func (st *Settings) check() error {
	if !siteCode.MatchString(st.Code) {
		return fmt.Errorf("site code %.20q is not three of A-Z and 0-9: %w", st.Code, cmg.ErrInvalid)
	}
	if st.HierarchyID == "" {
		st.HierarchyID = cmg.NewGUID()
	}
	id, err := cmg.ParseDeviceID(st.HierarchyID)
	if err != nil || len(st.HierarchyID) != 36 {
		return fmt.Errorf("hierarchy id %.60q is not a GUID: %w", st.HierarchyID, cmg.ErrInvalid)
	}
	st.HierarchyID = strings.ToLower(id.GUID())
	return nil
}

// A Site is an open site database.
type Site struct {
	Now   func() time.Time // nil: time.Now; set it before first use
	Actor string           // who acts where the context does not say (see By); set it before first use

	write *sql.DB // one connection: writers of this process queue here
	read  *sql.DB
}

var qSettings = query(`SELECT code, hierarchy_id, name FROM site WHERE one = 1`)

// Create makes a site database at path, mode 0600, and opens it. A file that
// exists already is ErrConflict and stays untouched; when Create fails
// otherwise it leaves no file behind.
func Create(ctx context.Context, path string, st Settings) (_ *Site, err error) {
	if err := st.check(); err != nil {
		return nil, fmt.Errorf("create site database: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("create site database %s: the file exists: %w", path, cmg.ErrConflict)
	} else if err != nil {
		return nil, fmt.Errorf("create site database: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("create site database: %w", err)
	}
	s, err := connect(path)
	if err == nil {
		if err = s.initialise(ctx, st); err == nil {
			return s, nil
		}
		s.Close()
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		os.Remove(path + suffix)
	}
	return nil, fmt.Errorf("create site database %s: %w", path, err)
}

func (s *Site) initialise(ctx context.Context, st Settings) error {
	if err := s.migrate(ctx); err != nil {
		return err
	}
	now := micros(s.now())
	return s.update(ctx, func(tx *tx) error {
		if err := tx.exec(qInsertSite, st.Code, st.HierarchyID, st.Name, now, now); err != nil {
			return err
		}
		return tx.audit("site.create", st.Code, "hierarchy="+st.HierarchyID)
	})
}

var qInsertSite = query(`INSERT INTO site (one, code, hierarchy_id, name, created, next_package, publication, published)
	VALUES (1, ?, ?, ?, ?, 1, 1, ?)`)

// Open opens an existing site database and brings its tables up to date. A
// missing file is ErrNotFound, a file that is no site database ErrInvalid.
func Open(ctx context.Context, path string) (*Site, error) {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open site database %s: %w", path, cmg.ErrNotFound)
	} else if err != nil {
		return nil, fmt.Errorf("open site database: %w", err)
	}
	s, err := connect(path)
	if err != nil {
		return nil, fmt.Errorf("open site database %s: %w", path, err)
	}
	if err = s.recognise(ctx); err == nil {
		if err = s.migrate(ctx); err == nil {
			if _, err = s.Settings(ctx); err == nil {
				return s, nil
			}
		}
	}
	s.Close()
	return nil, fmt.Errorf("open site database %s: %w", path, err)
}

// Close ends the use of the database.
func (s *Site) Close() error { return errors.Join(s.read.Close(), s.write.Close()) }

// Settings gives what the site was made with.
func (s *Site) Settings(ctx context.Context) (st Settings, err error) {
	err = s.row(ctx, qSettings).Scan(&st.Code, &st.HierarchyID, &st.Name)
	if errors.Is(err, sql.ErrNoRows) {
		return st, fmt.Errorf("read site settings: the database holds no site: %w", cmg.ErrInvalid)
	}
	return st, fault("read site settings", err)
}

// Clock gives the site's time: that of Now.
func (s *Site) Clock() time.Time { return s.now() }

func (s *Site) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}
