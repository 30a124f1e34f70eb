package content

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"

	"github.com/opencmg/cmg"
)

// A transfer brings one item's bytes from the store into the partial folder.
type transfer struct {
	f *fetch
	t *item

	file *os.File
	hash hash.Hash // of the bytes before at
	at   int64     // bytes in the file
	etag string    // of the bytes in the file, as the store tells; empty: not known
	kept bool      // the etag lies beside the file
	anew bool      // the bytes were wrong once: no cache on the way may answer

	high   int64 // farthest at that counted as progress
	tries  int   // in a row without progress
	denied int   // in a row without progress
}

const (
	// progress is how many bytes more make a new start of counting tries.
	progress = 64 << 10
	// keepTag is from how many bytes on the ETag is kept while the transfer
	// runs; under it, only when it ends early.
	keepTag = 1 << 20
	// mostDenied is how many locations in a row the store may refuse.
	mostDenied = 3
)

// What an attempt may come to, besides errors of the network.
var errMisfit = errors.New("the store's file has another size than the manifest says")

type (
	// errLocal is trouble of this disk, not of the network.
	errLocal struct{ error }
	// errDenied is a location that the store does not accept any more.
	errDenied struct {
		error
		round int
	}
	// errAbsent is a file that the store does not have.
	errAbsent struct{ error }
	// errLater is the store's wish to be asked later.
	errLater struct {
		error
		after time.Duration
	}
)

func (e errLocal) Unwrap() error  { return e.error }
func (e errDenied) Unwrap() error { return e.error }
func (e errAbsent) Unwrap() error { return e.error }
func (e errLater) Unwrap() error  { return e.error }

// path is the item's first file, for people.
func (x *transfer) path() string { return x.f.m.Files[x.t.missing()[0]].Path }

// run leaves the item checked under its whole name.
func (x *transfer) run(ctx context.Context) (err error) {
	x.file, err = x.f.root.OpenFile(x.t.begun(), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("begin %q: %w", x.path(), err)
	}
	defer func() {
		x.file.Close()
		if err != nil && !x.kept {
			x.keep()
		}
	}()
	x.hash = sha256.New()
	if err := x.resume(ctx); err != nil {
		return fmt.Errorf("go on with %q: %w", x.path(), err)
	}
	for {
		why, err := x.fill(ctx)
		if err != nil {
			return fmt.Errorf("file %q: %w", x.path(), err)
		}
		if why == "" {
			break
		}
		if err := x.restart(); err != nil {
			return fmt.Errorf("file %q: %w", x.path(), err)
		}
		if x.anew {
			return &CorruptError{Package: x.f.m.Package, Version: x.f.m.Version, Path: x.path(), Why: why}
		}
		x.anew = true
		x.f.d.cfg.Log.Warn("file is corrupted, fetching it anew", "package", x.f.m.Package, "file", x.path(), "why", why)
		x.f.count(func(r *Result) { r.Again++ })
	}
	if err := x.finish(); err != nil {
		return fmt.Errorf("keep %q: %w", x.path(), err)
	}
	return nil
}

// resume takes up what an earlier Fetch left.
func (x *transfer) resume(ctx context.Context) error {
	i, err := x.file.Stat()
	if err != nil {
		return err
	}
	if i.Size() > x.t.size {
		return x.restart()
	}
	buf := buffers.Get().(*[smallFile + 1]byte)
	defer buffers.Put(buf)
	x.at, err = io.CopyBuffer(x.hash, struct{ io.Reader }{ctxReader{ctx, x.file}}, buf[:])
	x.f.tally.add(0, x.at)
	if err != nil || x.at == 0 {
		return err
	}
	// Without the tag the store cannot tell us that its file changed; the
	// digest will.
	tag, err := x.f.root.ReadFile(x.t.tag())
	if err == nil && len(tag) <= maxTag {
		x.etag, x.kept = strongTag(string(tag)), true
	}
	return nil
}

// keep writes the ETag beside what was fetched.
func (x *transfer) keep() {
	if x.etag != "" && x.at > 0 {
		// Losing it costs a comparison, not a byte: the digest decides.
		x.kept = x.f.root.WriteFile(x.t.tag(), []byte(x.etag), 0o600) == nil
	}
}

// restart forgets what was fetched.
func (x *transfer) restart() error {
	x.f.tally.add(0, -x.at)
	x.at, x.etag = 0, ""
	x.hash.Reset()
	if x.kept {
		x.f.root.Remove(x.t.tag())
		x.kept = false
	}
	if err := x.file.Truncate(0); err != nil {
		return errLocal{err}
	}
	if _, err := x.file.Seek(0, io.SeekStart); err != nil {
		return errLocal{err}
	}
	return nil
}

// fill fetches until the file has its size, and says why it is not the right
// one, or nothing.
func (x *transfer) fill(ctx context.Context) (why string, err error) {
	x.high, x.tries, x.denied = x.at, 0, 0
	for x.at < x.t.size {
		err := x.attempt(ctx)
		if errors.Is(err, errMisfit) {
			return err.Error(), nil
		}
		if err == nil {
			continue
		}
		if err := x.judge(ctx, err); err != nil {
			return "", err
		}
	}
	if got := cmg.Digest(x.hash.Sum(nil)); got != x.t.digest {
		return fmt.Sprintf("its SHA-256 is %s, not %s", got, x.t.digest), nil
	}
	return "", nil
}

// judge returns err where trying again cannot help, or waits and returns nil.
func (x *transfer) judge(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if x.at >= x.high+progress {
		x.high, x.tries, x.denied = x.at, 0, 0
	}
	var denied errDenied
	if errors.As(err, &denied) {
		if x.denied++; x.denied > mostDenied {
			return err
		}
		switch again := x.f.links.renew(ctx, denied.round); {
		case again == nil:
			return nil
		case errors.Is(again, errNoAgain):
			return err
		default:
			err = again
		}
	}
	var local errLocal
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &local) || errors.As(err, &certificate) || final(err) {
		return err
	}
	if x.tries++; x.tries >= x.f.d.cfg.Tries {
		return fmt.Errorf("%d tries in a row brought nothing: %w: %w", x.tries, cmg.ErrUnavailable, err)
	}
	return x.wait(ctx, err)
}

// wait lets full jitter pass: many clients are cut at once, and must not come
// back at once.
func (x *transfer) wait(ctx context.Context, err error) error {
	most := min(x.f.d.cfg.Backoff<<(x.tries-1), maxBackoff)
	pause := rand.N(most + 1)
	var later errLater
	if errors.As(err, &later) {
		pause += min(later.after, maxBackoff)
	}
	x.f.d.cfg.Log.Info("trying again", "package", x.f.m.Package, "file", x.path(), "at", x.at, "try", x.tries, "pause", pause, "err", err)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// finish makes the bytes durable and gives them their whole name.
func (x *transfer) finish() error {
	if err := x.file.Sync(); err != nil {
		return err
	}
	if err := x.file.Close(); err != nil {
		return err
	}
	if err := x.f.root.Rename(x.t.begun(), x.t.whole()); err != nil {
		return err
	}
	if err := x.f.root.Remove(x.t.tag()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
