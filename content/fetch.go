package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/opencmg/cmg"
)

// fetch is one Fetch under way.
type fetch struct {
	d     *Downloader
	m     cmg.Manifest
	links *links
	root  *os.Root // the target folder: nothing is written but through it
	items []*item
	tally tally

	mu     sync.Mutex
	result Result
	failed []error // of files that cannot be had; the others go on
}

// An item is the bytes of one file, or of several that are the same.
type item struct {
	digest cmg.Digest
	size   int64
	files  []int // indices into the manifest
	placed int   // how many of files are in place already, moved to the front
	staged bool  // the bytes lie checked in the partial folder
	part   int64 // bytes of it that lie unchecked in the partial folder
}

// The names of an item in the partial folder.
func (t *item) whole() string { return partialFolder + "/" + t.digest.String() }
func (t *item) begun() string { return t.whole() + ".part" }
func (t *item) tag() string   { return t.whole() + ".etag" }

// missing are the files that are not in place, and ready is where the bytes
// of the k-th of them wait for their name.
func (t *item) missing() []int { return t.files[t.placed:] }
func (t *item) ready(k int) string {
	if k == 0 && t.placed == 0 {
		return t.whole()
	}
	return t.whole() + "." + strconv.Itoa(k)
}

// run goes the whole way: look, fetch, install.
func (f *fetch) run(ctx context.Context, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	if f.root, err = os.OpenRoot(dir); err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer f.root.Close()
	f.group()
	f.tally = tally{tell: f.d.cfg.Progress, now: Progress{OfFiles: len(f.m.Files), OfBytes: f.m.Size()}}
	err = fullDisk(f.steps(ctx, dir))
	if errors.Is(err, ErrDiskFull) {
		f.root.RemoveAll(partialFolder) // others need the room more
	}
	return err
}

func (f *fetch) steps(ctx context.Context, dir string) error {
	if err := f.prepare(); err != nil {
		return err
	}
	if err := each(ctx, len(f.items), f.d.cfg.Parallel, f.look); err != nil {
		return err
	}
	if err := f.room(dir); err != nil {
		return err
	}
	if err := each(ctx, len(f.items), f.d.cfg.Parallel, f.obtain); err != nil {
		return err
	}
	if len(f.failed) > 0 {
		return errors.Join(f.failed...)
	}
	return f.install(ctx)
}

func (f *fetch) group() {
	by := make(map[cmg.Digest]*item, len(f.m.Files))
	for i, file := range f.m.Files {
		t := by[file.SHA256]
		if t == nil {
			t = &item{digest: file.SHA256, size: file.Size}
			by[file.SHA256] = t
			f.items = append(f.items, t)
		}
		t.files = append(t.files, i)
	}
}

// prepare makes the partial folder, clears it of what is not wanted, and
// sees that nothing stands in the files' way while nothing has happened yet.
func (f *fetch) prepare() error {
	for _, file := range f.m.Files {
		if i, err := f.root.Lstat(file.Path); err == nil && i.IsDir() {
			return fmt.Errorf("a folder stands where %q belongs: %w", file.Path, cmg.ErrConflict)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%q cannot be placed: %w: %w", file.Path, err, cmg.ErrConflict)
		}
	}
	if i, err := f.root.Lstat(partialFolder); err == nil && !i.IsDir() {
		return fmt.Errorf("%s is not a folder: %w", partialFolder, cmg.ErrConflict)
	}
	if err := f.root.Mkdir(partialFolder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folder: %w", err)
	}
	wanted := make(map[string]bool, len(f.items))
	for _, t := range f.items {
		wanted[t.digest.String()] = true
	}
	left, err := fs.ReadDir(f.root.FS(), partialFolder)
	if err != nil {
		return fmt.Errorf("list what was begun: %w", err)
	}
	for _, e := range left {
		stem, end, _ := strings.Cut(e.Name(), ".")
		if !wanted[stem] || !e.Type().IsRegular() || end != "" && end != "part" && end != "etag" {
			if err := f.root.RemoveAll(partialFolder + "/" + e.Name()); err != nil {
				return fmt.Errorf("clear what was begun: %w", err)
			}
		}
	}
	return nil
}

// look finds out what of an item is there already.
func (f *fetch) look(ctx context.Context, i int) error {
	t := f.items[i]
	for k, file := range t.files {
		ok, err := f.holds(ctx, f.m.Files[file].Path, t)
		if err != nil {
			return err
		}
		if ok {
			t.files[k], t.files[t.placed] = t.files[t.placed], file
			t.placed++
		}
	}
	f.tally.add(t.placed, int64(t.placed)*t.size)
	if t.placed == len(t.files) {
		return nil
	}
	var err error
	if t.staged, err = f.holds(ctx, t.whole(), t); err != nil {
		return err
	}
	if i, err := f.root.Lstat(t.begun()); err == nil && i.Mode().IsRegular() {
		t.part = min(i.Size(), t.size)
	}
	return nil
}

// holds says whether the file name is there with t's bytes.
func (f *fetch) holds(ctx context.Context, name string, t *item) (bool, error) {
	i, err := f.root.Lstat(name)
	if err != nil || !i.Mode().IsRegular() || i.Size() != t.size {
		return false, nil
	}
	r, err := f.root.Open(name)
	if err != nil {
		return false, nil // unreadable: it will be replaced
	}
	defer r.Close()
	got, n, err := digest(ctx, r)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	return err == nil && n == t.size && got == t.digest, nil
}

func digest(ctx context.Context, r io.Reader) (d cmg.Digest, n int64, err error) {
	buf := buffers.Get().(*[smallFile + 1]byte)
	defer buffers.Put(buf)
	h := sha256.New()
	n, err = io.CopyBuffer(h, struct{ io.Reader }{ctxReader{ctx, r}}, buf[:])
	h.Sum(d[:0])
	return d, n, err
}

// ctxReader ends a copy when ctx ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r ctxReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// room says ErrDiskFull where it is known that the files cannot fit.
func (f *fetch) room(dir string) error {
	var need int64
	for _, t := range f.items {
		if n := int64(len(t.files) - t.placed); n > 0 {
			need += n * t.size
			if t.staged {
				need -= t.size
			} else {
				need -= t.part
			}
		}
	}
	if free, known := f.d.free(dir); known && need > free {
		return fmt.Errorf("%w: %d bytes are needed, %d are free", ErrDiskFull, need, free)
	}
	return nil
}

// obtain sees that an item's bytes are on this disk, checked, once for each
// file that misses them.
func (f *fetch) obtain(ctx context.Context, i int) (err error) {
	t := f.items[i]
	missing := len(t.missing())
	if missing == 0 {
		return nil
	}
	if t.placed == 0 && !t.staged {
		err = (&transfer{f: f, t: t}).run(ctx)
	} else {
		f.tally.add(0, t.size)
	}
	for k := 0; err == nil && k < missing; k++ {
		if t.ready(k) != t.whole() {
			err = f.duplicate(ctx, t, t.ready(k))
		}
	}
	switch {
	case err == nil:
		f.tally.add(missing, int64(missing-1)*t.size)
		return nil
	case ctx.Err() == nil && ofFile(err):
		f.mu.Lock()
		defer f.mu.Unlock()
		f.failed = append(f.failed, err)
		if len(f.failed) < maxFailed {
			return nil
		}
		return errors.Join(f.failed...)
	}
	return err
}

// maxFailed is after how many files that cannot be had the others are not
// tried.
const maxFailed = 20

// ofFile says whether err concerns one file only.
func ofFile(err error) bool {
	var corrupt *CorruptError
	var absent errAbsent
	return errors.As(err, &corrupt) || errors.As(err, &absent)
}

// count changes the result.
func (f *fetch) count(change func(*Result)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.result)
}
