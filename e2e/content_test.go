package e2e

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What the content story moves: a gibibyte in five thousand files.
const (
	bigFiles = 5000
	bigSize  = 1 << 30
	memLimit = 150 << 20 // for any process
)

// makeFolder makes files of different sizes, whose sum is size.
func makeFolder(t *testing.T, dir string, files int, size int64) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	block := make([]byte, 1<<20)
	for i := range files {
		n := size / int64(files-i)
		if i < files-1 && n > 2 {
			n = n/2 + r.Int64N(n)
		}
		n = min(n, size)
		size -= n
		name := filepath.Join(dir, fmt.Sprintf("folder %d", i%37), fmt.Sprintf("file-%d.bin", i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		for n > 0 {
			b := block[:min(n, int64(len(block)))]
			for j := 0; j+8 <= len(b); j += 8 {
				binary.LittleEndian.PutUint64(b[j:], r.Uint64())
			}
			if _, err := f.Write(b); err != nil {
				t.Fatal(err)
			}
			n -= int64(len(b))
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// digests gives the SHA-256 of every file below dir, by relative path.
func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		m[rel] = fmt.Sprintf("%x", h.Sum(nil))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// peak is the most memory a process has held (VmHWM), in bytes.
func peak(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10, err
		}
	}
	return 0, errors.New("no VmHWM")
}

// TestContent takes a large folder from the inside to a device: the store is
// killed in the middle of the download, and then the agent. Every digest
// matches, and no process takes much memory.
func TestContent(t *testing.T) {
	l := startLab(t)
	src := filepath.Join(t.TempDir(), "big")
	makeFolder(t, src, bigFiles, bigSize)
	site := filepath.Join(l.dir, "site")

	b, err := built()
	if err != nil {
		t.Fatal(err)
	}
	add := exec.Command(b, "content", "add", src, "--name", "Big", "--site", site, "--quiet")
	began := time.Now()
	out, err := add.Output()
	if err != nil {
		t.Fatalf("content add: %v\n%s", err, out)
	}
	id := strings.Fields(string(out))[0]
	rss := add.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	t.Logf("content add: %v, peak %d MiB", time.Since(began).Round(time.Millisecond), rss>>20)
	if rss > memLimit {
		t.Errorf("content add took %d MiB", rss>>20)
	}
	must(t, "deploy", id, "--to", "big", "--site", site)

	began = time.Now()
	l.kill("agent-1")
	l.again("agent-1")
	cut := func(after int64, name string) {
		l.until(fmt.Sprintf("%d MiB have arrived", after>>20), func() error {
			if n := l.arrived("agent-1"); n < after {
				return fmt.Errorf("%d MiB", n>>20)
			}
			return nil
		})
		l.kill(name)
		l.again(name)
	}
	cut(bigSize/4, "content-store-1")
	cut(bigSize/2, "agent-1")
	var s struct {
		Agent struct {
			Packages []struct {
				ID       string `json:"id"`
				Verified bool   `json:"verified"`
			} `json:"packages"`
		} `json:"agent"`
	}
	l.until("the package is there", func() error {
		if err := l.status("agent-1", &s); err != nil {
			return err
		}
		for _, p := range s.Agent.Packages {
			if p.ID == id && p.Verified {
				return nil
			}
		}
		return fmt.Errorf("%+v", s)
	})
	t.Logf("downloaded with two cuts in %v", time.Since(began).Round(time.Millisecond))
	for name, pid := range l.pids() {
		n, err := peak(pid)
		if err != nil {
			t.Error(err)
		}
		t.Logf("%-20s peak %3d MiB", name, n>>20)
		if n > memLimit {
			t.Errorf("%s took %d MiB", name, n>>20)
		}
	}
	want := digests(t, src)
	got := digests(t, l.find("agent-1", "big"))
	if len(want) != bigFiles || len(got) != len(want) {
		t.Errorf("%d files arrived of %d", len(got), len(want))
	}
	for p, d := range want {
		if got[p] != d {
			t.Errorf("%s differs", p)
		}
	}
}

// packages is where an agent of the lab puts what it downloads.
func (l *lab) packages(agent string) string { return filepath.Join(l.dir, "packages", agent) }

func (l *lab) find(agent, folder string) string {
	l.t.Helper()
	dir := filepath.Join(l.packages(agent), folder)
	if _, err := os.Stat(dir); err != nil {
		l.t.Fatal(err)
	}
	return dir
}

// arrived is how many bytes an agent has on disk so far, whole or not.
func (l *lab) arrived(agent string) (n int64) {
	filepath.WalkDir(l.packages(agent), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if i, err := d.Info(); err == nil {
				n += i.Size()
			}
		}
		return nil // files come and go while this looks
	})
	return n
}
