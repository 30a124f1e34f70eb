package content_test

import (
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/content"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A depot is a disk store behind a real HTTPS listener that can be told to
// cut its connections.
type depot struct {
	*blob.Disk
	dir      string
	srv      *httptest.Server
	cut      atomic.Int64 // mean bytes after which a connection breaks; 0: never
	requests atomic.Int64
	ahead    atomic.Int64                                  // how far the store's clock is ahead, in nanoseconds
	front    func(http.ResponseWriter, *http.Request) bool // answers instead of the store; set before the first request
	opened   sync.Map                                      // remote addresses seen
}

func newDepot(t testing.TB) *depot {
	t.Helper()
	d := &depot{dir: t.TempDir()}
	d.srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.requests.Add(1)
		d.opened.Store(r.RemoteAddr, true)
		if d.front == nil || !d.front(w, r) {
			d.Handler(nil).ServeHTTP(w, r)
		}
	}))
	d.srv.Listener = &cutter{d.srv.Listener, &d.cut}
	d.srv.StartTLS()
	var err error
	d.Disk, err = blob.NewDisk(blob.DiskConfig{Dir: d.dir, URL: d.srv.URL, Key: blob.NewKey(), Now: d.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.srv.Close()
		d.Disk.Close()
	})
	return d
}

func (d *depot) now() time.Time { return time.Now().Add(time.Duration(d.ahead.Load())) }

// add makes a package of dir and gives its grant.
func (d *depot) add(t testing.TB, dir string) (cmg.Manifest, cmg.PackageGrant) {
	t.Helper()
	m, digest, err := content.Add(t.Context(), d, dir, content.AddOptions{Package: "LAB00001", Version: 1, Name: "Tools & more"})
	if err != nil {
		t.Fatal(err)
	}
	return m, cmg.PackageGrant{Package: m.Package, Version: m.Version, Manifest: digest}
}

// locate goes by XML, as a gateway and an agent do.
func (d *depot) locate(t testing.TB, g cmg.PackageGrant, life time.Duration) content.Located {
	t.Helper()
	l, err := content.NewLocator(content.LocatorConfig{Links: d, Now: d.now})
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Locate(t.Context(), g, d.now().Add(life))
	if err != nil {
		t.Fatal(err)
	}
	return read(t, b)
}

func (d *depot) downloader(t testing.TB, change func(*content.DownloaderConfig)) *content.Downloader {
	t.Helper()
	c := content.DownloaderConfig{Client: d.srv.Client(), Backoff: time.Millisecond}
	if change != nil {
		change(&c)
	}
	l, err := content.NewDownloader(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A cutter breaks every connection after about as many bytes as it is told.
type cutter struct {
	net.Listener
	mean *atomic.Int64
}

func (c *cutter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, mean: c.mean}, nil
}

type cutConn struct {
	net.Conn
	mean *atomic.Int64
	sent int64
	end  int64
}

func (c *cutConn) Write(b []byte) (int, error) {
	mean := c.mean.Load()
	if mean == 0 {
		return c.Conn.Write(b)
	}
	if c.end == 0 {
		c.end = c.sent + 1 + rand.Int64N(2*mean)
	}
	if left := c.end - c.sent; left < int64(len(b)) {
		c.Conn.Write(b[:max(left, 0)])
		c.Conn.Close()
		return 0, net.ErrClosed
	}
	c.sent += int64(len(b))
	return c.Conn.Write(b)
}

// folder writes files of the given sizes with random bytes.
func folder(t testing.TB, sizes map[string]int) string {
	t.Helper()
	dir := t.TempDir()
	for name, n := range sizes {
		b := make([]byte, n)
		var seed [32]byte
		copy(seed[:], name)
		rand.NewChaCha8(seed).Read(b)
		write(t, dir, name, b)
	}
	return dir
}

func write(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// tree reads all files under dir.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		files[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// same compares two folders without printing what is in them.
func same(t testing.TB, got, want string) {
	t.Helper()
	g, w := tree(t, got), tree(t, want)
	for name, b := range w {
		if have, ok := g[name]; !ok || have != b {
			t.Errorf("%s: there %v, %d bytes of %d, not the same", name, ok, len(have), len(b))
		}
	}
	for name := range g {
		if _, ok := w[name]; !ok {
			t.Errorf("%s should not be there", name)
		}
	}
}

var some = map[string]int{
	"readme.txt": 10, "bin/tool.exe": 3 << 20, "bin/lib.dll": 700_000, "empty": 0, "a b/ö & 'x'.dat": 5000, "deep/1/2/3/4/f": 1, ".hidden/f": 77,
}
