package cmg_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// The limits of the house: see CONTRIBUTING.md.
const maxLines = 400

// Names that say nothing about what stands behind them.
var emptyNames = regexp.MustCompile(`^(utils?|common|helpers?|misc|shared|base|stuff)$`)

func TestHouse(t *testing.T) {
	h := readHouse(t, os.DirFS("."))
	if len(h.packages) < 2 {
		t.Fatalf("read %d packages: this test does not look at the tree", len(h.packages))
	}
	for _, p := range h.faults() {
		t.Error(p)
	}
}

// TestHouseSees keeps the checker honest: each fault of a small bad tree has
// to be found, and nothing else.
func TestHouseSees(t *testing.T) {
	long := "package deep\n" + strings.Repeat("\n", maxLines)
	exact := "// Package exact is as long as a file may be.\npackage exact\n" + strings.Repeat("\n", maxLines-2)
	bad := fstest.MapFS{
		"go.mod":               {Data: []byte("module example.org/bad\n")},
		"good.go":              {Data: []byte("// Package bad is bad\n// in all its folders.\npackage bad\n")},
		"good_test.go":         {Data: []byte("package bad_test\n")},
		"deep/a.go":            {Data: []byte("// Package deep is one.\npackage deep\n")},
		"deep/b.go":            {Data: []byte("// Package deep is said twice.\npackage deep\n")},
		"deep/long.go":         {Data: []byte(long)},
		"exact/exact.go":       {Data: []byte(exact)},
		"silent/silent.go":     {Data: []byte("package silent\n")},
		"cmd/tool/main.go":     {Data: []byte("// Package main is a tool.\npackage main\n")},
		"cmd/fine/main.go":     {Data: []byte("// Command fine is fine.\npackage main\n")},
		"util/x.go":            {Data: []byte("// Package util is everything.\npackage util\n")},
		"web/helpers.go":       {Data: []byte("// Package web has a drawer.\npackage web\n")},
		"wrong/x.go":           {Data: []byte("// Package right has another name.\npackage wrong\n")},
		"e2e/walk_test.go":     {Data: []byte("// Package e2e tells stories.\npackage e2e\n")},
		"quiet/x_test.go":      {Data: []byte("package quiet\n")},
		"cut/store2.go":        {Data: []byte("// Package cut was cut by number.\npackage cut\n")},
		"tools/go.mod":         {Data: []byte("module example.org/tools\n")},
		"tools/util/x.go":      {Data: []byte("package util\n")},
		"deep/testdata/x/x.go": {Data: []byte("package x\n")},
		".ci/util/x.go":        {Data: []byte("package util\n")},
	}
	want := []string{
		`cmd/tool: the package comment has to begin with "Command tool "`,
		`cut/store2.go: a file is cut by noun, not by number`,
		`deep/b.go: a second package comment, beside the one in deep/a.go`,
		`deep/long.go: 401 lines, at most 400: cut it by noun`,
		`quiet: no package comment`,
		`silent: no package comment`,
		`util: the name "util" says nothing: name it for what it does`,
		`web/helpers.go: the name "helpers" says nothing: name it for what it does`,
		`wrong: the package comment has to begin with "Package wrong "`,
	}
	got := readHouse(t, bad).faults()
	if !slices.Equal(got, want) {
		t.Errorf("faults found:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A house is the Go source of one module.
type house struct {
	module   string
	packages map[string][]source // by folder; "." is the module's root
}

type source struct {
	path  string
	lines int
	test  bool
	file  *ast.File
}

// readHouse reads every Go file of the module: not those of modules within
// it, of testdata, or of folders that begin with a dot.
func readHouse(t *testing.T, tree fs.FS) house {
	t.Helper()
	h := house{packages: map[string][]source{}}
	mod, err := fs.ReadFile(tree, "go.mod")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(mod), "\n")
	h.module = strings.TrimSpace(strings.TrimPrefix(first, "module "))
	err = fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && outside(tree, p):
			return fs.SkipDir
		case d.IsDir() || path.Ext(p) != ".go":
			return nil
		}
		text, err := fs.ReadFile(tree, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, text, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("parse %s: %w", p, err)
		}
		s := source{path: p, lines: bytes.Count(text, []byte("\n")), test: strings.HasSuffix(p, "_test.go"), file: f}
		h.packages[path.Dir(p)] = append(h.packages[path.Dir(p)], s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func outside(tree fs.FS, dir string) bool {
	name := path.Base(dir)
	if strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" {
		return true
	}
	_, err := fs.Stat(tree, path.Join(dir, "go.mod"))
	return err == nil
}

func (h house) faults() []string {
	var faults []string
	say := func(f string, a ...any) { faults = append(faults, fmt.Sprintf(f, a...)) }
	empty := func(where, name string) {
		if emptyNames.MatchString(name) {
			say("%s: the name %q says nothing: name it for what it does", where, name)
		}
	}
	for dir, sources := range h.packages {
		empty(dir, path.Base(dir))
		for _, s := range sources {
			name := strings.TrimSuffix(strings.TrimSuffix(path.Base(s.path), ".go"), "_test")
			empty(s.path, name)
			if numbered.MatchString(name) && !numberInName.MatchString(name) {
				say("%s: a file is cut by noun, not by number", s.path)
			}
			if s.lines > maxLines {
				say("%s: %d lines, at most %d: cut it by noun", s.path, s.lines, maxLines)
			}
		}
		faults = append(faults, commentFaults(h.module, dir, sources)...)
	}
	slices.Sort(faults)
	return faults
}

var (
	numbered     = regexp.MustCompile(`[0-9]$`)
	numberInName = regexp.MustCompile(`(^|_)(h1|h2|e2e|http1|http2|s3|sha256|es256|oauth2|utf16|utf8|x509)$`)
)

// commentFaults wants one package comment that says what the package is. It
// stands in a file that is not a test, save where there are only tests.
func commentFaults(module, dir string, sources []source) (faults []string) {
	name := path.Base(dir)
	if dir == "." {
		name = sources[0].file.Name.Name
		name = strings.TrimSuffix(name, "_test")
	}
	onlyTests := !slices.ContainsFunc(sources, func(s source) bool { return !s.test })
	begin, where := "Package "+name+" ", ""
	var text string
	for _, s := range sources {
		if s.file.Name.Name == "main" {
			begin = "Command " + name + " "
		}
		if s.file.Doc == nil || s.test && !onlyTests {
			continue
		}
		if where != "" {
			faults = append(faults, fmt.Sprintf("%s: a second package comment, beside the one in %s", s.path, where))
			continue
		}
		where, text = s.path, s.file.Doc.Text()
	}
	switch {
	case where == "":
		faults = append(faults, dir+": no package comment")
	case !strings.HasPrefix(text, begin):
		faults = append(faults, fmt.Sprintf("%s: the package comment has to begin with %q", dir, begin))
	}
	return faults
}
