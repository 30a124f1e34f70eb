package site

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

var lab = Settings{Code: "LAB", HierarchyID: "6a5c7a92-5a3c-4a57-9f0e-2f3f3f1f0b11", Name: "laboratory"}

// open makes a site in a fresh file; clock stands still until it is moved.
func open(t *testing.T) (*Site, *time.Time) {
	t.Helper()
	s, err := Create(t.Context(), filepath.Join(t.TempDir(), "site.db"), lab)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s.Now = func() time.Time { return now }
	return s, &now
}

func TestCreateRefusesWhatExists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.db")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), path, lab); !errors.Is(err, cmg.ErrConflict) {
		t.Fatalf("Create over a file: %v, want conflict", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Fatalf("the file now holds %q", b)
	}
	if _, err := Open(t.Context(), path); !errors.Is(err, cmg.ErrInvalid) {
		t.Fatalf("Open of another file: %v, want invalid", err)
	}
}

func TestCreateChecksSettings(t *testing.T) {
	for name, st := range map[string]Settings{
		"lower case code": {Code: "lab"},
		"long code":       {Code: "LABO"},
		"no code":         {},
		"hierarchy":       {Code: "LAB", HierarchyID: "' OR 1=1"},
		"prefixed guid":   {Code: "LAB", HierarchyID: "GUID:6a5c7a92-5a3c-4a57-9f0e-2f3f3f1f0b11"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "site.db")
			if _, err := Create(t.Context(), path, st); !errors.Is(err, cmg.ErrInvalid) {
				t.Fatalf("Create: %v, want invalid", err)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("a file is left: %v", err)
			}
		})
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(t.Context(), filepath.Join(dir, "none.db")); !errors.Is(err, cmg.ErrNotFound) {
		t.Fatalf("Open of nothing: %v, want not found", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Fatalf("Open of nothing left %v", left)
	}
	empty := filepath.Join(dir, "empty.db")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), empty); !errors.Is(err, cmg.ErrInvalid) {
		t.Fatalf("Open of an empty file: %v, want invalid", err)
	}

	path := filepath.Join(dir, "a site, 50% & more?.db")
	s, err := Create(t.Context(), path, lab)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
			t.Fatalf("mode %v, %v; want 0600", fi.Mode(), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got, err := s.Settings(t.Context()); err != nil || got != lab {
		t.Fatalf("Settings = %+v, %v", got, err)
	}
	var mode, sync string
	s.write.QueryRow(`PRAGMA journal_mode`).Scan(&mode)
	s.write.QueryRow(`PRAGMA synchronous`).Scan(&sync)
	if mode != "wal" || sync != "2" {
		t.Fatalf("journal_mode %s, synchronous %s; want wal and 2 (FULL)", mode, sync)
	}
}

func TestOpenRefusesANewerDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.db")
	s, err := Create(t.Context(), path, lab)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := Open(t.Context(), path); !errors.Is(err, cmg.ErrConflict) {
		t.Fatalf("Open: %v, want conflict", err)
	}
}

// Every statement has to be served by a key or an index: reading a whole
// table is only right where its rows are wanted in the order of an index.
func TestEveryQueryUsesAnIndex(t *testing.T) {
	s, _ := open(t)
	if len(queries) < 30 {
		t.Fatalf("only %d queries are registered", len(queries))
	}
	for _, q := range queries {
		args := make([]any, strings.Count(q, "?"))
		rows, err := s.write.Query("EXPLAIN QUERY PLAN "+q, args...)
		if err != nil {
			t.Errorf("%s: %v", q, err)
			continue
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			scans := strings.HasPrefix(detail, "SCAN") && !strings.Contains(detail, "INDEX")
			if scans || strings.Contains(detail, "TEMP B-TREE") || strings.Contains(detail, "AUTOMATIC") {
				t.Errorf("%s\n\tplan: %s", q, detail)
			}
		}
		rows.Close()
	}
}

// No statement may be put together from data: the only calls that reach the
// database take registered texts.
func TestQueriesAreConstant(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(b), "\n") {
			if strings.Contains(line, "Sprintf") && (strings.Contains(line, "SELECT") || strings.Contains(line, "WHERE")) {
				t.Errorf("%s:%d puts SQL together: %s", f, n+1, line)
			}
		}
	}
}
