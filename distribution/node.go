package distribution

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/content"
)

// A node is a file or a folder that is shown.
type node struct {
	name     string
	modified time.Time

	// of a file
	size int64
	etag string
	open func(context.Context) (*source, error)

	// of a folder
	children func(context.Context) ([]*node, error)
	endless  bool                                                          // grows with the site: not walked to its end
	walk     func(context.Context, func(path string, n *node) error) error // all below it in one go; nil: by children
}

func (n *node) folder() bool { return n.children != nil }

// find gives what stands at a path without slashes at its ends.
func (v *View) find(ctx context.Context, path string) (*node, error) {
	first, rest, _ := strings.Cut(path, "/")
	if v.cfg.Library {
		switch strings.ToLower(first) {
		case "":
			return v.root(), nil
		case "datalib":
			return v.dataLib(ctx, rest)
		case "filelib":
			return v.fileLib(ctx, rest)
		case "pkglib":
			return v.pkgLib(ctx, rest)
		}
	}
	p, err := v.version(ctx, first)
	if err != nil {
		return nil, err
	}
	return v.inPackage(ctx, p, rest, v.itself())
}

var contentName = regexp.MustCompile(`^([A-Za-z0-9]{3}[0-9A-Fa-f]{5})(?:\.([1-9][0-9]{0,8}))?$`)

// version finds LAB00001 or LAB00001.2.
func (v *View) version(ctx context.Context, name string) (Package, error) {
	m := contentName.FindStringSubmatch(name)
	if m == nil {
		return Package{}, unknown(nil)
	}
	n := 0
	if m[2] != "" {
		n, _ = strconv.Atoi(m[2]) // nine digits at most
	}
	p, err := v.cfg.Package(ctx, cmg.PackageID(strings.ToUpper(m[1])), n)
	if errors.Is(err, cmg.ErrNotFound) {
		return p, unknown(err)
	}
	return p, err
}

func (v *View) root() *node {
	return &node{endless: true, children: func(ctx context.Context) ([]*node, error) {
		all, err := v.cfg.Packages(ctx)
		if err != nil {
			return nil, err
		}
		ns := []*node{v.branch("DataLib", v.dataLib), v.branch("FileLib", v.fileLib), v.branch("PkgLib", v.pkgLib)}
		for i, p := range all {
			if i+1 < len(all) && all[i+1].Package == p.Package {
				continue // not the newest
			}
			n, err := v.inPackage(ctx, p, "", v.itself())
			if err != nil {
				return nil, err
			}
			n.name = string(p.Package)
			ns = append(ns, n)
		}
		return ns, nil
	}}
}

// branch is a folder of the library, found by find.
func (v *View) branch(name string, find func(context.Context, string) (*node, error)) *node {
	return &node{name: name, endless: true, children: func(ctx context.Context) ([]*node, error) {
		n, err := find(ctx, "")
		if err != nil {
			return nil, err
		}
		return n.children(ctx)
	}}
}

// A shower makes nodes of a package's files, with something added to their
// names.
type shower struct {
	suffix string
	show   func(p Package, f cmg.File, name string) *node // name is without the suffix
}

// is says whether path is how f is shown.
func (s shower) is(f cmg.File, path string) bool {
	n := len(f.Path)
	return len(path) == n+len(s.suffix) && strings.EqualFold(path[:n], f.Path) && strings.EqualFold(path[n:], s.suffix)
}

// itself shows files as they are.
func (v *View) itself() shower { return shower{"", v.packageFile} }

// inPackage finds a path in a version of a package; the empty one is the
// package. A file may be shown under another name than its own.
func (v *View) inPackage(ctx context.Context, p Package, path string, show shower) (*node, error) {
	manifest := func(ctx context.Context) (cmg.Manifest, error) { return v.locator.Manifest(ctx, p.PackageGrant) }
	if path == "" { // without reading the manifest yet
		n := v.folderOf(p, manifest, "", show)
		n.name = p.content()
		return n, nil
	}
	m, err := manifest(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		if len(path) < len(f.Path) && f.Path[len(path)] == '/' && strings.EqualFold(f.Path[:len(path)], path) {
			return v.folderOf(p, manifest, f.Path[:len(path)], show), nil
		}
		if show.is(f, path) {
			return show.show(p, f, f.Path[strings.LastIndexByte(f.Path, '/')+1:]), nil
		}
	}
	return nil, unknown(nil)
}

func (v *View) folderOf(p Package, manifest func(context.Context) (cmg.Manifest, error), path string, show shower) *node {
	prefix := path + "/"
	if path == "" {
		prefix = ""
	}
	return &node{
		name: path[strings.LastIndexByte(path, '/')+1:], modified: p.Added,
		children: func(ctx context.Context) (ns []*node, err error) {
			m, err := manifest(ctx)
			if err != nil {
				return nil, err
			}
			err = below(m, prefix, func(f cmg.File, rel, folder string) error {
				switch {
				case strings.Contains(folder+rel, "/"): // further below
				case folder == "":
					ns = append(ns, show.show(p, f, rel))
				default:
					ns = append(ns, v.folderOf(p, manifest, prefix+folder, show))
				}
				return nil
			})
			return ns, err
		},
		walk: func(ctx context.Context, emit func(string, *node) error) error {
			m, err := manifest(ctx)
			if err != nil {
				return err
			}
			return below(m, prefix, func(f cmg.File, rel, folder string) error {
				if folder != "" {
					return emit(folder, v.folderOf(p, manifest, prefix+folder, show))
				}
				return emit(rel+show.suffix, show.show(p, f, rel[strings.LastIndexByte(rel, '/')+1:]))
			})
		},
	}
}

// below calls f for every file under prefix, which ends in a slash or is
// empty, and before it, with its path, for every folder that was not named
// yet. Folders whose names differ in case only are one, as on Windows.
func below(m cmg.Manifest, prefix string, f func(file cmg.File, rel, folder string) error) error {
	seen := map[string]bool{}
	for _, file := range m.Files {
		if len(file.Path) <= len(prefix) || !strings.EqualFold(file.Path[:len(prefix)], prefix) {
			continue
		}
		rel := file.Path[len(prefix):]
		for i, c := range rel {
			if c != '/' || seen[strings.ToLower(rel[:i])] {
				continue
			}
			seen[strings.ToLower(rel[:i])] = true
			if err := f(file, "", rel[:i]); err != nil {
				return err
			}
		}
		if err := f(file, rel, ""); err != nil {
			return err
		}
	}
	return nil
}

// packageFile shows a file as itself.
func (v *View) packageFile(p Package, f cmg.File, name string) *node {
	return &node{name: name, modified: p.Added, size: f.Size, etag: etagOf(f.SHA256), open: func(ctx context.Context) (*source, error) {
		return &source{ctx: ctx, store: v.cfg.Store, name: content.FileName(f.SHA256), size: f.Size, want: f.SHA256}, nil
	}}
}

func etagOf(d cmg.Digest) string { return `"` + d.String() + `"` }
