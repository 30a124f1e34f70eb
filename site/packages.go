package site

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencmg/cmg"
)

// A Package is one version of a package whose bytes are in the content store.
type Package struct {
	ID       cmg.PackageID `json:"id"`
	Version  int           `json:"version"`
	Name     string        `json:"name"`
	Files    int           `json:"files"`
	Size     int64         `json:"size"`     // bytes of all files
	Manifest cmg.Digest    `json:"manifest"` // of the stored manifest document
	Added    time.Time     `json:"added"`
}

// Grant is what lets a device fetch p.
func (p Package) Grant() cmg.PackageGrant {
	return cmg.PackageGrant{Package: p.ID, Version: p.Version, Manifest: p.Manifest}
}

const packageColumns = `id, version, name, files, size, manifest, added`

var (
	qNextPackage    = query(`UPDATE site SET next_package = next_package + 1 WHERE one = 1 RETURNING code, next_package - 1`)
	qInsertPackage  = query(`INSERT INTO packages (` + packageColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?)`)
	qPackageVersion = query(`SELECT ` + packageColumns + ` FROM packages WHERE id = ? AND version = ?`)
	qPackage        = query(`SELECT ` + packageColumns + ` FROM packages WHERE id = ? ORDER BY version DESC LIMIT 1`)
	qPackages       = query(`SELECT ` + packageColumns + ` FROM packages ORDER BY id, version`)
)

// NextPackageID allots a package id that was never allotted before: the site
// code and five hex digits.
func (s *Site) NextPackageID(ctx context.Context) (id cmg.PackageID, err error) {
	err = s.update(ctx, func(tx *tx) error {
		var code string
		var n int64
		if err := tx.row(qNextPackage).Scan(&code, &n); err != nil {
			return fault("allot package id", err)
		}
		if n > 0xFFFFF {
			return fmt.Errorf("allot package id: all of %s00001 to %sFFFFF are used: %w", code, code, cmg.ErrConflict)
		}
		id = cmg.PackageID(fmt.Sprintf("%s%05X", code, n))
		return nil
	})
	return id, err
}

// AddPackage makes a version of a package known whose files and manifest
// document, with the given digest, are in the content store. The same again
// changes nothing; another manifest for a version that exists is ErrConflict.
func (s *Site) AddPackage(ctx context.Context, m cmg.Manifest, document cmg.Digest) error {
	if _, err := cmg.ParsePackageID(string(m.Package)); err != nil {
		return fmt.Errorf("add package: %w", err)
	}
	if err := m.Check(); err != nil {
		return fmt.Errorf("add package: %w", err)
	}
	return s.update(ctx, func(tx *tx) error {
		old, err := found(scanPackage(tx.row(qPackageVersion, string(m.Package), m.Version).Scan))
		if err != nil {
			return err
		}
		if old != nil && old.Manifest == document {
			return nil
		} else if old != nil {
			return fmt.Errorf("add package %s version %d: it exists with other files: %w", m.Package, m.Version, cmg.ErrConflict)
		}
		err = tx.exec(qInsertPackage, string(m.Package), m.Version, m.Name, len(m.Files), m.Size(), document.String(), micros(tx.now))
		return errors.Join(err, tx.audit("package.add", string(m.Package), fmt.Sprintf("version=%d files=%d manifest=%s name=%s", m.Version, len(m.Files), document, m.Name)))
	})
}

// Package gives one version of a package, the newest for version 0.
func (s *Site) Package(ctx context.Context, id cmg.PackageID, version int) (Package, error) {
	row := s.row(ctx, qPackage, string(id))
	if version != 0 {
		row = s.row(ctx, qPackageVersion, string(id), version)
	}
	p, err := scanPackage(row.Scan)
	return p, missing("package", string(id), err)
}

// Packages lists every version of every package, by id and version.
func (s *Site) Packages(ctx context.Context) ([]Package, error) {
	return list(ctx, s.read, scanPackage, qPackages)
}

func scanPackage(scan func(...any) error) (p Package, err error) {
	var manifest string
	var added int64
	if err = scan(&p.ID, &p.Version, &p.Name, &p.Files, &p.Size, &manifest, &added); err != nil {
		return p, err
	}
	p.Added = fromMicros(added)
	p.Manifest, err = cmg.ParseDigest(manifest)
	return p, err
}
