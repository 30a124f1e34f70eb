// Package content turns folders into packages and packages into verified
// files: added inside, located at a gateway, fetched outside.
//
// # In a store
//
// A file's bytes lie once, however many packages hold them, under
//
//	files/<first 4 hex digits>/<SHA-256 in upper-case hex>
//
// and the list of one version of a package, a [cmg.Manifest] as JSON, under
//
//	packages/<package id>/<version>.json
//
// A manifest document never changes once it is there; its SHA-256 stands in
// the grants that let devices fetch the package, which binds a grant to
// exactly these bytes.
//
// # Located manifests, format 1
//
// What a gateway answers to a device that shows a content token is XML in
// UTF-8:
//
//	<?xml version="1.0" encoding="UTF-8"?>
//	<Content Format="1" Package="LAB00001" Version="1" Name="Tools" Files="2" Size="30" Expires="2026-01-02T15:04:05Z">
//	  <File Name="bin/tool.exe" Size="20" SHA256="64 hex digits" URL="https://…"/>
//	  <File Name="readme.txt" Size="10" SHA256="64 hex digits" URL="https://…"/>
//	</Content>
//
// Files and Size are the number of files and the sum of their sizes in bytes;
// a reader that finds another number or sum has not got the whole. Name is
// relative with forward slashes. Expires, RFC 3339 in UTC, is when the URLs
// end. Every attribute is there exactly once, in any order, and nothing else
// is: no other elements, text, comments, processing instructions, document
// types or namespaces. A reader refuses a Format that it does not know.
//
// # In a folder
//
// A [Downloader] keeps what is not yet whole in .cmg-partial in the target
// folder. Every file is fetched there and checked against its SHA-256; only
// when all are there do they get their final names, and last of all
// .cmg-partial is removed. So a folder is complete exactly when Fetch
// returned nil, and holds .cmg-partial while it is not.
package content

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/opencmg/cmg"
)

const (
	// MaxFiles is the most files that a package may have.
	MaxFiles = 100_000

	// MaxManifest bounds a manifest document, and MaxLocated a located
	// manifest, in bytes.
	MaxManifest = 32 << 20
	MaxLocated  = 96 << 20

	maxName = 256 // bytes of a package's name
)

// FileName is where a store keeps the bytes with digest d.
func FileName(d cmg.Digest) string {
	const folder = "files/"
	b := make([]byte, 0, len(folder)+4+1+2*len(d))
	b = append(appendDigest(append(b, folder...), d)[:len(folder)+4], '/')
	return string(appendDigest(b, d))
}

// appendDigest writes d as its String does, without making one: a located
// manifest has thousands.
func appendDigest(b []byte, d cmg.Digest) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range d {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return b
}

// ManifestName is where a store keeps the manifest document of a package's
// version.
func ManifestName(p cmg.PackageID, version int) string {
	return "packages/" + string(p) + "/" + strconv.Itoa(version) + ".json"
}

// partialFolder is what a Downloader works in.
const partialFolder = ".cmg-partial"

// checkPath is cmg.CheckFilePath and what XML, JSON and a Downloader cannot
// keep as it is.
func checkPath(p string) error {
	if err := cmg.CheckFilePath(p); err != nil {
		return err
	}
	if !utf8.ValidString(p) || strings.ContainsAny(p, "\uFFFD\uFFFE\uFFFF") {
		return fmt.Errorf("file path %.200q is not plain UTF-8: %w", p, cmg.ErrInvalid)
	}
	if first, _, _ := strings.Cut(p, "/"); strings.EqualFold(first, partialFolder) {
		return fmt.Errorf("file path %.200q lies where unfinished downloads are kept: %w", p, cmg.ErrInvalid)
	}
	return nil
}

// checkName says why s may not be a package's name.
func checkName(s string) error {
	bad := len(s) > maxName || !utf8.ValidString(s) || strings.ContainsAny(s, "\uFFFD\uFFFE\uFFFF") ||
		strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
	if bad {
		return fmt.Errorf("package name %.300q is over 256 bytes or not plain text: %w", s, cmg.ErrInvalid)
	}
	return nil
}

// checkManifest is Manifest.Check and this package's limits. Beyond the
// vocabulary's rules, no file may stand where another needs a folder.
func checkManifest(m cmg.Manifest) error {
	if err := m.Check(); err != nil {
		return err
	}
	if _, err := cmg.ParsePackageID(string(m.Package)); err != nil {
		return err
	}
	if err := checkName(m.Name); err != nil {
		return err
	}
	if len(m.Files) > MaxFiles {
		return fmt.Errorf("manifest of %s: %d files, over %d: %w", m.Package, len(m.Files), MaxFiles, cmg.ErrTooLarge)
	}
	files := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		files[strings.ToLower(f.Path)] = true
	}
	var sum int64
	sizes := make(map[cmg.Digest]int64, len(m.Files))
	for _, f := range m.Files {
		if n, ok := sizes[f.SHA256]; ok && n != f.Size && f.SHA256 != (cmg.Digest{}) { // zero: not known yet
			return fmt.Errorf("manifest of %s: %q has the digest of a file of another size: %w", m.Package, f.Path, cmg.ErrInvalid)
		}
		sizes[f.SHA256] = f.Size
		if err := checkPath(f.Path); err != nil {
			return fmt.Errorf("manifest of %s: %w", m.Package, err)
		}
		if sum += f.Size; sum < 0 {
			return fmt.Errorf("manifest of %s: sizes overflow: %w", m.Package, cmg.ErrInvalid)
		}
		for i, c := range f.Path {
			if c == '/' && files[strings.ToLower(f.Path[:i])] {
				return fmt.Errorf("manifest of %s: %q is a file and a folder: %w", m.Package, f.Path[:i], cmg.ErrInvalid)
			}
		}
	}
	return nil
}
