package blob_test

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/blob/blobtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A shop is a disk store with its listener.
type shop struct {
	*blob.Disk
	dir string
	key []byte
	srv *httptest.Server
	now time.Time // zero: the real time
}

func newShop(t testing.TB, base string) *shop {
	t.Helper()
	s := &shop{dir: t.TempDir(), key: blob.NewKey()}
	s.srv = httptest.NewUnstartedServer(nil)
	s.srv.StartTLS()
	var err error
	s.Disk, err = blob.NewDisk(blob.DiskConfig{Dir: s.dir, URL: s.srv.URL + base, Key: s.key, Now: s.clock})
	if err != nil {
		t.Fatal(err)
	}
	s.srv.Config.Handler = s.Handler(nil)
	t.Cleanup(func() {
		s.srv.Close()
		s.Disk.Close()
	})
	return s
}

func (s *shop) clock() time.Time {
	if s.now.IsZero() {
		return time.Now()
	}
	return s.now
}

func (s *shop) put(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := s.Put(t.Context(), name, int64(len(b)), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
}

func TestDiskIsStore(t *testing.T) {
	for _, base := range []string{"", "/some/base"} {
		t.Run("base "+base, func(t *testing.T) {
			s := newShop(t, base)
			blobtest.Test(t, blobtest.Subject{Store: s.Disk, Client: s.srv.Client()})
		})
	}
}

// TestDiskStaysInside plants links that lead out, and files that are none.
func TestDiskStaysInside(t *testing.T) {
	s := newShop(t, "")
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"file": secret, "folder": outside, "up": "../" + filepath.Base(outside)} {
		if err := os.Symlink(target, filepath.Join(s.dir, name)); err != nil {
			t.Skip("no symbolic links here:", err)
		}
	}
	for _, name := range []string{"file", "folder/secret", "up/secret"} {
		if r, _, err := s.Open(t.Context(), name, 0, -1); err == nil {
			b, _ := io.ReadAll(r)
			t.Errorf("open %s gave %q", name, b)
			r.Close()
		}
		s.Delete(t.Context(), name)
		u, err := s.SignedURL(t.Context(), name, time.Now().Add(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := s.srv.Client().Get(u)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode < 400 || strings.Contains(string(b), "secret") {
			t.Errorf("GET %s: %s %q", name, resp.Status, b)
		}
	}
	if err := s.Put(t.Context(), "folder/planted", 1, strings.NewReader("x")); err == nil {
		t.Error("put through a link that leads out")
	}
	if es, _ := os.ReadDir(outside); len(es) != 1 {
		t.Errorf("outside holds %v", es)
	}
	err := s.List(t.Context(), "", func(name string, _ blob.Info) error {
		t.Errorf("list shows %s", name)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestDiskConflict(t *testing.T) {
	s := newShop(t, "")
	s.put(t, "a/b", []byte("x"))
	for _, name := range []string{"a", "a/b/c"} {
		if err := s.Put(t.Context(), name, 1, strings.NewReader("x")); !errors.Is(err, cmg.ErrConflict) {
			t.Errorf("put %s beside a/b: %v", name, err)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(s.dir, ".tmp")); len(left) != 0 {
		t.Errorf("temporary files were left: %v", left)
	}
}

func TestNewDisk(t *testing.T) {
	key := blob.NewKey()
	for name, c := range map[string]blob.DiskConfig{
		"no folder": {},
		"short key": {Dir: t.TempDir(), Key: key[:31]},
		"no scheme": {Dir: t.TempDir(), URL: "store:8444"},
		"query":     {Dir: t.TempDir(), URL: "https://store/?a=b"},
		"user":      {Dir: t.TempDir(), URL: "https://u:p@store/"},
	} {
		if _, err := blob.NewDisk(c); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "new", "store")
	d, err := blob.NewDisk(blob.DiskConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.SignedURL(t.Context(), "a", time.Now()); !errors.Is(err, cmg.ErrUnavailable) {
		t.Errorf("signing without a key: %v", err)
	}
	i, err := os.Stat(dir)
	if err != nil || i.Mode().Perm()&0o077 != 0 {
		t.Errorf("folder: %v, %v", i.Mode(), err)
	}
}

// TestSweep: what a killed Put left is removed, what a living one writes is not.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	os.Mkdir(filepath.Join(dir, ".tmp"), 0o700)
	for _, name := range []string{"dead", "living"} {
		if err := os.WriteFile(filepath.Join(dir, ".tmp", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, ".tmp", "dead"), old, old); err != nil {
		t.Fatal(err)
	}
	d, err := blob.NewDisk(blob.DiskConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	es, _ := os.ReadDir(filepath.Join(dir, ".tmp"))
	if len(es) != 1 || es[0].Name() != "living" {
		t.Errorf("left: %v", es)
	}
}

func TestKeyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	key := blob.NewKey()
	if err := blob.SaveKey(file, key); err != nil {
		t.Fatal(err)
	}
	if got, err := blob.LoadKey(file); err != nil || !bytes.Equal(got, key) {
		t.Errorf("loaded %d bytes, %v", len(got), err)
	}
	if i, _ := os.Stat(file); i.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v", i.Mode())
	}
	if err := blob.SaveKey(file, blob.NewKey()); !errors.Is(err, os.ErrExist) {
		t.Errorf("second save: %v", err)
	}
	if got, _ := blob.LoadKey(file); !bytes.Equal(got, key) {
		t.Error("the key was overwritten")
	}
	for _, n := range []int{0, 31, 1025} {
		short := filepath.Join(t.TempDir(), "bad")
		os.WriteFile(short, make([]byte, n), 0o600)
		if _, err := blob.LoadKey(short); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("key of %d bytes: %v", n, err)
		}
	}
}
