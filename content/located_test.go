package content_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/content"
)

func read(t testing.TB, b []byte) content.Located {
	t.Helper()
	m, err := content.ReadManifest(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%v in\n%.2000s", err, b)
	}
	return m
}

const digit64 = "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"

// sample is the format as its comment shows it.
const sample = `<?xml version="1.0" encoding="UTF-8"?>
<Content Format="1" Package="LAB00001" Version="2" Name="Tools &amp; more" Files="2" Size="30" Expires="2026-01-02T15:04:05Z">
  <File Name="bin/&lt;t&gt;" Size="20" SHA256="` + digit64 + `" URL="https://s/a?e=1&amp;s=2"/>
  <File Name="readme.txt" Size="10" SHA256="00` + "B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855" + `" URL="https://s/b"></File>
</Content>
`

func goodSample() string { return strings.Replace(sample, "bin/&lt;t&gt;", "bin/&#116;", 1) }

func TestReadManifest(t *testing.T) {
	m := read(t, []byte(goodSample()))
	d, _ := cmg.ParseDigest(digit64)
	d2 := d
	d2[0] = 0
	want := content.Located{
		Manifest: cmg.Manifest{Package: "LAB00001", Version: 2, Name: "Tools & more", Files: []cmg.File{{Path: "bin/t", Size: 20, SHA256: d}, {Path: "readme.txt", Size: 10, SHA256: d2}}},
		URLs:     []string{"https://s/a?e=1&s=2", "https://s/b"},
		Expires:  time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, read(t, want.XML())); diff != "" {
		t.Error(diff)
	}
}

func TestReadManifestRefuses(t *testing.T) {
	good := goodSample()
	swap := func(old, young string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the sample", old)
		}
		return strings.Replace(good, old, young, 1)
	}
	for what, doc := range map[string]string{
		"nothing":         "",
		"text":            "hello",
		"cut":             good[:len(good)/2],
		"not closed":      strings.TrimSuffix(good, "</Content>\n"),
		"twice":           good + good,
		"trailing":        good + "<x/>",
		"doctype":         swap("<Content", `<!DOCTYPE c [<!ENTITY a "b">]><Content`),
		"entity":          swap("readme.txt", "&a;"),
		"comment":         swap("<File", "<!-- x --><File"),
		"instruction":     swap("<File", "<?php x?><File"),
		"text inside":     swap("<File", "x<File"),
		"cdata":           swap("<File", "<![CDATA[x]]><File"),
		"other root":      strings.ReplaceAll(good, "Content", "Contents"),
		"other element":   swap("<File", "<Folder/><File"),
		"nested":          swap("></File>", "><File/></File>"),
		"namespace":       swap("<Content ", `<Content xmlns="urn:x" `),
		"prefix":          swap(` Name="Tools`, ` x:Name="Tools`),
		"format":          swap(`Format="1"`, `Format="2"`),
		"no format":       swap(`Format="1" `, ``),
		"unknown":         swap(`Format="1"`, `Format="1" Key="x"`),
		"attribute twice": swap(`Size="20"`, `Size="20" Size="20"`),
		"no size":         swap(`Size="20" `, ``),
		"package":         swap("LAB00001", "LAB0001"),
		"version zero":    swap(`Version="2"`, `Version="0"`),
		"version big":     swap(`Version="2"`, `Version="99999999999"`),
		"size sign":       swap(`Size="20"`, `Size="+20"`),
		"size zeros":      swap(`Size="20"`, `Size="020"`),
		"size negative":   swap(`Size="20"`, `Size="-20"`),
		"size hex":        swap(`Size="20"`, `Size="0x14"`),
		"size sum":        swap(`Size="30"`, `Size="31"`),
		"overflow":        swap(`Size="20"`, `Size="9223372036854775807"`),
		"more files":      swap(`Files="2"`, `Files="1"`),
		"fewer files":     swap(`Files="2"`, `Files="3"`),
		"file count":      swap(`Files="2"`, `Files="100001"`),
		"digest short":    swap(digit64, digit64[1:]),
		"digest letters":  swap(digit64, "G"+digit64[1:]),
		"same digest":     swap(`SHA256="00`, `SHA256="E3`),
		"time zone":       swap("05Z", "05+01:00"),
		"time":            swap("2026-01-02T15", "2026-13-02T15"),
		"time fraction":   swap("05Z", "05.5Z"),
		"path up":         swap("readme.txt", "../readme.txt"),
		"path up inside":  swap("readme.txt", "a/../../b"),
		"path root":       swap("readme.txt", "/etc/passwd"),
		"path drive":      swap("readme.txt", "C:/x"),
		"path stream":     swap("readme.txt", "a:b"),
		"path backslash":  swap("readme.txt", `..\x`),
		"path empty":      swap("readme.txt", ""),
		"path control":    swap("readme.txt", "a&#9;b"),
		"path null":       swap("readme.txt", "a&#0;b"),
		"path twice":      swap("readme.txt", "BIN/T"),
		"path in file":    swap("readme.txt", "bin/T/x"),
		"path partial":    swap("readme.txt", ".CMG-Partial/x"),
		"name control":    swap("Tools", "To&#10;ols"),
		"name long":       swap("Tools", strings.Repeat("a", 257)),
		"url scheme":      swap("https://s/b", "file:///etc/passwd"),
		"url relative":    swap("https://s/b", "/b"),
		"url user":        swap("https://s/b", "https://u:p@s/b"),
		"url fragment":    swap("https://s/b", "https://s/b#c"),
		"url control":     swap("https://s/b", "https://s/b&#10;c"),
		"url long":        swap("https://s/b", "https://s/"+strings.Repeat("b", 4096)),
		"encoding":        swap("UTF-8", "ISO-8859-1"),
		"not UTF-8":       swap("Tools", "To\xffols"),
	} {
		if m, err := content.ReadManifest(strings.NewReader(doc)); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %+v, %v, want ErrInvalid", what, m, err)
		}
	}
	broken := errors.New("broken line")
	if _, err := content.ReadManifest(io.MultiReader(strings.NewReader(good[:300]), iotest.ErrReader(broken))); !errors.Is(err, broken) || errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("broken line: %v", err)
	}
	endless := io.MultiReader(strings.NewReader(good[:len(good)-20]), repeat(" "))
	if _, err := content.ReadManifest(endless); !errors.Is(err, cmg.ErrTooLarge) {
		t.Errorf("endless: %v", err)
	}
}

type repeat string

func (r repeat) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = r[0]
	}
	return len(b), nil
}

func FuzzReadManifest(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(goodSample()))
	f.Add([]byte(strings.ReplaceAll(goodSample(), `"`, `'`)))
	f.Add([]byte(`<Content Format="1" Package="LAB00001" Version="1" Name="" Files="0" Size="0" Expires="0000-01-01T00:00:00Z"/>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := content.ReadManifest(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, file := range m.Manifest.Files {
			if err := cmg.CheckFilePath(file.Path); err != nil {
				t.Error(err)
			}
		}
		back, err := content.ReadManifest(bytes.NewReader(m.XML()))
		if err != nil {
			t.Fatalf("what was read cannot be written: %v\n%s", err, m.XML())
		}
		if diff := cmp.Diff(m, back); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLocate(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	m, g := d.add(t, dir)
	located := d.locate(t, g, time.Hour)
	if diff := cmp.Diff(m, located.Manifest); diff != "" {
		t.Error(diff)
	}
	for i, f := range m.Files {
		resp, err := d.srv.Client().Get(located.URLs[i])
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != tree(t, dir)[f.Path] {
			t.Errorf("%s: %s, %d bytes", f.Path, resp.Status, len(b))
		}
	}
}

func TestLocateRefuses(t *testing.T) {
	d := newDepot(t)
	_, g := d.add(t, folder(t, some))
	l, err := content.NewLocator(content.LocatorConfig{Links: d})
	if err != nil {
		t.Fatal(err)
	}
	other := g
	other.Manifest[0] ^= 1
	odd := g
	odd.Package = "../../x"
	later := time.Now().Add(time.Hour)
	for _, c := range []struct {
		what  string
		g     cmg.PackageGrant
		until time.Time
		code  string
	}{
		{"other digest", other, later, content.CodeMismatch},
		{"other version", cmg.PackageGrant{Package: g.Package, Version: 2, Manifest: g.Manifest}, later, content.CodeNotFound},
		{"other package", cmg.PackageGrant{Package: "LAB00002", Version: 1, Manifest: g.Manifest}, later, content.CodeNotFound},
		{"ended", g, time.Now().Add(-time.Second), content.CodeExpired},
		{"path", odd, later, ""},
	} {
		b, err := l.Locate(t.Context(), c.g, c.until)
		var no *cmg.Refusal
		if errors.As(err, &no); err == nil || c.code != "" && (no == nil || no.Code != c.code) {
			t.Errorf("%s: %d bytes, %v, want %s", c.what, len(b), err, c.code)
		}
	}
	// Another package's manifest under this name, even with its own digest.
	doc, _ := json.Marshal(cmg.Manifest{Package: "LAB00009", Version: 1, Files: []cmg.File{{Path: "a"}}})
	if err := d.Put(t.Context(), content.ManifestName("LAB00007", 1), int64(len(doc)), bytes.NewReader(doc)); err != nil {
		t.Fatal(err)
	}
	_, err = l.Locate(t.Context(), cmg.PackageGrant{Package: "LAB00007", Version: 1, Manifest: cmg.Policy{Body: doc}.SHA256()}, later)
	if cmg.StatusOf(err) != http.StatusConflict {
		t.Errorf("foreign manifest: %v", err)
	}
}

// slow counts and holds up opening.
type slow struct {
	blob.Store
	opens atomic.Int64
	came  chan struct{} // holds a value when somebody has come
	gate  chan struct{}
}

func (s *slow) Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, blob.Info, error) {
	s.opens.Add(1)
	select {
	case s.came <- struct{}{}:
	default:
	}
	select {
	case <-ctx.Done():
		return nil, blob.Info{}, ctx.Err()
	case <-s.gate:
	}
	return s.Store.Open(ctx, name, offset, length)
}

func TestLocateReadsOnce(t *testing.T) {
	d := newDepot(t)
	_, g := d.add(t, folder(t, some))
	s := &slow{Store: d, came: make(chan struct{}, 1), gate: make(chan struct{})}
	l, err := content.NewLocator(content.LocatorConfig{Links: s})
	if err != nil {
		t.Fatal(err)
	}
	// Whoever asks first goes away before there is an answer.
	ctx, cancel := context.WithCancel(t.Context())
	var gone, askers sync.WaitGroup
	gone.Go(func() {
		if _, err := l.Locate(ctx, g, time.Now().Add(time.Hour)); !errors.Is(err, context.Canceled) {
			t.Errorf("the one that went: %v", err)
		}
	})
	<-s.came
	for range 50 {
		askers.Go(func() {
			if _, err := l.Locate(t.Context(), g, time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
		})
	}
	cancel()
	gone.Wait()
	close(s.gate)
	askers.Wait()
	if n := s.opens.Load(); n != 2 {
		t.Errorf("%d reads for 51 that asked, want 2", n)
	}
}

func TestLocateForgets(t *testing.T) {
	d := newDepot(t)
	s := &slow{Store: d, gate: make(chan struct{})}
	close(s.gate)
	l, err := content.NewLocator(content.LocatorConfig{Links: s, CacheBytes: 2300})
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t, map[string]int{"a": 1, "b": 2, "c": 3})
	var gs []cmg.PackageGrant
	for i := range 6 {
		m, digest, err := content.Add(t.Context(), d, dir, content.AddOptions{Package: cmg.PackageID(fmt.Sprintf("LAB%05X", i)), Version: 1})
		if err != nil {
			t.Fatal(err)
		}
		gs = append(gs, cmg.PackageGrant{Package: m.Package, Version: 1, Manifest: digest})
	}
	ask := func(i int, want int64) {
		t.Helper()
		before := s.opens.Load()
		if _, err := l.Locate(t.Context(), gs[i], time.Now().Add(time.Hour)); err != nil {
			t.Error(err)
		}
		if n := s.opens.Load() - before; n != want {
			t.Errorf("package %d: %d reads, want %d", i, n, want)
		}
	}
	for i := range 4 { // three have room
		ask(i, 1)
	}
	ask(1, 0)
	ask(0, 1) // was the oldest; now 2 goes
	ask(1, 0)
	ask(2, 1)
}
