package cmg

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A PackageID names a package: three characters of site code and five hex
// digits, such as LAB00001.
type PackageID string

var packageID = regexp.MustCompile(`^[A-Z0-9]{3}[0-9A-F]{5}$`)

// ParsePackageID reads a package id in either case.
func ParsePackageID(s string) (PackageID, error) {
	id := strings.ToUpper(s)
	if !packageID.MatchString(id) {
		return "", fmt.Errorf("package id %.40q is not a site code and five hex digits, such as LAB00001: %w", s, ErrInvalid)
	}
	return PackageID(id), nil
}

// A Digest is a SHA-256, in text 64 hex digits in upper case as the content
// library of Configuration Manager writes it.
type Digest [sha256.Size]byte

// ParseDigest reads 64 hex digits in either case.
func ParseDigest(s string) (d Digest, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(d) {
		return d, fmt.Errorf("digest %.80q is not 64 hex digits: %w", s, ErrInvalid)
	}
	copy(d[:], b)
	return d, nil
}

func (d Digest) String() string { return strings.ToUpper(hex.EncodeToString(d[:])) }

// MarshalText writes the digest as String does.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDigest reads.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDigest(string(b))
	return err
}

// A File is one file of a package.
type File struct {
	Path   string `json:"path"` // relative, with forward slashes
	Size   int64  `json:"size"`
	SHA256 Digest `json:"sha256"`
}

// A Manifest lists the files of one version of a package, sorted by path.
type Manifest struct {
	Package PackageID `json:"package"`
	Version int       `json:"version"` // from 1
	Name    string    `json:"name"`
	Files   []File    `json:"files"`
}

// Size is the sum of all files' sizes in bytes.
func (m Manifest) Size() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// Check says what is wrong with m: a path that could leave the folder it is
// unpacked into, that names a stream or device on some system, or that
// stands twice (also where only letter case differs).
func (m Manifest) Check() error {
	if m.Version < 1 {
		return fmt.Errorf("manifest of %s: version %d: %w", m.Package, m.Version, ErrInvalid)
	}
	seen := make(map[string]bool, len(m.Files))
	for _, f := range m.Files {
		if err := CheckFilePath(f.Path); err != nil {
			return fmt.Errorf("manifest of %s: %w", m.Package, err)
		}
		if f.Size < 0 {
			return fmt.Errorf("manifest of %s: size of %q is negative: %w", m.Package, f.Path, ErrInvalid)
		}
		k := strings.ToLower(f.Path)
		if seen[k] {
			return fmt.Errorf("manifest of %s: %q stands twice: %w", m.Package, f.Path, ErrInvalid)
		}
		seen[k] = true
	}
	return nil
}

// CheckFilePath says why p may not be the path of a package's file. It is as
// strict as the strictest system a package may be unpacked on: Windows drops
// dots and blanks at the end of a name, so that two names would be one.
func CheckFilePath(p string) error {
	bad := p == "" || len(p) > 1024 || path.Clean(p) != p || strings.HasPrefix(p, "/") || !utf8.ValidString(p) ||
		strings.ContainsAny(p, `\:*?"<>|`) || strings.ContainsFunc(p, func(r rune) bool { return r < 0x20 || r == 0x7f })
	for segment := range strings.SplitSeq(p, "/") {
		bad = bad || strings.HasSuffix(segment, ".") || strings.HasSuffix(segment, " ")
	}
	if bad {
		return fmt.Errorf("file path %.200q is not relative and plain: %w", p, ErrInvalid)
	}
	return nil
}

// A PackageGrant lets a device fetch one version of a package. The digest of
// the manifest binds the grant to exactly these bytes.
type PackageGrant struct {
	Package  PackageID `json:"pkg"`
	Version  int       `json:"ver"`
	Manifest Digest    `json:"man"` // SHA-256 of the stored manifest document
}
