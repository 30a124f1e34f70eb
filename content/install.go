package content

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"

	"github.com/opencmg/cmg"
)

// duplicate makes another copy of t's bytes, which lie checked in the partial
// folder or in place.
func (f *fetch) duplicate(ctx context.Context, t *item, name string) error {
	from := t.whole()
	if t.placed > 0 {
		from = f.m.Files[t.files[0]].Path
	}
	r, err := f.root.Open(from)
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	defer r.Close()
	w, err := f.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	defer w.Close()
	got, n, err := digest(ctx, io.TeeReader(r, w))
	if err == nil && (n != t.size || got != t.digest) {
		err = fmt.Errorf("it changed meanwhile: %w", cmg.ErrConflict)
	}
	if err == nil {
		err = w.Sync()
	}
	if err != nil {
		return fmt.Errorf("copy %q: %w", from, err)
	}
	return nil
}

// install gives everything its final name. All bytes are on the disk by now:
// what is left is making folders and renaming.
func (f *fetch) install(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	folders := map[string]bool{".": true}
	for _, file := range f.m.Files {
		for p := path.Dir(file.Path); !folders[p]; p = path.Dir(p) {
			folders[p] = true
		}
	}
	for p := range folders {
		if err := f.root.MkdirAll(p, 0o755); err != nil {
			return fmt.Errorf("make folder %q: %w", p, err)
		}
	}
	for _, t := range f.items {
		for k, file := range t.missing() {
			if err := f.root.Rename(t.ready(k), f.m.Files[file].Path); err != nil {
				return fmt.Errorf("place %q: %w", f.m.Files[file].Path, err)
			}
		}
	}
	for p := range folders {
		if err := syncFolder(f.root, p); err != nil {
			return err
		}
	}
	if err := f.root.RemoveAll(partialFolder); err != nil {
		return fmt.Errorf("clear partial folder: %w", err)
	}
	f.result.Files, f.result.Bytes = len(f.m.Files), f.m.Size()
	return syncFolder(f.root, ".")
}

func syncFolder(root *os.Root, folder string) error {
	if runtime.GOOS == "windows" { // cannot, and need not: NTFS journals names
		return nil
	}
	d, err := root.Open(folder)
	if err != nil {
		return fmt.Errorf("open folder %q: %w", folder, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync folder %q: %w", folder, err)
	}
	return nil
}

// fullDisk says ErrDiskFull where err is the system's word for it.
func fullDisk(err error) error {
	if err != nil && isFull(err) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}
