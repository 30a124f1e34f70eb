package cmg_test

import (
	"fmt"
	"go/ast"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// layers is the ladder of the house: which of our packages each may import,
// besides the root. It is also a security statement: what faces the internet
// cannot reach the database even by mistake. A package that does not stand
// here may not exist. "*" is anything.
var layers = map[string]string{
	".":                    "",
	"h1":                   "",
	"channel":              "h1",
	"auth":                 "",
	"web":                  "",
	"site":                 "",
	"azure":                "",
	"ccm":                  "",
	"bits":                 "",
	"wusp":                 "",
	"blob":                 "azure",
	"cloud":                "azure",
	"meter":                "",
	"gate":                 "",
	"handover":             "",
	"content":              "blob web",
	"distribution":         "content blob",
	"role/agent":           "auth web ccm bits wusp content blob",
	"role/gateway":         "auth web handover meter gate content channel h1",
	"role/connectionpoint": "auth web handover meter gate channel h1",
	"role/managementpoint": "auth web handover ccm bits content distribution site",
	"role/updatepoint":     "auth web wusp content site",
	"role/console":         "auth web content site",
	"role/servicepoint":    "auth web site cloud",
	"cmd/cmg":              "*",
	"e2e":                  "", // stories told against the built binary
	"bench":                "auth web",
}

// testLayers is what the tests of a package may import beyond that, to stand
// up the real other end of a wire.
var testLayers = map[string]string{
	"role/gateway":         "blob",
	"role/managementpoint": "blob",
	"distribution":         "web",
	"e2e":                  "auth bits site", // thousands of devices are made beside the protocol
}

// modules says where a module that is not ours may be imported: nowhere else,
// and nothing that is not listed. Tests may import those marked so anywhere.
var modules = map[string]string{
	"github.com/spf13/cobra":              "cmd/cmg",
	"github.com/spf13/pflag":              "cmd/cmg",
	"github.com/goccy/go-yaml":            "cmd/cmg",
	"golang.org/x/term":                   "cmd/cmg",
	"golang.org/x/crypto":                 "auth",
	"software.sslmate.com/src/go-pkcs12":  "auth",
	"github.com/go-jose/go-jose/v4":       "auth",
	"modernc.org/sqlite":                  "site",
	"github.com/pressly/goose/v3":         "site",
	"github.com/coder/websocket":          "channel e2e",
	"github.com/Azure/go-ntlmssp":         "role/connectionpoint",
	"github.com/icholy/digest":            "role/connectionpoint",
	"golang.org/x/net":                    "role/connectionpoint role/gateway",
	"golang.org/x/sys":                    "blob channel content handover role/connectionpoint role/gateway cmd/cmg",
	"github.com/prometheus/client_golang": "meter",
	"github.com/google/go-cmp":            "tests",
	"go.uber.org/goleak":                  "tests",
}

// owned says which package alone may use a package of the standard library:
// what it is for has one owner.
var owned = map[string]string{
	"database/sql": "site",
	"log":          "web", // net/http wants one; everybody else is handed a log/slog
	"math/rand":    "",    // math/rand/v2 for jitter, crypto/rand for the rest
	"net/rpc":      "",
	"plugin":       "",
	"unsafe":       "channel", // an address for two system calls (ADR 24)
	"C":            "",        // one static binary, pure Go
}

func TestLayers(t *testing.T) {
	h := readHouse(t, os.DirFS("."))
	if len(h.packages) < 2 {
		t.Fatalf("read %d packages: this test does not look at the tree", len(h.packages))
	}
	for _, f := range h.layerFaults() {
		t.Error(f)
	}
}

// TestLayersHold checks the table itself: no cycle, and no role that imports
// another.
func TestLayersHold(t *testing.T) {
	var visit func(p string, above []string)
	visit = func(p string, above []string) {
		if slices.Contains(above, p) {
			t.Fatalf("the table has a cycle: %s", strings.Join(append(above, p), " → "))
		}
		allowed, ok := layers[p]
		if !ok {
			t.Fatalf("the table names %q, which has no line", p)
		}
		if allowed == "*" {
			return
		}
		for _, q := range strings.Fields(allowed) {
			if strings.HasPrefix(q, "role/") {
				t.Errorf("%s may import %s: roles meet on the wire only", p, q)
			}
			visit(q, append(above, p))
		}
	}
	for p := range layers {
		visit(p, nil)
	}
}

// TestLayersSee keeps the checker honest on a small bad tree.
func TestLayersSee(t *testing.T) {
	imports := func(name string, paths ...string) *fstest.MapFile {
		text := "// Package " + name + " is here.\npackage " + name + "\n"
		for _, p := range paths {
			text += "import _ " + strconv.Quote(p) + "\n"
		}
		return &fstest.MapFile{Data: []byte(text)}
	}
	bad := fstest.MapFS{
		"go.mod":                      {Data: []byte("module x.org/y\n")},
		"doc.go":                      imports("y", "fmt", "x.org/y/web"),
		"y_test.go":                   imports("y_test", "github.com/google/go-cmp/cmp"),
		"channel/c.go":                imports("channel", "x.org/y", "x.org/y/h1", "github.com/google/go-cmp/cmp", "log"),
		"h1/h.go":                     imports("h1", "x.org/y/channel", "github.com/nobody/parser"),
		"web/w.go":                    imports("web", "database/sql", "log", "log/slog", "unsafe"),
		"role/gateway/g.go":           imports("gateway", "x.org/y/auth", "x.org/y/site", "x.org/y/role/agent"),
		"role/gateway/g_test.go":      imports("gateway", "x.org/y/blob", "x.org/y/site"),
		"role/gateway/blob.go":        imports("gateway", "x.org/y/blob"),
		"role/connectionpoint/tls.go": {Data: []byte("// Package connectionpoint is here.\npackage connectionpoint\nimport \"crypto/tls\"\nvar _ = &tls.Config{}\n")},
		"auth/tls.go":                 {Data: []byte("// Package auth is here.\npackage auth\nimport \"crypto/tls\"\nvar _ = &tls.Config{}\n")},
		"blob/blobtest/b.go":          imports("blobtest", "x.org/y/blob", "x.org/y/site"),
		"blob/b.go":                   imports("blob", "x.org/y/blob/blobtest"),
		"blob/b_test.go":              imports("blob", "x.org/y/blob/blobtest"),
		"extra/e.go":                  imports("extra"),
		"cmd/cmg/m.go":                imports("main", "x.org/y/site", "x.org/y/role/agent", "github.com/spf13/cobra"),
	}
	want := []string{
		`blob/b.go: blob may not import blob/blobtest`,
		`blob/blobtest/b.go: blob/blobtest may not import site`,
		`channel/c.go: github.com/google/go-cmp/cmp is for tests`,
		`channel/c.go: log belongs to web`,
		`doc.go: . may not import web`,
		`extra: the package has no line in the table of layers_test.go`,
		`h1/h.go: github.com/nobody/parser is not among the modules of layers_test.go`,
		`h1/h.go: h1 may not import channel`,
		`role/connectionpoint/tls.go: a tls.Config is made: only auth builds them`,
		`role/gateway/blob.go: role/gateway may not import blob`,
		`role/gateway/g.go: role/gateway may not import role/agent`,
		`role/gateway/g.go: role/gateway may not import site`,
		`role/gateway/g_test.go: role/gateway may not import site`,
		`web/w.go: database/sql belongs to site`,

		`web/w.go: unsafe belongs to channel`,
	}
	got := readHouse(t, bad).layerFaults()
	if !slices.Equal(got, want) {
		t.Errorf("faults found:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (h house) layerFaults() (faults []string) {
	for dir, sources := range h.packages {
		if _, ok := lineOf(dir); !ok {
			faults = append(faults, dir+": the package has no line in the table of layers_test.go")
			continue
		}
		for _, s := range sources {
			for _, spec := range s.file.Imports {
				p, _ := strconv.Unquote(spec.Path.Value)
				if why := h.importFault(dir, s.test, p); why != "" {
					faults = append(faults, s.path+": "+why)
				}
			}
			if dir != "auth" && !s.test && makesTLS(s.file) {
				faults = append(faults, s.path+": a tls.Config is made: only auth builds them")
			}
		}
	}
	slices.Sort(faults)
	return faults
}

// lineOf gives the table's line for a folder. A folder …test beneath a
// package is part of its tests: it may import the package and what that may.
func lineOf(dir string) (allowed string, ok bool) {
	if allowed, ok = layers[dir]; ok {
		return allowed, true
	}
	parent := path.Dir(dir)
	if allowed, ok = layers[parent]; ok && parent != "." && path.Base(dir) == path.Base(parent)+"test" {
		return allowed + " " + parent, true
	}
	return "", false
}

func (h house) importFault(dir string, test bool, p string) string {
	if p == h.module {
		return ""
	}
	if ours, ok := strings.CutPrefix(p, h.module+"/"); ok {
		allowed, _ := lineOf(dir)
		if test {
			allowed += " " + testLayers[dir] + " " + dir + " " + dir + "/" + path.Base(dir) + "test"
		}
		if allowed == "*" || slices.Contains(strings.Fields(allowed), "*") || slices.Contains(strings.Fields(allowed), ours) {
			return ""
		}
		return fmt.Sprintf("%s may not import %s", dir, ours)
	}
	if owner, ok := owned[p]; ok {
		switch owner {
		case "":
			return p + " is not used in this house"
		case dir:
			return ""
		}
		return fmt.Sprintf("%s belongs to %s", p, owner)
	}
	if first, _, _ := strings.Cut(p, "/"); !strings.Contains(first, ".") {
		return "" // the rest of the standard library
	}
	return moduleFault(dir, test, p)
}

func moduleFault(dir string, test bool, p string) string {
	for m, where := range modules {
		if p != m && !strings.HasPrefix(p, m+"/") {
			continue
		}
		switch {
		case where == "tests" && !test:
			return p + " is for tests"
		case where == "tests" || slices.Contains(strings.Fields(where), dir):
			return ""
		}
		return fmt.Sprintf("%s belongs to %s", p, where)
	}
	return p + " is not among the modules of layers_test.go"
}

// makesTLS reports whether f writes a tls.Config: every TLS setting of the
// product stands in auth.
func makesTLS(f *ast.File) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		sel, ok := lit.Type.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		found = found || ok && pkg.Name == "tls" && sel.Sel.Name == "Config"
		return true
	})
	return found
}
