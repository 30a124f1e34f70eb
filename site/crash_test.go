package site

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

const writer = cmg.DeviceID("GUID:11111111-2222-3333-4444-555555555555")

// writeUntilKilled is the child process: it writes a report, then says its id,
// and again.
func writeUntilKilled(path, name string) {
	ctx := context.Background()
	s, err := Open(ctx, path)
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		id := fmt.Sprintf("%s-%d", name, i)
		if _, err := s.AddReport(ctx, cmg.Report{ID: id, Device: writer, Kind: "State Message Data", Body: "<Report/>"}); err != nil {
			fmt.Println("write:", err)
			os.Exit(1)
		}
		fmt.Println(id)
	}
}

func startWriter(t *testing.T, path, name string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "SITE_TEST_WRITER="+path, "SITE_TEST_NAME="+name)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewScanner(out)
}

// A process is killed in the middle of its writes; what it acknowledged is
// there afterwards, whole, and the database is sound.
func TestAcknowledgedWritesSurviveAKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.db")
	s, err := Create(t.Context(), path, lab)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	acked := map[string]bool{}
	for round := range 3 {
		c, lines := startWriter(t, path, fmt.Sprintf("round%d", round))
		for n := 0; lines.Scan(); n++ {
			acked[lines.Text()] = true
			if n == 40+17*round { // not waited for: the next write is under way
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.Wait() // killed
	}
	if len(acked) < 150 {
		t.Fatalf("only %d writes were acknowledged: %v", len(acked), acked)
	}
	if s, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var sound string
	if err := s.write.QueryRow(`PRAGMA integrity_check`).Scan(&sound); err != nil || sound != "ok" {
		t.Fatalf("integrity_check: %s, %v", sound, err)
	}
	rs, err := s.Reports(t.Context(), writer, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rs {
		delete(acked, r.ID)
	}
	if len(acked) != 0 {
		t.Fatalf("%d acknowledged writes are lost: %v", len(acked), acked)
	}
}

// Two more processes and this one write into one database at the same time;
// nobody is told that it is busy.
func TestProcessesShareADatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.db")
	s, err := Create(t.Context(), path, lab)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var readers sync.WaitGroup
	const each = 300
	for i := range 2 {
		c, lines := startWriter(t, path, fmt.Sprintf("process%d", i))
		readers.Go(func() {
			n := 0
			for lines.Scan() {
				if n++; n == each {
					c.Process.Kill()
				}
			}
			c.Wait()
			if n < each {
				t.Errorf("process %d ended after %d writes", i, n)
			}
		})
	}
	last := uint64(1)
	for i := range 50 {
		r := cmg.Route{Prefix: fmt.Sprintf("/app%d", i), Methods: []string{"GET"}, Proofs: []cmg.Proof{cmg.ProofToken}, Name: "app"}
		if err := s.AddRoute(t.Context(), r, "http://app.example"); err != nil {
			t.Fatal(err)
		}
		v, err := s.PublicationVersion(t.Context())
		if err != nil || v != last+1 {
			t.Fatalf("version %d after %d, %v", v, last, err)
		}
		last = v
		// This one reads before it writes: without immediate transactions it
		// would be told at once that somebody else has written in between.
		for j := range 10 {
			if _, err := s.RoleID(t.Context(), cmg.RoleManagementPoint, fmt.Sprintf("mp%d-%d", i, j)); err != nil {
				t.Fatal(err)
			}
		}
	}
	readers.Wait()
}

// Several processes may open a database that has to be migrated; here, more
// simply, several handles do so on a file that has no tables yet.
func TestMigrationsRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			s, err := connect(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if err := s.migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestConcurrentUse(t *testing.T) {
	s, _ := open(t)
	var all sync.WaitGroup
	ids := make(chan cmg.PackageID, 80)
	for range 8 {
		all.Go(func() {
			for range 10 {
				id, err := s.NextPackageID(t.Context())
				if err != nil {
					t.Error(err)
				}
				ids <- id
			}
		})
	}
	all.Wait()
	close(ids)
	seen := map[cmg.PackageID]bool{}
	for id := range ids {
		if _, err := cmg.ParsePackageID(string(id)); err != nil || seen[id] {
			t.Errorf("id %s: %v, seen before: %t", id, err, seen[id])
		}
		seen[id] = true
	}
	if !seen["LAB00001"] || !seen["LAB00050"] {
		t.Errorf("LAB00001 to LAB00050 (80 ids) were not all allotted: %v", seen)
	}
}

// A caller whose context ends while it waits for the writer is told so.
func TestWaitingObeysTheContext(t *testing.T) {
	s, _ := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := s.update(t.Context(), func(*tx) error {
		_, err := s.NextPackageID(ctx)
		return err
	})
	if err == nil || ctx.Err() == nil {
		t.Fatalf("NextPackageID behind another writer: %v", err)
	}
}
