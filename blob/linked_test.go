package blob_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/blob/blobtest"
)

// answerRecorder keeps an answer without a connection, for the fuzzer's speed.
type answerRecorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *answerRecorder) Header() http.Header { return w.header }
func (w *answerRecorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}
func (w *answerRecorder) Write(b []byte) (int, error) {
	w.WriteHeader(200)
	return w.body.Write(b)
}

func parsed(path, query string) *url.URL { return &url.URL{Path: path, RawQuery: query} }

func newLinked(t testing.TB, s *shop, base string) *blob.Linked {
	t.Helper()
	l, err := blob.NewLinked(blob.LinkedConfig{URL: s.srv.URL + base, Key: s.key, Client: s.srv.Client()})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLinkedReadsAsDisk(t *testing.T) {
	s := newShop(t, "/base")
	l := newLinked(t, s, "/base/")
	b := blobtest.Bytes(1000)
	s.put(t, "it", b)
	for _, c := range [][2]int64{{0, -1}, {0, 0}, {0, 10}, {10, 10}, {10, -1}, {999, -1}, {1000, -1}, {1000, 10}, {500, 5000}, {0, 5000}, {1000, 0}} {
		var got [2][]byte
		var info [2]blob.Info
		for i, from := range []interface {
			Open(context.Context, string, int64, int64) (io.ReadCloser, blob.Info, error)
		}{s.Disk, l} {
			r, n, err := from.Open(t.Context(), "it", c[0], c[1])
			if err != nil {
				t.Fatalf("open at %d for %d: %v", c[0], c[1], err)
			}
			got[i], err = io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			info[i] = n
		}
		if !bytes.Equal(got[0], got[1]) || info[0].Size != info[1].Size {
			t.Errorf("open at %d for %d: disk %d bytes %+v, linked %d bytes %+v", c[0], c[1], len(got[0]), info[0], len(got[1]), info[1])
		}
	}
	want, _ := s.SignedURL(t.Context(), "it", time.Unix(2e9, 0))
	if got, err := l.SignedURL(t.Context(), "it", time.Unix(2e9, 0)); err != nil || got != want {
		t.Errorf("signed %s, %v, want %s", got, err, want)
	}
}

func TestLinkedErrors(t *testing.T) {
	s := newShop(t, "")
	s.put(t, "it", []byte("12345"))
	l := newLinked(t, s, "")
	other, err := blob.NewLinked(blob.LinkedConfig{URL: s.srv.URL, Key: blob.NewKey(), Client: s.srv.Client()})
	if err != nil {
		t.Fatal(err)
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	nobody, err := blob.NewLinked(blob.LinkedConfig{URL: gone.URL, Key: s.key})
	if err != nil {
		t.Fatal(err)
	}
	ill := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Range"), "bytes=3-") {
			w.Header().Set("Content-Range", "bytes 1-2/5")
			w.WriteHeader(http.StatusPartialContent)
			return
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	defer ill.Close()
	sick, err := blob.NewLinked(blob.LinkedConfig{URL: ill.URL, Key: s.key})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what   string
		from   *blob.Linked
		name   string
		offset int64
		want   error
	}{
		{"absent", l, "absent", 0, cmg.ErrNotFound},
		{"bad name", l, "../it", 0, cmg.ErrInvalid},
		{"past the end", l, "it", 6, cmg.ErrInvalid},
		{"negative", l, "it", -1, cmg.ErrInvalid},
		{"other key", other, "it", 0, cmg.ErrForbidden},
		{"nobody there", nobody, "it", 0, cmg.ErrUnavailable},
		{"trouble", sick, "it", 0, cmg.ErrUnavailable},
		{"other range", sick, "it", 3, cmg.ErrUnavailable},
	} {
		r, _, err := c.from.Open(t.Context(), c.name, c.offset, -1)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v, want %v", c.what, r, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "s=") {
			t.Errorf("%s: the error shows a signature: %v", c.what, err)
		}
	}
	for what, c := range map[string]blob.LinkedConfig{"no key": {URL: "https://a"}, "no URL": {Key: s.key}, "bad URL": {URL: "ftp://a", Key: s.key}} {
		if _, err := blob.NewLinked(c); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
