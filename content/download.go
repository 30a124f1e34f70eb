package content

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/opencmg/cmg"
)

// DownloaderConfig says how a Downloader fetches.
type DownloaderConfig struct {
	Parallel int           `json:"parallel"` // files at once; 0: 4
	Tries    int           `json:"tries"`    // in a row without progress before a fetch is given up; 0: 8
	Backoff  time.Duration `json:"backoff"`  // longest wait before the second try, doubled for each one more up to 30 s; 0: 500 ms
	Stall    time.Duration `json:"stall"`    // without a byte after which a connection is given up; 0: 60 s

	Client   *http.Client   `json:"-"` // nil: one with the system's roots; its Timeout is not used
	Progress func(Progress) `json:"-"` // called every some KiB, never at the same time as itself for one Fetch; nil: not called
	Log      *slog.Logger   `json:"-"` // nil is silent
}

const maxBackoff = 30 * time.Second

// A Downloader fetches packages into folders. It may be used for several
// folders at once, for one folder only once at a time.
type Downloader struct {
	cfg    DownloaderConfig
	client *http.Client
	free   func(dir string) (bytes int64, known bool) // on the disk of dir
}

// NewDownloader checks c and connects to nothing.
func NewDownloader(c DownloaderConfig) (*Downloader, error) {
	if c.Parallel < 0 || c.Tries < 0 || c.Backoff < 0 || c.Stall < 0 {
		return nil, fmt.Errorf("downloader: a setting is negative: %w", cmg.ErrInvalid)
	}
	if c.Parallel == 0 {
		c.Parallel = 4
	}
	if c.Tries == 0 {
		c.Tries = 8
	}
	if c.Backoff == 0 {
		c.Backoff = 500 * time.Millisecond
	}
	if c.Stall == 0 {
		c.Stall = time.Minute
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Downloader{cfg: c, client: manyFiles(c.Client, c.Parallel), free: freeBytes}, nil
}

// manyFiles gives a client that keeps one connection for every parallel file,
// where net/http by itself keeps two a host, and that has no time limit for a
// whole file.
func manyFiles(c *http.Client, parallel int) *http.Client {
	var mine http.Client
	if c != nil {
		mine = *c
	}
	mine.Timeout = 0
	rt := mine.Transport
	if rt == nil {
		rt = http.DefaultTransport
	}
	if t, ok := rt.(*http.Transport); ok {
		t = t.Clone()
		t.MaxIdleConnsPerHost = max(t.MaxIdleConnsPerHost, parallel)
		mine.Transport = t
	}
	return &mine
}

// A Result is what a Fetch did.
type Result struct {
	Files   int   // files in place, each checked against its SHA-256
	Bytes   int64 // their sizes' sum
	Fetched int64 // bytes that came over the network
	Resumed int   // how often a file went on from the byte where it had been cut
	Again   int   // files fetched anew because their digest was wrong
}

// ErrDiskFull says that the files do not fit on the disk. What had been
// fetched is gone, the folder is as it was.
var ErrDiskFull = fmt.Errorf("the disk is full: %w", cmg.ErrUnavailable)

// A CorruptError says that a file's bytes are not those which its package
// lists, also after they were fetched anew.
type CorruptError struct {
	Package cmg.PackageID
	Version int
	Path    string
	Why     string
}

// Error names package and file.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("file %q of %s version %d is corrupted in the store: %s", e.Path, e.Package, e.Version, e.Why)
}

// Unwrap gives cmg.ErrInvalid.
func (e *CorruptError) Unwrap() error { return cmg.ErrInvalid }

// Fetch brings the files of m into dir, which is made where it is missing,
// and returns when every one of them is there, whole and checked, or none of
// those that were still missing. Files in dir that m does not name stay.
//
// What is there already with the right digest is not fetched. What an earlier
// Fetch, cut by ctx or by a crash, had begun is continued at the byte. Cut
// connections, answers of the kind "later" and standstill are tried again with
// growing, jittered waits. When the store answers 403, again is asked for a
// fresh manifest, once for all files; it has to list the same files. again may
// be nil. Errors: *CorruptError for a file that is wrong twice, ErrDiskFull, a
// *cmg.Refusal for what the store refused, ErrInvalid for a manifest that no
// honest gateway sends, ErrConflict where a folder stands in a file's place or
// the package was changed meanwhile. Several files' errors come joined.
func (d *Downloader) Fetch(ctx context.Context, m Located, dir string, again func(ctx context.Context) (Located, error)) (Result, error) {
	f := &fetch{d: d, m: m.Manifest, links: newLinks(m, again)}
	defer d.client.CloseIdleConnections()
	err := checkLocated(m)
	if err == nil {
		err = f.run(ctx, dir)
	}
	if err != nil {
		return f.result, fmt.Errorf("fetch %s version %d: %w", m.Manifest.Package, m.Manifest.Version, err)
	}
	d.cfg.Log.Info("package fetched", "package", f.m.Package, "version", f.m.Version, "files", f.result.Files,
		"bytes", f.result.Bytes, "fetched", f.result.Fetched, "resumed", f.result.Resumed, "again", f.result.Again)
	return f.result, nil
}

func checkLocated(m Located) error {
	if err := checkManifest(m.Manifest); err != nil {
		return err
	}
	if len(m.URLs) != len(m.Manifest.Files) {
		return fmt.Errorf("%d URLs for %d files: %w", len(m.URLs), len(m.Manifest.Files), cmg.ErrInvalid)
	}
	for i, u := range m.URLs {
		if err := checkURL(u); err != nil {
			return fmt.Errorf("URL of %q: %w", m.Manifest.Files[i].Path, err)
		}
	}
	return nil
}

// final says whether trying again cannot help.
func final(err error) bool {
	for _, kind := range []error{cmg.ErrInvalid, cmg.ErrUnauthenticated, cmg.ErrForbidden, cmg.ErrNotFound, cmg.ErrConflict, cmg.ErrTooLarge} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
