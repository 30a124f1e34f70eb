package bits

import (
	"os"
	"syscall"
	"testing"
)

// TestDiskFull fills a real, small file system: the client is told so, and
// goes on when there is room.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("mounting needs more rights:", err)
		}
		t.Skip("mounting needs more rights:", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, 0) })
	p := newPlace(t, func(c *Config) { c.Dir = dir })
	p.dir = dir // where whole files go
	file := noise(3 << 20)
	s := p.begin()
	wants(t, p.fragment(s, 0, file[:500_000], len(file)), 200, "500000", "")
	r := p.fragment(s, 500_000, file[500_000:], len(file))
	wants(t, r, 503, "", "0x80070070")
	if code := r.Header.Get("CMG-Refusal"); code != "CMGMP_Upload_Disk_Full" {
		t.Errorf("refused with %s", code)
	}
	wants(t, p.send(CreateSession, "", nil), 503, "", "0x80070070")
	if got := p.current().Status(); got.Sessions != 1 {
		t.Errorf("under way: %+v", got)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	p.restart()
	wants(t, p.fragment(s, 0, file, len(file)), 200, "3145728", "")
	wants(t, p.send(CloseSession, s, nil), 200, "", "")
	p.got(s, "", file)
}
