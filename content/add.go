package content

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
)

// AddOptions says what the new package is.
type AddOptions struct {
	Package  cmg.PackageID
	Version  int    // from 1
	Name     string // for people; up to 256 bytes
	Parallel int    // files at once; 0: 8, which is mostly waiting for the disk

	Progress func(Progress) // called after every file and every some MiB, never at the same time as itself; nil: not called
	Log      *slog.Logger   // nil is silent
}

// Progress is how far an Add or a Fetch has got.
type Progress struct {
	Files, OfFiles int
	Bytes, OfBytes int64
}

// Add puts all files under dir into store as one version of a package, and
// last of all the manifest document, whose digest it returns. Bytes that the
// store already has are not put again, so an Add that was cut off goes on
// when it is called anew. Memory does not grow with the files' sizes.
//
// Only regular files are packed; folders without files are left out. A
// symbolic link, a device or another special file, and a path that could not
// be the same everywhere, are ErrInvalid with the path; so is a folder without
// any file. A file that changes meanwhile, that comes or goes, is ErrConflict
// with the path. A version that is there already is ErrConflict, unless it is
// the same to the byte.
func Add(ctx context.Context, store blob.Store, dir string, o AddOptions) (cmg.Manifest, cmg.Digest, error) {
	m, d, err := add(ctx, store, dir, o)
	if err != nil {
		return cmg.Manifest{}, cmg.Digest{}, fmt.Errorf("add %s as %s version %d: %w", dir, o.Package, o.Version, err)
	}
	return m, d, nil
}

func add(ctx context.Context, store blob.Store, dir string, o AddOptions) (m cmg.Manifest, d cmg.Digest, err error) {
	if o.Parallel <= 0 {
		o.Parallel = 8
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return m, d, fmt.Errorf("open folder: %w", err)
	}
	defer root.Close()
	found, err := list(ctx, root)
	if err != nil {
		return m, d, err
	}
	m = cmg.Manifest{Package: o.Package, Version: o.Version, Name: o.Name, Files: make([]cmg.File, len(found))}
	for i, s := range found {
		m.Files[i] = cmg.File{Path: s.path, Size: s.info.Size()}
	}
	if err := checkManifest(m); err != nil { // before any work
		return m, d, err
	}
	a := &adding{root: root, store: store, tally: tally{tell: o.Progress, now: Progress{OfFiles: len(found), OfBytes: m.Size()}}}
	err = each(ctx, len(found), o.Parallel, func(ctx context.Context, i int) (err error) {
		m.Files[i].SHA256, err = a.file(ctx, found[i])
		return err
	})
	if err != nil {
		return m, d, err
	}
	if err := unchanged(ctx, root, found); err != nil {
		return m, d, err
	}
	if d, err = putManifest(ctx, store, m); err != nil {
		return m, d, err
	}
	o.Log.Info("package added", "package", m.Package, "version", m.Version, "files", len(m.Files), "bytes", m.Size(), "manifest", d)
	return m, d, nil
}

// source is a file as it was when the folder was listed.
type source struct {
	path string
	info fs.FileInfo
}

// list gives all files under root, sorted by path.
func list(ctx context.Context, root *os.Root) ([]source, error) {
	var found []source
	err := fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("list folder: %w", err)
		case ctx.Err() != nil:
			return ctx.Err()
		case e.IsDir():
			return nil
		case !e.Type().IsRegular():
			return fmt.Errorf("%q is %s, not a regular file: %w", path, kindOf(e.Type()), cmg.ErrInvalid)
		case len(found) >= MaxFiles:
			return fmt.Errorf("over %d files: %w", MaxFiles, cmg.ErrTooLarge)
		}
		if err := checkPath(path); err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return changed(path)
		}
		found = append(found, source{path, info})
		return nil
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("the folder holds no files: %w", cmg.ErrInvalid)
	}
	// A walk goes folder by folder; manifests are sorted by the whole path.
	slices.SortFunc(found, func(a, b source) int { return strings.Compare(a.path, b.path) })
	return found, err
}

func kindOf(t fs.FileMode) string {
	switch {
	case t&fs.ModeSymlink != 0:
		return "a symbolic link"
	case t&fs.ModeDevice != 0:
		return "a device"
	case t&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case t&fs.ModeSocket != 0:
		return "a socket"
	}
	return "special"
}

func changed(path string) error {
	return fmt.Errorf("%q changed while it was read: %w", path, cmg.ErrConflict)
}

func (s source) same(i fs.FileInfo) bool {
	return i.Mode().IsRegular() && i.Size() == s.info.Size() && i.ModTime().Equal(s.info.ModTime()) && os.SameFile(i, s.info)
}

// unchanged lists the folder again: a file may have changed after it was read.
func unchanged(ctx context.Context, root *os.Root, was []source) error {
	is, err := list(ctx, root)
	if err != nil {
		return err
	}
	for i := range max(len(is), len(was)) {
		switch {
		case i >= len(is):
			return changed(was[i].path)
		case i >= len(was) || is[i].path < was[i].path:
			return changed(is[i].path)
		case is[i].path > was[i].path || !was[i].same(is[i].info):
			return changed(was[i].path)
		}
	}
	return nil
}

// adding is one Add under way.
type adding struct {
	root  *os.Root
	store blob.Store
	tally tally
}

// file puts one file's bytes into the store and gives their digest.
func (a *adding) file(ctx context.Context, s source) (d cmg.Digest, err error) {
	f, err := a.root.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, changed(s.path)
	}
	if err != nil {
		return d, fmt.Errorf("open %q: %w", s.path, err)
	}
	defer f.Close()
	if i, err := f.Stat(); err != nil || !s.same(i) {
		return d, changed(s.path)
	}
	buf := buffers.Get().(*[smallFile + 1]byte)
	defer buffers.Put(buf)
	if s.info.Size() <= smallFile {
		return a.small(ctx, s, f, buf[:])
	}
	h := sha256.New()
	for n := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return d, err
		}
		k, err := f.Read(buf[:])
		h.Write(buf[:k])
		a.tally.add(0, int64(k))
		if n += int64(k); n > s.info.Size() || err == io.EOF && n < s.info.Size() {
			return d, changed(s.path)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return d, fmt.Errorf("read %q: %w", s.path, err)
		}
	}
	h.Sum(d[:0])
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return d, fmt.Errorf("read %q again: %w", s.path, err)
	}
	h.Reset()
	return d, a.put(ctx, s, d, &witness{r: f, h: h, left: s.info.Size(), want: d, path: s.path})
}

// small puts a file that fits into buf, read once.
func (a *adding) small(ctx context.Context, s source, f *os.File, buf []byte) (d cmg.Digest, err error) {
	n, err := io.ReadFull(f, buf)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return d, fmt.Errorf("read %q: %w", s.path, err)
	}
	if int64(n) != s.info.Size() {
		return d, changed(s.path)
	}
	d = sha256.Sum256(buf[:n])
	a.tally.add(0, int64(n))
	return d, a.put(ctx, s, d, bytes.NewReader(buf[:n]))
}

func (a *adding) put(ctx context.Context, s source, d cmg.Digest, r io.Reader) error {
	name, size := FileName(d), s.info.Size()
	i, err := a.store.Stat(ctx, name)
	if err != nil && !errors.Is(err, cmg.ErrNotFound) {
		return fmt.Errorf("look for %q in the store: %w", s.path, err)
	}
	if err != nil || i.Size != size {
		if err := a.store.Put(ctx, name, size, r); err != nil {
			return fmt.Errorf("store %q: %w", s.path, err)
		}
	}
	a.tally.add(1, 0)
	return nil
}

// A witness reads a file for the second time. It withholds the last bytes
// where they are not what was read at first, so that a store keeps nothing.
type witness struct {
	r    io.Reader
	h    hash.Hash
	left int64
	want cmg.Digest
	path string
}

func (w *witness) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	w.left -= int64(n)
	w.h.Write(b[:n])
	switch {
	case w.left < 0 || err == io.EOF && w.left > 0:
		return 0, changed(w.path)
	case w.left == 0 && cmg.Digest(w.h.Sum(nil)) != w.want:
		return 0, changed(w.path)
	}
	return n, err
}

// putManifest puts the manifest document, once and for all.
func putManifest(ctx context.Context, store blob.Store, m cmg.Manifest) (d cmg.Digest, err error) {
	doc, err := json.Marshal(m)
	if err != nil {
		return d, fmt.Errorf("write manifest: %w", err)
	}
	if len(doc) > MaxManifest {
		return d, fmt.Errorf("manifest of %d bytes, over %d: %w", len(doc), MaxManifest, cmg.ErrTooLarge)
	}
	d = sha256.Sum256(doc)
	name := ManifestName(m.Package, m.Version)
	r, _, err := store.Open(ctx, name, 0, -1)
	if errors.Is(err, cmg.ErrNotFound) {
		return d, store.Put(ctx, name, int64(len(doc)), bytes.NewReader(doc))
	}
	if err != nil {
		return d, fmt.Errorf("look for a manifest of this version: %w", err)
	}
	defer r.Close()
	there, err := io.ReadAll(io.LimitReader(r, MaxManifest+1))
	if err != nil {
		return d, fmt.Errorf("read the manifest of this version: %w", err)
	}
	if !bytes.Equal(there, doc) {
		return d, fmt.Errorf("this version is there already with other files: %w", cmg.ErrConflict)
	}
	return d, nil
}
