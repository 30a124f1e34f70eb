package cmg

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	refusalLiteral = regexp.MustCompile(`"(CMG(?:Service|Connector|MP|Site|Store|ContentService)_[A-Za-z_]+)"`)
	refusalSuffix  = regexp.MustCompile(`"(_?[A-Z][A-Za-z]+(?:_[A-Za-z]+)*)"`)
	refusalInDocs  = regexp.MustCompile("^\\| `(CMG[A-Za-z]+_[A-Za-z_]+)` \\|")
)

// TestRefusals holds docs/refusals.md against the code: every code that the
// program can give is explained, and none is explained that it cannot give.
func TestRefusals(t *testing.T) {
	codes, suffixes := map[string]string{}, map[string]bool{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return err
		}
		b, err := os.ReadFile(p)
		for _, m := range refusalLiteral.FindAllSubmatch(b, -1) {
			codes[string(m[1])] = p
		}
		for _, m := range refusalSuffix.FindAllSubmatch(b, -1) {
			suffixes[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("docs/refusals.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	for line := range strings.Lines(string(doc)) {
		if m := refusalInDocs.FindStringSubmatch(line); m != nil {
			explained[m[1]] = true
		}
	}
	if len(codes) < 20 || len(explained) < 20 {
		t.Fatalf("%d codes in the program, %d in the document: the search is broken", len(codes), len(explained))
	}
	for code, file := range codes {
		if strings.HasSuffix(code, "_") || explained[code] {
			continue
		}
		if composed(code, explained, suffixes) {
			continue // only ever given with a suffix
		}
		t.Errorf("%s gives %s, which docs/refusals.md does not explain", file, code)
	}
	for code := range explained {
		if codes[code] == "" && !given(code, codes, suffixes) {
			t.Errorf("docs/refusals.md explains %s, which nothing gives", code)
		}
	}
}

// composed says that a code is the beginning of ones that are explained.
func composed(code string, explained, suffixes map[string]bool) bool {
	for s := range suffixes {
		if explained[code+s] {
			return true
		}
	}
	return false
}

// given says that the program puts a code together from one of its codes and
// a suffix, or, for what the servers behind a connection point say, that it
// makes the code of their words.
func given(code string, codes map[string]string, suffixes map[string]bool) bool {
	if strings.HasPrefix(code, "CMGConnector_") {
		return true
	}
	for s := range suffixes {
		if base, ok := strings.CutSuffix(code, s); ok && codes[base] != "" {
			return true
		}
	}
	return false
}
