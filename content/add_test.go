package content_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/content"
)

func TestAdd(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	write(t, dir, "bin/tool-copy.exe", []byte(tree(t, dir)["bin/tool.exe"]))
	var last content.Progress
	m, digest, err := content.Add(t.Context(), d, dir, content.AddOptions{Package: "LAB00001", Version: 3, Name: "n", Progress: func(p content.Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	want := tree(t, dir)
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Path)
		if b := want[f.Path]; f.Size != int64(len(b)) || f.SHA256 != sha256.Sum256([]byte(b)) {
			t.Errorf("%s: %+v is not what lies there", f.Path, f)
		}
		r, i, err := d.Open(t.Context(), content.FileName(f.SHA256), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(r); string(b) != want[f.Path] || i.Size != f.Size {
			t.Errorf("%s: the store holds %d other bytes", f.Path, len(b))
		}
		r.Close()
	}
	if len(names) != len(want) || !slices.IsSorted(names) {
		t.Errorf("files %q of %d", names, len(want))
	}
	if last != (content.Progress{Files: len(want), OfFiles: len(want), Bytes: m.Size(), OfBytes: m.Size()}) {
		t.Errorf("progress ended at %+v", last)
	}
	r, _, err := d.Open(t.Context(), "packages/LAB00001/3.json", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	doc, _ := io.ReadAll(r)
	r.Close()
	if sha256.Sum256(doc) != digest {
		t.Error("the digest is not the document's")
	}
	n := 0
	d.List(t.Context(), "files/", func(string, blob.Info) error { n++; return nil })
	if n != len(some) { // the copy is stored once
		t.Errorf("%d blobs, want %d", n, len(some))
	}
}

func TestAddTwice(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	_, g := d.add(t, dir)
	before := infos(t, d)
	if _, again := d.add(t, dir); again != g {
		t.Errorf("the same folder gave %v, then %v", g, again)
	}
	if after := infos(t, d); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("bytes that were there have been put again")
	}
	write(t, dir, "new", []byte("x"))
	if _, _, err := content.Add(t.Context(), d, dir, content.AddOptions{Package: "LAB00001", Version: 1}); !errors.Is(err, cmg.ErrConflict) {
		t.Errorf("other files as the same version: %v", err)
	}
}

func infos(t *testing.T, s blob.Store) map[string]blob.Info {
	all := map[string]blob.Info{}
	if err := s.List(t.Context(), "", func(n string, i blob.Info) error { all[n] = i; return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAddRefusesOptions(t *testing.T) {
	d := newDepot(t)
	for what, o := range map[string]content.AddOptions{
		"package": {Package: "lab1", Version: 1}, "version": {Package: "LAB00001"}, "name": {Package: "LAB00001", Version: 1, Name: "a\x00b"},
	} {
		if _, _, err := content.Add(t.Context(), d, folder(t, some), o); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, _, err := content.Add(t.Context(), d, t.TempDir(), content.AddOptions{Package: "LAB00001", Version: 1}); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("empty folder: %v", err)
	}
	if _, _, err := content.Add(t.Context(), d, filepath.Join(t.TempDir(), "no"), content.AddOptions{Package: "LAB00001", Version: 1}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// meddler changes the folder when the first byte is put.
type meddler struct {
	blob.Store
	once   sync.Once
	meddle func()
}

func (m *meddler) Put(ctx context.Context, name string, size int64, r io.Reader) error {
	m.once.Do(m.meddle)
	return m.Store.Put(ctx, name, size, r)
}

func TestAddNoticesChange(t *testing.T) {
	const big = 1 << 20
	for what, meddle := range map[string]func(dir string) error{
		"written over": func(d string) error {
			i, err := os.Stat(filepath.Join(d, "f"))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(d, "f"), bytes.Repeat([]byte("x"), big), 0o600); err != nil {
				return err
			}
			return os.Chtimes(filepath.Join(d, "f"), i.ModTime(), i.ModTime()) // a liar's time: the second reading tells
		},
		"grown":    func(d string) error { return os.WriteFile(filepath.Join(d, "f"), make([]byte, big+1), 0o600) },
		"shrunk":   func(d string) error { return os.Truncate(filepath.Join(d, "f"), 1000) },
		"removed":  func(d string) error { return os.Remove(filepath.Join(d, "f")) },
		"replaced": func(d string) error { return os.Rename(filepath.Join(d, "g"), filepath.Join(d, "f")) },
		"another":  func(d string) error { return os.WriteFile(filepath.Join(d, "e"), nil, 0o600) },
	} {
		t.Run(what, func(t *testing.T) {
			d := newDepot(t)
			dir := folder(t, map[string]int{"f": big, "g": big})
			store := &meddler{Store: d, meddle: func() {
				if err := meddle(dir); err != nil {
					t.Error(err)
				}
			}}
			_, _, err := content.Add(t.Context(), store, dir, content.AddOptions{Package: "LAB00001", Version: 1, Parallel: 1})
			if !errors.Is(err, cmg.ErrConflict) || !strings.Contains(err.Error(), "changed while it was read") {
				t.Errorf("error %v, want ErrConflict", err)
			}
			for name, i := range infos(t, d) {
				r, _, err := d.Open(t.Context(), name, 0, -1)
				if err != nil {
					t.Fatal(err)
				}
				b, _ := io.ReadAll(r)
				r.Close()
				if content.FileName(sha256.Sum256(b)) != name {
					t.Errorf("%s holds %d other bytes", name, i.Size)
				}
			}
		})
	}
}

func TestAddEnds(t *testing.T) {
	d := newDepot(t)
	ctx, cancel := context.WithCancel(t.Context())
	store := &meddler{Store: d, meddle: cancel}
	_, _, err := content.Add(ctx, store, folder(t, some), content.AddOptions{Package: "LAB00001", Version: 1})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := d.Stat(t.Context(), "packages/LAB00001/1.json"); !errors.Is(err, cmg.ErrNotFound) {
		t.Errorf("a manifest was put: %v", err)
	}
}
