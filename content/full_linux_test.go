package content_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencmg/cmg/content"
)

// TestFetchNoRoom: where it is known beforehand, nothing is fetched.
func TestFetchNoRoom(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	m, g := d.add(t, dir)
	located := d.locate(t, g, time.Hour)
	to := t.TempDir()
	write(t, to, "bin/lib.dll", []byte(tree(t, dir)["bin/lib.dll"]))
	before := tree(t, to)
	l := d.downloader(t, nil)
	l.SetFree(m.Size() - int64(some["bin/lib.dll"]) - 1)
	_, err := l.Fetch(t.Context(), located, to, nil)
	if !errors.Is(err, content.ErrDiskFull) || d.requests.Load() != 0 || len(tree(t, to)) != len(before) {
		t.Errorf("%v, %d requests", err, d.requests.Load())
	}
	l.SetFree(m.Size() - int64(some["bin/lib.dll"])) // what is there counts
	if _, err := l.Fetch(t.Context(), located, to, nil); err != nil {
		t.Error(err)
	}
	same(t, to, dir)
}

// TestFetchDiskFull fills a real, small file system, without being warned.
func TestFetchDiskFull(t *testing.T) {
	to := t.TempDir()
	if err := syscall.Mount("tmpfs", to, "tmpfs", 0, "size=2m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("mounting needs more rights:", err)
		}
		t.Skip("mounting needs more rights:", err)
	}
	defer syscall.Unmount(to, 0)
	d := newDepot(t)
	dir := folder(t, some) // 3.7 MB
	_, g := d.add(t, dir)
	l := d.downloader(t, nil)
	l.ForgetFree()
	write(t, to, "own.txt", []byte("mine"))
	if _, err := l.Fetch(t.Context(), d.locate(t, g, time.Hour), to, nil); !errors.Is(err, content.ErrDiskFull) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("error %v", err)
	}
	if left := tree(t, to); len(left) != 1 {
		t.Errorf("%d files are left", len(left))
	}
	if err := syscall.Mount("tmpfs", to, "tmpfs", syscall.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Fetch(t.Context(), d.locate(t, g, time.Hour), to, nil); err != nil {
		t.Error(err)
	}
	write(t, dir, "own.txt", []byte("mine"))
	same(t, to, dir)
}
