// Package blobtest holds what every blob.Store has to pass.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
)

// A Subject is a store under test.
type Subject struct {
	Store  blob.Store   // empty; it may be left full
	Client *http.Client // reaches the store's signed URLs
}

// Test runs everything that package blob promises of a Store.
func Test(t *testing.T, s Subject) {
	t.Run("put and open", s.putOpen)
	t.Run("ranges", s.ranges)
	t.Run("replace while reading", s.replace)
	t.Run("whole or not at all", s.whole)
	t.Run("names", s.names)
	t.Run("delete and not found", s.remove)
	t.Run("list", s.list)
	t.Run("signed URLs", s.signed)
	t.Run("at once", s.atOnce)
}

func (s Subject) put(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := s.Store.Put(t.Context(), name, int64(len(b)), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
}

func (s Subject) get(t *testing.T, name string, offset, length int64) ([]byte, blob.Info) {
	t.Helper()
	r, i, err := s.Store.Open(t.Context(), name, offset, length)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	return b, i
}

// Bytes gives n bytes that do not repeat, the same for every call.
func Bytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

func (s Subject) putOpen(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 1<<20 + 7} {
		name, want := fmt.Sprintf("sizes/%d", n), Bytes(n)
		s.put(t, name, want)
		got, opened := s.get(t, name, 0, -1)
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes came back as %d others", n, len(got))
		}
		i, err := s.Store.Stat(t.Context(), name)
		if err != nil || i.Size != int64(n) || i.ETag != opened.ETag || opened.Size != i.Size {
			t.Errorf("stat of %d bytes: %+v, %v; opened: %+v", n, i, err, opened)
		}
		if len(i.ETag) < 3 || i.ETag[0] != '"' || i.ETag[len(i.ETag)-1] != '"' || i.Modified.IsZero() {
			t.Errorf("info lacks a strong ETag or a time: %+v", i)
		}
	}
}

func (s Subject) ranges(t *testing.T) {
	b := Bytes(1000)
	s.put(t, "ranges", b)
	for _, c := range []struct{ offset, length, want int64 }{
		{0, 0, 0}, {0, 1, 1}, {1, 998, 998}, {999, -1, 1}, {999, 500, 1}, {1000, -1, 0}, {1000, 5, 0}, {500, -1, 500}, {0, 5000, 1000},
	} {
		got, i := s.get(t, "ranges", c.offset, c.length)
		if !bytes.Equal(got, b[c.offset:c.offset+c.want]) || i.Size != 1000 {
			t.Errorf("open at %d for %d: %d bytes of %d, want %d of 1000", c.offset, c.length, len(got), i.Size, c.want)
		}
	}
	for _, c := range [][2]int64{{1001, -1}, {-1, 5}, {0, -2}} {
		if r, _, err := s.Store.Open(t.Context(), "ranges", c[0], c[1]); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("open at %d for %d: %v, %v, want ErrInvalid", c[0], c[1], r, err)
		}
	}
}

func (s Subject) replace(t *testing.T) {
	old, young := bytes.Repeat([]byte("old "), 1<<18), bytes.Repeat([]byte("new "), 1<<18)
	s.put(t, "replaced", old)
	r, before, err := s.Store.Open(t.Context(), "replaced", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	s.put(t, "replaced", young)
	rest, err := io.ReadAll(r)
	if all := append(head, rest...); err == nil && !bytes.Equal(all, old) { // an error is honest too
		t.Error("a reader got bytes of two puts")
	}
	got, after := s.get(t, "replaced", 0, -1)
	if !bytes.Equal(got, young) || before.ETag == after.ETag {
		t.Errorf("after a put of the same size: new bytes %v, ETag %s and before %s", bytes.Equal(got, young), after.ETag, before.ETag)
	}
}

func (s Subject) whole(t *testing.T) {
	broken := errors.New("broken reader")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		size int64
		r    io.Reader
		want error
	}{
		"short":  {t.Context(), 10, strings.NewReader("123456789"), cmg.ErrInvalid},
		"long":   {t.Context(), 10, strings.NewReader("12345678901"), cmg.ErrInvalid},
		"broken": {t.Context(), 10, io.MultiReader(strings.NewReader("12345"), iotest.ErrReader(broken)), broken},
		"ended":  {ended, 10, strings.NewReader("1234567890"), context.Canceled},
		"size":   {t.Context(), -1, strings.NewReader(""), cmg.ErrInvalid},
	} {
		for _, there := range []bool{false, true} {
			at := fmt.Sprintf("whole/%s-%v", name, there)
			if there {
				s.put(t, at, []byte("before"))
			}
			if err := s.Store.Put(c.ctx, at, c.size, c.r); !errors.Is(err, c.want) {
				t.Errorf("%s: put gives %v, want %v", at, err, c.want)
			}
			_, err := s.Store.Stat(t.Context(), at)
			if !there && !errors.Is(err, cmg.ErrNotFound) {
				t.Errorf("%s: half a put left something: %v", at, err)
			}
			if there {
				if got, _ := s.get(t, at, 0, -1); string(got) != "before" {
					t.Errorf("%s: half a put left %q", at, got)
				}
			}
		}
	}
}

// BadNames are names that every store has to refuse.
var BadNames = []string{
	"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b", ".hidden", "a/.hidden", "dot.", "a./b",
	`a\b`, "a:b", "C:", "a b", "a%2fb", "a\x00b", "a\nb", "ä", "a?b", "a#b", "a*b", strings.Repeat("a", 256), strings.Repeat("a/", 520) + "a",
}

func (s Subject) names(t *testing.T) {
	for _, name := range []string{"a", "A-b_c.d", strings.Repeat("x", 255), "0/1/2/3/4/5/6/7/8/9", "a..b"} {
		s.put(t, "names/"+name, []byte(name))
		if got, _ := s.get(t, "names/"+name, 0, -1); string(got) != name {
			t.Errorf("%q holds %q", name, got)
		}
	}
	for _, name := range BadNames {
		_, _, open := s.Store.Open(t.Context(), name, 0, -1)
		_, stat := s.Store.Stat(t.Context(), name)
		_, sign := s.Store.SignedURL(t.Context(), name, time.Now().Add(time.Hour))
		put := s.Store.Put(t.Context(), name, 0, strings.NewReader(""))
		for verb, err := range map[string]error{"open": open, "stat": stat, "sign": sign, "put": put, "delete": s.Store.Delete(t.Context(), name)} {
			if !errors.Is(err, cmg.ErrInvalid) {
				t.Errorf("%s %.40q: %v, want ErrInvalid", verb, name, err)
			}
		}
	}
}

func (s Subject) remove(t *testing.T) {
	s.put(t, "removed/it", []byte("x"))
	for range 2 {
		if err := s.Store.Delete(t.Context(), "removed/it"); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"removed/it", "removed", "never/was"} {
		_, _, open := s.Store.Open(t.Context(), name, 0, -1)
		if _, stat := s.Store.Stat(t.Context(), name); !errors.Is(stat, cmg.ErrNotFound) || !errors.Is(open, cmg.ErrNotFound) {
			t.Errorf("%s: stat %v, open %v, want ErrNotFound", name, stat, open)
		}
	}
}

func (s Subject) list(t *testing.T) {
	for _, name := range []string{"list/a", "list/ab", "list/abc/d", "list/b/c", "lister"} {
		s.put(t, name, []byte(name))
	}
	for prefix, want := range map[string][]string{
		"list":     {"list/a", "list/ab", "list/abc/d", "list/b/c", "lister"},
		"list/":    {"list/a", "list/ab", "list/abc/d", "list/b/c"},
		"list/ab":  {"list/ab", "list/abc/d"},
		"list/b/":  {"list/b/c"},
		"list/b/d": nil,
		"nothing/": nil,
	} {
		var got []string
		err := s.Store.List(t.Context(), prefix, func(name string, i blob.Info) error {
			if stat, err := s.Store.Stat(t.Context(), name); err != nil || stat.ETag != i.ETag || stat.Size != i.Size {
				t.Errorf("list says %s is %+v, stat %+v, %v", name, i, stat, err)
			}
			got = append(got, name)
			return nil
		})
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Errorf("list %q: %q, %v, want %q", prefix, got, err, want)
		}
	}
	stop := errors.New("enough")
	n := 0
	err := s.Store.List(t.Context(), "", func(string, blob.Info) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("list went on after an error: %d, %v", n, err)
	}
}

func (s Subject) signed(t *testing.T) {
	b := Bytes(3000)
	s.put(t, "signed/it", b)
	s.put(t, "signed/other", b)
	u, err := s.Store.SignedURL(t.Context(), "signed/it", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	past, err := s.Store.SignedURL(t.Context(), "signed/it", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what, method, url, rang string
		status                  int
		body                    []byte
	}{
		{"whole", "GET", u, "", 200, b},
		{"head", "HEAD", u, "", 200, nil},
		{"range", "GET", u, "bytes=100-199", 206, b[100:200]},
		{"open range", "GET", u, "bytes=2990-", 206, b[2990:]},
		{"past the end", "GET", u, "bytes=3000-", 416, nil},
		{"expired", "GET", past, "", 403, nil},
		{"other name", "GET", strings.Replace(u, "signed/it", "signed/other", 1), "", 403, nil},
		{"unsigned", "GET", strings.SplitN(u, "?", 2)[0], "", 0, nil},
		{"write", "PUT", u, "", 0, nil},
		{"delete", "DELETE", u, "", 0, nil},
	} {
		s.ask(t, c.what, c.method, c.url, c.rang, c.status, c.body)
	}
	if got, _ := s.get(t, "signed/it", 0, -1); !bytes.Equal(got, b) {
		t.Error("a signed URL for reading changed the bytes")
	}
}

// ask expects status, or any refusal where it is 0, and body where it is set.
func (s Subject) ask(t *testing.T, what, method, url, rang string, status int, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if rang != "" {
		req.Header.Set("Range", rang)
	}
	resp, err := s.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != status && (status != 0 || resp.StatusCode < 400) {
		t.Errorf("%s: status %d, want %d", what, resp.StatusCode, status)
	}
	if body != nil && !bytes.Equal(got, body) {
		t.Errorf("%s: %d bytes, want %d", what, len(got), len(body))
	}
	if method == "HEAD" && resp.ContentLength != 3000 {
		t.Errorf("%s: Content-Length %d, want 3000", what, resp.ContentLength)
	}
}

func (s Subject) atOnce(t *testing.T) {
	var all sync.WaitGroup
	defer all.Wait()
	for w := range 4 {
		all.Go(func() {
			b := bytes.Repeat([]byte{byte('a' + w)}, 50_000)
			for range 10 {
				if err := s.Store.Put(t.Context(), "at-once", int64(len(b)), bytes.NewReader(b)); err != nil {
					t.Error(err)
				}
				r, _, err := s.Store.Open(t.Context(), "at-once", 0, -1)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(r)
				r.Close()
				if err != nil || len(got) != len(b) || !bytes.Equal(got, bytes.Repeat(got[:1], len(b))) {
					t.Errorf("read %d mixed bytes, %v", len(got), err)
				}
			}
		})
	}
}
