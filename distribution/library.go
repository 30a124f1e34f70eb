package distribution

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/content"
)

const ini = ".INI"

// text is a small file that is made when it is asked for.
func text(name string, modified time.Time, body string) *node {
	b := []byte(body)
	sum := cmg.Digest(sha256.Sum256(b))
	return &node{name: name, modified: modified, size: int64(len(b)), etag: etagOf(sum), open: func(ctx context.Context) (*source, error) {
		return &source{ctx: ctx, bytes: b, size: int64(len(b)), want: sum}, nil
	}}
}

// cutINI takes the ending off a name.
func cutINI(name string) (string, bool) {
	if n := len(name) - len(ini); n > 0 && strings.EqualFold(name[n:], ini) {
		return name[:n], true
	}
	return name, false
}

// fileTime is what Windows calls one: units of 100 ns since 1601.
func fileTime(t time.Time) int64 {
	return (t.Unix()+11_644_473_600)*10_000_000 + int64(t.Nanosecond()/100)
}

func fileINI(name string, modified time.Time, size int64, sum cmg.Digest) *node {
	return text(name, modified, fmt.Sprintf("[File]\r\nSize=%d\r\nTimeModified=%d\r\nHash=%s\r\n", size, fileTime(modified), sum))
}

// dataLib is the library's view of versions: their trees, with a pointer in
// the place of every file.
func (v *View) dataLib(ctx context.Context, path string) (*node, error) {
	if path == "" {
		return &node{name: "DataLib", endless: true, children: v.dataLibAll}, nil
	}
	first, rest, deeper := strings.Cut(path, "/")
	if name, ok := cutINI(first); ok && !deeper {
		p, err := v.version(ctx, name)
		if err != nil {
			return nil, err
		}
		return v.versionINI(ctx, p)
	}
	p, err := v.version(ctx, first)
	if err != nil {
		return nil, err
	}
	return v.inPackage(ctx, p, rest, pointers)
}

func (v *View) dataLibAll(ctx context.Context) (ns []*node, err error) {
	all, err := v.cfg.Packages(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		n, err := v.inPackage(ctx, p, "", pointers)
		if err != nil {
			return nil, err
		}
		i, err := v.versionINI(ctx, p)
		if err != nil {
			return nil, err
		}
		ns = append(ns, n, i)
	}
	return ns, nil
}

// versionINI points to the manifest document of a version.
func (v *View) versionINI(ctx context.Context, p Package) (*node, error) {
	i, err := v.cfg.Store.Stat(ctx, content.ManifestName(p.Package, p.Version))
	if errors.Is(err, cmg.ErrNotFound) {
		return nil, unknown(err)
	} else if err != nil {
		return nil, err
	}
	return fileINI(p.content()+ini, p.Added, i.Size, p.Manifest), nil
}

// pointers show where the bytes of files are.
var pointers = shower{ini, func(p Package, f cmg.File, name string) *node {
	return fileINI(name+ini, p.Added, f.Size, f.SHA256)
}}

// fileLib is the bytes of all files, each once.
func (v *View) fileLib(ctx context.Context, path string) (*node, error) {
	first, rest, deeper := strings.Cut(path, "/")
	switch {
	case path == "":
		return &node{name: "FileLib", endless: true, children: func(ctx context.Context) ([]*node, error) { return v.hashes(ctx, "") }}, nil
	case len(first) != 4 || strings.Trim(strings.ToUpper(first), "0123456789ABCDEF") != "":
		return nil, unknown(nil)
	case !deeper:
		return v.hashFolder(strings.ToUpper(first)), nil
	}
	name, isINI := cutINI(rest)
	d, err := cmg.ParseDigest(name)
	if err != nil || !strings.EqualFold(d.String()[:4], first) {
		return nil, unknown(err)
	}
	if isINI {
		return v.users(ctx, d)
	}
	i, err := v.cfg.Store.Stat(ctx, content.FileName(d))
	if errors.Is(err, cmg.ErrNotFound) {
		return nil, unknown(err)
	} else if err != nil {
		return nil, err
	}
	return v.packageFile(Package{Added: i.Modified}, cmg.File{Size: i.Size, SHA256: d}, d.String()), nil
}

func (v *View) hashFolder(start string) *node {
	return &node{name: start, children: func(ctx context.Context) ([]*node, error) { return v.hashes(ctx, start) }}
}

// each calls f for every file of every version.
func (v *View) each(ctx context.Context, f func(Package, cmg.File)) error {
	all, err := v.cfg.Packages(ctx)
	if err != nil {
		return err
	}
	for _, p := range all {
		m, err := v.locator.Manifest(ctx, p.PackageGrant)
		if err != nil {
			return err
		}
		for _, file := range m.Files {
			f(p, file)
		}
	}
	return nil
}

// hashes lists the files whose digests begin with start, or, where that is
// empty, the folders they are in.
func (v *View) hashes(ctx context.Context, start string) (ns []*node, err error) {
	seen := map[cmg.Digest]cmg.File{}
	folders := map[string]bool{}
	added := map[cmg.Digest]time.Time{}
	err = v.each(ctx, func(p Package, f cmg.File) {
		s := f.SHA256.String()
		if folders[s[:4]] = true; s[:4] == start {
			if _, ok := seen[f.SHA256]; !ok {
				seen[f.SHA256], added[f.SHA256] = f, p.Added
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if start == "" {
		for f := range folders {
			ns = append(ns, v.hashFolder(f))
		}
	}
	for d, f := range seen {
		users, err := v.users(ctx, d)
		if err != nil {
			return nil, err
		}
		ns = append(ns, v.packageFile(Package{Added: added[d]}, f, d.String()), users)
	}
	slices.SortFunc(ns, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return ns, nil
}

// users says which versions hold a file.
func (v *View) users(ctx context.Context, d cmg.Digest) (*node, error) {
	body, last, at := "[Users]\r\n", "", time.Time{}
	err := v.each(ctx, func(p Package, f cmg.File) {
		if name := p.content(); f.SHA256 == d && name != last {
			body += name + "=\r\n"
			last = name
			if at.IsZero() {
				at = p.Added
			}
		}
	})
	if err == nil && last == "" {
		err = unknown(nil)
	}
	return text(d.String()+ini, at, body), err
}

// pkgLib says which versions a package has.
func (v *View) pkgLib(ctx context.Context, path string) (*node, error) {
	all, err := v.cfg.Packages(ctx)
	if err != nil {
		return nil, err
	}
	var ns []*node
	for i := 0; i < len(all); {
		first, body := i, "[Packages]\r\n"
		for ; i < len(all) && all[i].Package == all[first].Package; i++ {
			body += all[i].content() + "=\r\n"
		}
		n := text(string(all[first].Package)+ini, all[i-1].Added, body)
		if strings.EqualFold(n.name, path) {
			return n, nil
		}
		ns = append(ns, n)
	}
	if path != "" {
		return nil, unknown(nil)
	}
	return &node{name: "PkgLib", endless: true, children: func(context.Context) ([]*node, error) { return ns, nil }}, nil
}
