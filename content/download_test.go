package content_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/content"
)

func TestFetch(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	write(t, dir, "bin/same.exe", []byte(tree(t, dir)["bin/tool.exe"]))
	m, g := d.add(t, dir)
	to := filepath.Join(t.TempDir(), "new", "folder")
	var last content.Progress
	l := d.downloader(t, func(c *content.DownloaderConfig) { c.Progress = func(p content.Progress) { last = p } })
	r, err := l.Fetch(t.Context(), d.locate(t, g, time.Hour), to, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, to, dir)
	twice := int64(some["bin/tool.exe"]) // comes once, lies twice
	want := content.Result{Files: len(m.Files), Bytes: m.Size(), Fetched: m.Size() - twice}
	if r != want {
		t.Errorf("result %+v, want %+v", r, want)
	}
	if last != (content.Progress{Files: len(m.Files), OfFiles: len(m.Files), Bytes: m.Size(), OfBytes: m.Size()}) {
		t.Errorf("progress ended at %+v", last)
	}
}

// TestFetchKeeps: what is there is not fetched, what is wrong is replaced,
// what is somebody else's stays.
func TestFetchKeeps(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	m, g := d.add(t, dir)
	to := t.TempDir()
	write(t, to, "own.txt", []byte("mine"))
	write(t, to, "bin/lib.dll", []byte(tree(t, dir)["bin/lib.dll"]))
	write(t, to, "readme.txt", []byte("0123456789")) // the right size
	l := d.downloader(t, nil)
	r, err := l.Fetch(t.Context(), d.locate(t, g, time.Hour), to, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := m.Size() - int64(some["bin/lib.dll"]); r.Fetched != want {
		t.Errorf("fetched %d, want %d", r.Fetched, want)
	}
	write(t, dir, "own.txt", []byte("mine"))
	same(t, to, dir)
	before := d.requests.Load()
	r, err = l.Fetch(t.Context(), d.locate(t, g, time.Hour), to, nil)
	if err != nil || r.Fetched != 0 || r.Files != len(m.Files) || d.requests.Load() != before {
		t.Errorf("the second time: %+v, %v, %d requests", r, err, d.requests.Load()-before)
	}
}

// TestFetchManySmall: connections are kept, a request a file.
func TestFetchManySmall(t *testing.T) {
	d := newDepot(t)
	sizes := map[string]int{}
	for i := range 500 {
		sizes[fmt.Sprintf("%d/%d.bin", i%7, i)] = 100 + i
	}
	dir := folder(t, sizes)
	_, g := d.add(t, dir)
	to := t.TempDir()
	if _, err := d.downloader(t, nil).Fetch(t.Context(), d.locate(t, g, time.Hour), to, nil); err != nil {
		t.Fatal(err)
	}
	same(t, to, dir)
	n := 0
	d.opened.Range(func(any, any) bool { n++; return true })
	if n > 8 || d.requests.Load() != 500 {
		t.Errorf("%d requests on %d connections", d.requests.Load(), n)
	}
}

// expire makes the store's clock run ahead of all locations known so far.
func (d *depot) expire() { d.ahead.Add(int64(2 * time.Hour)) }

func TestFetchExpired(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	_, g := d.add(t, dir)
	m := d.locate(t, g, time.Hour)
	var asked atomic.Int64
	again := func(context.Context) (content.Located, error) {
		asked.Add(1)
		return d.locate(t, g, time.Hour), nil
	}
	var once sync.Once
	d.front = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, content.FileName(fileNamed(m, "bin/tool.exe").SHA256)) {
			once.Do(func() { // it breaks in the middle, and in the meantime all locations end
				w.Header().Set("Content-Length", fmt.Sprint(some["bin/tool.exe"]))
				w.Write([]byte(tree(t, dir)["bin/tool.exe"][:1<<20]))
				d.expire()
				panic(http.ErrAbortHandler)
			})
		}
		return false
	}
	to := t.TempDir()
	r, err := d.downloader(t, nil).Fetch(t.Context(), m, to, again)
	if err != nil {
		t.Fatal(err)
	}
	same(t, to, dir)
	if asked.Load() != 1 || r.Resumed != 1 || r.Fetched != m.Manifest.Size() {
		t.Errorf("asked %d times for fresh locations, %+v", asked.Load(), r)
	}
}

func fileNamed(m content.Located, name string) cmg.File {
	for _, f := range m.Manifest.Files {
		if f.Path == name {
			return f
		}
	}
	panic(name)
}

func TestFetchExpiredForGood(t *testing.T) {
	d := newDepot(t)
	_, g := d.add(t, folder(t, some))
	old := d.locate(t, g, time.Hour)
	d.expire()
	wrong := d.locate(t, g, time.Hour)
	wrong.Manifest.Version = 2
	refused := cmg.Refuse(http.StatusForbidden, "CMGService_Invalid_Token_Expired", "over", nil)
	for _, c := range []struct {
		what  string
		again func(context.Context) (content.Located, error)
		says  string
		kind  error
		asks  int64
	}{
		{"nobody to ask", nil, "CMGStore_Expired", cmg.ErrForbidden, 0},
		{"old again", func(context.Context) (content.Located, error) { return old, nil }, "CMGStore_Expired", cmg.ErrForbidden, 3},
		{"other version", func(context.Context) (content.Located, error) { return wrong, nil }, "other files", cmg.ErrConflict, 1},
		{"refused", func(context.Context) (content.Located, error) { return content.Located{}, refused }, refused.Code, cmg.ErrForbidden, 1},
		{"gateway away", func(context.Context) (content.Located, error) { return content.Located{}, errors.New("away") }, "away", cmg.ErrUnavailable, 3},
	} {
		var asks atomic.Int64
		again := c.again
		if again != nil {
			again = func(ctx context.Context) (content.Located, error) {
				asks.Add(1)
				return c.again(ctx)
			}
		}
		to := t.TempDir()
		l := d.downloader(t, func(c *content.DownloaderConfig) { c.Parallel, c.Tries = 1, 3 })
		_, err := l.Fetch(t.Context(), old, to, again)
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || asks.Load() != c.asks {
			t.Errorf("%s: asked %d times, %v", c.what, asks.Load(), err)
		}
		if err != nil && strings.Contains(err.Error(), "&s=") {
			t.Errorf("%s: the error shows a location: %v", c.what, err)
		}
	}
}

// TestFetchHostile: manifests and folders that would lead out.
func TestFetchHostile(t *testing.T) {
	d := newDepot(t)
	_, g := d.add(t, folder(t, map[string]int{"f": 10}))
	good := d.locate(t, g, time.Hour)
	outside := t.TempDir()
	for what, name := range map[string]string{
		"up": "../f", "root": "/tmp/f", "inside up": "a/../../f", "drive": "C:f", "backslash": `..\f`, "partial": ".cmg-partial/f", "empty": "", "dot": ".", "dots": "..",
	} {
		m := good
		m.Manifest.Files = []cmg.File{{Path: name, Size: 10, SHA256: good.Manifest.Files[0].SHA256}}
		if _, err := d.downloader(t, nil).Fetch(t.Context(), m, t.TempDir(), nil); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, c := range map[string]struct {
		plant func(to string) error
		name  string
	}{
		"folder is a link out":   {func(to string) error { return os.Symlink(outside, filepath.Join(to, "sub")) }, "sub/f"},
		"folder is a link up":    {func(to string) error { return os.Symlink("..", filepath.Join(to, "sub")) }, "sub/f"},
		"partial folder is one":  {func(to string) error { return os.Symlink(outside, filepath.Join(to, ".cmg-partial")) }, "f"},
		"folder in the way":      {func(to string) error { return os.Mkdir(filepath.Join(to, "f"), 0o700) }, "f"},
		"file in a folder's way": {func(to string) error { return os.WriteFile(filepath.Join(to, "sub"), nil, 0o600) }, "sub/f"},
	} {
		to := t.TempDir()
		if err := c.plant(to); err != nil {
			t.Skip(err)
		}
		m := good
		m.Manifest.Files = []cmg.File{{Path: c.name, Size: 10, SHA256: good.Manifest.Files[0].SHA256}}
		if _, err := d.downloader(t, nil).Fetch(t.Context(), m, to, nil); !errors.Is(err, cmg.ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
		if es, _ := os.ReadDir(outside); len(es) != 0 {
			t.Fatalf("%s: outside holds %v", what, es)
		}
	}
	// A link in a file's place is replaced, not followed.
	to := t.TempDir()
	victim := filepath.Join(outside, "victim")
	write(t, outside, "victim", []byte("untouched!"))
	if err := os.Symlink(victim, filepath.Join(to, "f")); err != nil {
		t.Skip(err)
	}
	if _, err := d.downloader(t, nil).Fetch(t.Context(), good, to, nil); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(victim); string(b) != "untouched!" {
		t.Error("a link was followed out of the folder")
	}
	if i, err := os.Lstat(filepath.Join(to, "f")); err != nil || !i.Mode().IsRegular() {
		t.Errorf("f is %v, %v", i.Mode(), err)
	}
}

func TestNewDownloader(t *testing.T) {
	for what, c := range map[string]content.DownloaderConfig{"parallel": {Parallel: -1}, "tries": {Tries: -1}, "backoff": {Backoff: -1}, "stall": {Stall: -1}} {
		if _, err := content.NewDownloader(c); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
