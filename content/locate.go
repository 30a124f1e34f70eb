package content

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
)

// Links is what a Locator needs of a store: a blob.Linked, or any blob.Store.
type Links interface {
	Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, blob.Info, error)
	SignedURL(ctx context.Context, name string, until time.Time) (string, error)
}

// The codes of a Locator's refusals.
const (
	CodeExpired  = "CMGContentService_Expired"           // 403: the locations would have ended already
	CodeNotFound = "CMGContentService_Not_Found"         // 404: the store does not hold this version
	CodeMismatch = "CMGContentService_Manifest_Mismatch" // 409: the store holds another manifest than was granted
)

// LocatorConfig says what a Locator needs.
type LocatorConfig struct {
	CacheBytes int64 `json:"cache_bytes"` // memory for manifests once read; 0: 16 MiB

	Links Links            `json:"-"` // required
	Now   func() time.Time `json:"-"` // nil is time.Now
}

// A Locator answers with the signed locations of a package's files. It may be
// called from many goroutines at once; it reads a manifest from the store
// once however many ask for it.
type Locator struct {
	cfg LocatorConfig

	mu    sync.Mutex
	known map[cmg.PackageGrant]*known
	order []cmg.PackageGrant // least recently asked for first; only what has been read
	bytes int64              // of what is in order
}

// known is a manifest that was read, or is being read.
type known struct {
	done     chan struct{} // closed when the rest is set
	manifest cmg.Manifest
	bytes    int64
	err      error
}

// NewLocator checks c and reads nothing.
func NewLocator(c LocatorConfig) (*Locator, error) {
	if c.Links == nil {
		return nil, fmt.Errorf("locator: no store: %w", cmg.ErrInvalid)
	}
	if c.CacheBytes < 0 {
		return nil, fmt.Errorf("locator: cache of %d bytes: %w", c.CacheBytes, cmg.ErrInvalid)
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = 16 << 20
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Locator{cfg: c, known: map[cmg.PackageGrant]*known{}}, nil
}

// Locate gives the located manifest, format 1, of exactly what g grants, with
// URLs that are good until until (cut to whole seconds). Errors that concern
// the caller are a *cmg.Refusal; a store that cannot be reached is
// ErrUnavailable.
func (l *Locator) Locate(ctx context.Context, g cmg.PackageGrant, until time.Time) ([]byte, error) {
	until = until.Truncate(time.Second)
	if !until.After(l.cfg.Now()) {
		return nil, cmg.Refuse(http.StatusForbidden, CodeExpired, "the grant has ended", nil)
	}
	m, err := l.manifest(ctx, g)
	if err != nil {
		return nil, fmt.Errorf("locate %s version %d: %w", g.Package, g.Version, err)
	}
	b := appendHead(make([]byte, 0, 512+400*len(m.Files)), m, until)
	for _, f := range m.Files {
		u, err := l.cfg.Links.SignedURL(ctx, FileName(f.SHA256), until)
		if err != nil {
			return nil, fmt.Errorf("locate %s version %d: %w", g.Package, g.Version, err)
		}
		b = appendEscaped(appendFile(b, f), u)
		b = append(b, fileTail...)
	}
	return append(b, locatedTail...), nil
}

// manifest gives what g grants, from memory or from the store.
func (l *Locator) manifest(ctx context.Context, g cmg.PackageGrant) (cmg.Manifest, error) {
	for {
		l.mu.Lock()
		k, ok := l.known[g]
		if !ok {
			k = &known{done: make(chan struct{})}
			l.known[g] = k
			l.mu.Unlock()
			k.manifest, k.bytes, k.err = l.read(ctx, g)
			l.keep(g, k)
			return k.manifest, k.err
		}
		l.use(g)
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return cmg.Manifest{}, ctx.Err()
		case <-k.done:
		}
		if errors.Is(k.err, context.Canceled) || errors.Is(k.err, context.DeadlineExceeded) {
			continue // whoever read it went away; that is not our trouble
		}
		return k.manifest, k.err
	}
}

// keep lets the others have k, and forgets what there is no room for.
func (l *Locator) keep(g cmg.PackageGrant, k *known) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(k.done)
	if k.err != nil || k.bytes > l.cfg.CacheBytes {
		delete(l.known, g)
		return
	}
	l.order = append(l.order, g)
	l.bytes += k.bytes
	for l.bytes > l.cfg.CacheBytes {
		l.bytes -= l.known[l.order[0]].bytes
		delete(l.known, l.order[0])
		l.order = slices.Delete(l.order, 0, 1)
	}
}

// use makes g the most recently asked for. The lock is held. A linear search:
// the cache holds few manifests of many files.
func (l *Locator) use(g cmg.PackageGrant) {
	if i := slices.Index(l.order, g); i >= 0 {
		l.order = append(slices.Delete(l.order, i, i+1), g)
	}
}

func mismatch(err error) error {
	return cmg.Refuse(http.StatusConflict, CodeMismatch, "the store holds another manifest than the one granted", err)
}

// read fetches the manifest document and holds it against its digest. It also
// tells about how much memory the manifest takes.
func (l *Locator) read(ctx context.Context, g cmg.PackageGrant) (m cmg.Manifest, size int64, err error) {
	if _, err := cmg.ParsePackageID(string(g.Package)); err != nil {
		return m, 0, err
	}
	r, _, err := l.cfg.Links.Open(ctx, ManifestName(g.Package, g.Version), 0, -1)
	if errors.Is(err, cmg.ErrNotFound) {
		return m, 0, cmg.Refuse(http.StatusNotFound, CodeNotFound, "the store does not hold this version of the package", err)
	}
	if err != nil {
		return m, 0, err
	}
	defer r.Close()
	doc, err := io.ReadAll(io.LimitReader(r, MaxManifest+1))
	if err != nil {
		return m, 0, fmt.Errorf("read manifest: %w: %w", cmg.ErrUnavailable, err)
	}
	if len(doc) > MaxManifest {
		return m, 0, fmt.Errorf("manifest is over %d bytes: %w", MaxManifest, cmg.ErrTooLarge)
	}
	if sha256.Sum256(doc) != g.Manifest {
		return m, 0, mismatch(nil)
	}
	if err := json.Unmarshal(doc, &m); err != nil {
		return m, 0, mismatch(err)
	}
	if err := checkManifest(m); err != nil {
		return m, 0, mismatch(err)
	}
	if m.Package != g.Package || m.Version != g.Version {
		return m, 0, mismatch(nil)
	}
	const fileBytes = 72 // of a cmg.File without its path
	for _, f := range m.Files {
		size += fileBytes + int64(len(f.Path))
	}
	return m, 512 + size, nil
}
