package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencmg/cmg"
)

// DiskConfig says where a disk store is.
type DiskConfig struct {
	Dir string `json:"dir"` // folder of the store; made with mode 0700 where it is missing
	URL string `json:"url"` // base of the listener that serves Handler, such as https://store.example:8444; empty: SignedURL refuses

	Stall time.Duration `json:"stall"` // how long Handler waits for a reader to take the next 64 KiB; 0: 60 s

	Key []byte           `json:"-"` // signs URLs, at least 32 bytes; empty: nothing is signed and Handler refuses everything
	Now func() time.Time `json:"-"` // nil is time.Now
}

// tempFolder holds what is being put. No name can reach it: it begins with a
// dot.
const tempFolder = ".tmp"

// staleTemp is how old a temporary file has to be to belong to no living Put.
const staleTemp = 24 * time.Hour

// A Disk is a Store in a folder. Every access goes through os.Root, so that
// neither a name nor a symbolic link leads out of the folder. A name that is
// no regular file, a symbolic link among them, is not found.
type Disk struct {
	root  *os.Root
	sign  *signer
	now   func() time.Time
	stall time.Duration
	stamp atomic.Int64 // last modification time given, in nanoseconds
}

var _ Store = (*Disk)(nil)

// NewDisk opens the store in c.Dir, makes the folder where it is missing, and
// removes what a killed Put left there more than a day ago.
func NewDisk(c DiskConfig) (*Disk, error) {
	if c.Dir == "" {
		return nil, fmt.Errorf("disk store: no folder: %w", cmg.ErrInvalid)
	}
	sign, err := newSigner(c.URL, c.Key)
	if err != nil {
		return nil, fmt.Errorf("disk store: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("disk store: make folder: %w", err)
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("disk store: open folder: %w", err)
	}
	d := &Disk{root: root, sign: sign, now: c.Now, stall: c.Stall}
	if d.stall <= 0 {
		d.stall = time.Minute
	}
	if d.now == nil {
		d.now = time.Now
	}
	if err := d.sweep(); err != nil {
		root.Close()
		return nil, fmt.Errorf("disk store: %w", err)
	}
	return d, nil
}

// Close gives the folder's handle back. No call may be under way.
func (d *Disk) Close() error { return d.root.Close() }

func (d *Disk) sweep() error {
	if err := d.root.Mkdir(tempFolder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make folder for temporary files: %w", err)
	}
	es, err := fs.ReadDir(d.root.FS(), tempFolder)
	if err != nil {
		return fmt.Errorf("list temporary files: %w", err)
	}
	for _, e := range es {
		if i, err := e.Info(); err == nil && d.now().Sub(i.ModTime()) > staleTemp {
			d.root.Remove(tempFolder + "/" + e.Name())
		}
	}
	return nil
}

var copyBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// Put implements Store. The bytes are in the file system's journal and on the
// medium when it returns nil.
func (d *Disk) Put(ctx context.Context, name string, size int64, r io.Reader) (err error) {
	if err := CheckName(name); err != nil {
		return err
	}
	if size < 0 {
		return fmt.Errorf("put %s: size is negative: %w", name, cmg.ErrInvalid)
	}
	temp := tempFolder + "/" + rand.Text()
	f, err := d.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("put %s: create temporary file: %w", name, err)
	}
	defer func() {
		f.Close()
		if err != nil {
			d.root.Remove(temp)
		}
	}()
	buf := copyBuffers.Get().(*[64 << 10]byte)
	defer copyBuffers.Put(buf)
	n, err := io.CopyBuffer(onlyWriter{f}, io.LimitReader(ctxReader{ctx, r}, size+1), buf[:])
	if err == nil && n != size {
		err = fmt.Errorf("got %d bytes or more, not %d: %w", n, size, cmg.ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	if err := d.install(f, temp, name); err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	return nil
}

// install makes f durable and gives it its name.
func (d *Disk) install(f *os.File, temp, name string) error {
	at := d.nextStamp()
	if err := d.root.Chtimes(temp, at, at); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := f.Close(); err != nil { // Windows does not rename an open file
		return fmt.Errorf("close: %w", err)
	}
	if i, err := d.root.Lstat(name); err == nil && i.IsDir() {
		return fmt.Errorf("it is a folder of other names: %w", cmg.ErrConflict)
	}
	folder := path.Dir(name)
	if _, err := d.root.Lstat(folder); err != nil {
		if err := d.makeFolder(folder); err != nil {
			return err
		}
	}
	if err := d.root.Rename(temp, name); err != nil {
		return fmt.Errorf("rename: %w", folderConflict(err))
	}
	return d.syncFolder(folder)
}

// nextStamp gives a modification time that this process gave to no other Put:
// the ETag is made of it, and file systems' own times are too coarse.
func (d *Disk) nextStamp() time.Time {
	const step = int64(time.Microsecond) // what every supported file system can keep
	for {
		last, now := d.stamp.Load(), d.now().UnixNano()
		now -= now % step
		if now <= last {
			now = last + step
		}
		if d.stamp.CompareAndSwap(last, now) {
			return time.Unix(0, now)
		}
	}
}

// makeFolder makes folder durable from the root down.
func (d *Disk) makeFolder(folder string) error {
	if err := d.root.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("make folder: %w", folderConflict(err))
	}
	for folder != "." {
		folder = path.Dir(folder)
		if err := d.syncFolder(folder); err != nil {
			return err
		}
	}
	return nil
}

// folderConflict says ErrConflict where a file stands in the place of a folder.
func folderConflict(err error) error {
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("a folder and a file share a name: %w: %w", err, cmg.ErrConflict)
	}
	return err
}

func (d *Disk) syncFolder(folder string) error {
	if runtime.GOOS == "windows" { // cannot, and need not: NTFS journals names
		return nil
	}
	f, err := d.root.Open(folder)
	if err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	return nil
}

// open gives a regular file and what is known of it.
func (d *Disk) open(name string) (*os.File, Info, error) {
	i, err := d.Stat(context.Background(), name)
	if err != nil {
		return nil, i, err
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, i, notFound("open", name, err)
	}
	fi, err := f.Stat() // it may be another file by now
	if err != nil || !fi.Mode().IsRegular() {
		f.Close()
		return nil, i, fmt.Errorf("open %s: not a regular file: %w", name, cmg.ErrNotFound)
	}
	return f, infoOf(fi), nil
}

// notFound says what was not possible, ErrNotFound where nothing was there.
func notFound(verb, name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%s %s: %w", verb, name, cmg.ErrNotFound)
	}
	return fmt.Errorf("%s %s: %w", verb, name, err)
}

func infoOf(i fs.FileInfo) Info {
	tag := `"` + strconv.FormatInt(i.Size(), 16) + "-" + strconv.FormatInt(i.ModTime().UnixNano(), 16) + `"`
	return Info{Size: i.Size(), ETag: tag, Modified: i.ModTime()}
}

// Open implements Store.
func (d *Disk) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, Info, error) {
	f, i, err := d.open(name)
	if err != nil {
		return nil, i, err
	}
	if offset < 0 || offset > i.Size || length < -1 {
		f.Close()
		return nil, i, fmt.Errorf("open %s: %d bytes from %d of %d: %w", name, length, offset, i.Size, cmg.ErrInvalid)
	}
	if length < 0 || length > i.Size-offset {
		length = i.Size - offset
	}
	return part{io.NewSectionReader(f, offset, length), f}, i, nil
}

// Stat implements Store.
func (d *Disk) Stat(_ context.Context, name string) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	fi, err := d.root.Lstat(name)
	if err != nil {
		return Info{}, notFound("stat", name, err)
	}
	if !fi.Mode().IsRegular() {
		return Info{}, fmt.Errorf("stat %s: not a regular file: %w", name, cmg.ErrNotFound)
	}
	return infoOf(fi), nil
}

// Delete implements Store.
func (d *Disk) Delete(ctx context.Context, name string) error {
	_, err := d.Stat(ctx, name)
	if err == nil {
		if err = d.root.Remove(name); err != nil {
			err = notFound("delete", name, err)
		}
	}
	if errors.Is(err, cmg.ErrNotFound) {
		return nil
	}
	return err
}

// List implements Store.
func (d *Disk) List(ctx context.Context, prefix string, f func(name string, i Info) error) error {
	if prefix != "" && CheckName(strings.TrimSuffix(prefix, "/")) != nil && CheckName(prefix+"x") != nil {
		return fmt.Errorf("list %.200q: no name can begin so: %w", prefix, cmg.ErrInvalid)
	}
	start := path.Dir(prefix + "x")
	return fs.WalkDir(d.root.FS(), start, func(name string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
			return nil // deleted meanwhile, or no such folder
		case err != nil:
			return fmt.Errorf("list %q: %w", prefix, err)
		case name == tempFolder:
			return fs.SkipDir
		case e.IsDir() && name != "." && !strings.HasPrefix(name+"/", prefix) && !strings.HasPrefix(prefix, name+"/"):
			return fs.SkipDir
		case !e.Type().IsRegular() || !strings.HasPrefix(name, prefix) || CheckName(name) != nil:
			return nil
		}
		fi, err := e.Info()
		if err != nil {
			return nil // deleted meanwhile
		}
		return f(name, infoOf(fi))
	})
}

// SignedURL implements Store.
func (d *Disk) SignedURL(_ context.Context, name string, until time.Time) (string, error) {
	return d.sign.url(name, until)
}

// part is a piece of a file that closes the file.
type part struct {
	io.Reader
	io.Closer
}

// onlyWriter hides a file's ReadFrom, which would not use our buffer.
type onlyWriter struct{ io.Writer }

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
