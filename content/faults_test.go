package content_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/content"
)

// TestFetchCut: connections break at random places, and not one byte is
// fetched twice but what was lost on the way.
func TestFetchCut(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	m, g := d.add(t, dir)
	for _, mean := range []int64{20_000, 200_000} {
		t.Run(fmt.Sprint(mean), func(t *testing.T) {
			located := d.locate(t, g, time.Hour)
			d.cut.Store(mean)
			defer d.cut.Store(0)
			to := t.TempDir()
			l := d.downloader(t, func(c *content.DownloaderConfig) { c.Tries = 1000 }) // some cuts fall into the handshake
			r, err := l.Fetch(t.Context(), located, to, nil)
			if err != nil {
				t.Fatal(err)
			}
			same(t, to, dir)
			if r.Resumed < 3 || r.Again != 0 || r.Fetched != m.Size() {
				t.Errorf("result %+v for %d bytes", r, m.Size())
			}
		})
	}
}

// TestFetchRestart ends a Fetch in the middle, as often as it takes, each time
// with a new Downloader.
func TestFetchRestart(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	m, g := d.add(t, dir)
	located := d.locate(t, g, time.Hour)
	to := t.TempDir()
	var fetched int64
	var resumed int
	for round := 1; ; round++ {
		ctx, cancel := context.WithCancel(t.Context())
		var start int64 = -1
		l := d.downloader(t, func(c *content.DownloaderConfig) {
			c.Progress = func(p content.Progress) {
				if start < 0 {
					start = p.Bytes
				}
				if p.Bytes > start+600_000 && round < 4 {
					cancel()
				}
			}
		})
		r, err := l.Fetch(ctx, located, to, nil)
		cancel()
		fetched, resumed = fetched+r.Fetched, resumed+r.Resumed
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) || round > 5 {
			t.Fatalf("round %d: %v", round, err)
		}
		for name := range tree(t, to) {
			if !strings.HasPrefix(name, ".cmg-partial/") {
				t.Errorf("round %d: %s lies there before all is whole", round, name)
			}
		}
	}
	same(t, to, dir)
	if fetched != m.Size() || resumed == 0 {
		t.Errorf("fetched %d bytes for %d, resumed %d times", fetched, m.Size(), resumed)
	}
}

// TestFetchAfterCrash: a killed process leaves what it had written, without a
// word about it, and perhaps garbage.
func TestFetchAfterCrash(t *testing.T) {
	const size = 400_000
	d := newDepot(t)
	dir := folder(t, map[string]int{"f": size})
	_, g := d.add(t, dir)
	located := d.locate(t, g, time.Hour)
	whole := tree(t, dir)["f"]
	sum := located.Manifest.Files[0].SHA256.String()
	for what, c := range map[string]struct {
		part, etag string
		want       content.Result
	}{
		"part":            {whole[:100_000], "", content.Result{Files: 1, Bytes: size, Fetched: size - 100_000, Resumed: 1}},
		"part and tag":    {whole[:100_000], "right", content.Result{Files: 1, Bytes: size, Fetched: size - 100_000, Resumed: 1}},
		"another's tag":   {whole[:100_000], `"other"`, content.Result{Files: 1, Bytes: size, Fetched: size}},
		"torn tag":        {whole[:100_000], `"oth`, content.Result{Files: 1, Bytes: size, Fetched: size - 100_000, Resumed: 1}},
		"all of it":       {whole, "", content.Result{Files: 1, Bytes: size}},
		"zeros":           {string(make([]byte, 100_000)), "right", content.Result{Files: 1, Bytes: size, Fetched: 2*size - 100_000, Resumed: 1, Again: 1}},
		"zeros, all":      {string(make([]byte, size)), "", content.Result{Files: 1, Bytes: size, Fetched: size, Again: 1}},
		"longer than all": {whole + "x", "", content.Result{Files: 1, Bytes: size, Fetched: size}},
	} {
		t.Run(what, func(t *testing.T) {
			to := t.TempDir()
			write(t, to, ".cmg-partial/"+sum+".part", []byte(c.part))
			write(t, to, ".cmg-partial/stranger", []byte("x"))
			if c.etag == "right" {
				i, _ := d.Stat(t.Context(), content.FileName(located.Manifest.Files[0].SHA256))
				c.etag = i.ETag
			}
			if c.etag != "" {
				write(t, to, ".cmg-partial/"+sum+".etag", []byte(c.etag))
			}
			r, err := d.downloader(t, nil).Fetch(t.Context(), located, to, nil)
			if err != nil || r != c.want {
				t.Errorf("%+v, %v, want %+v", r, err, c.want)
			}
			same(t, to, dir)
		})
	}
}

// TestFetchCorrupted flips a byte in the store, for good or until the second
// look.
func TestFetchCorrupted(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	_, g := d.add(t, dir)
	m := d.locate(t, g, time.Hour)
	at := filepath.Join(d.dir, filepath.FromSlash(content.FileName(fileNamed(m, "bin/lib.dll").SHA256)))
	flip := func() {
		b, err := os.ReadFile(at)
		if err != nil {
			t.Fatal(err)
		}
		b[333_333] ^= 0x10
		if err := os.WriteFile(at, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	to := t.TempDir()
	r, err := d.downloader(t, nil).Fetch(t.Context(), m, to, nil)
	var c *content.CorruptError
	if !errors.As(err, &c) || c.Package != "LAB00001" || c.Version != 1 || c.Path != "bin/lib.dll" || r.Again != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	for name := range tree(t, to) {
		if !strings.HasPrefix(name, ".cmg-partial/") {
			t.Errorf("%s lies there", name)
		}
	}
	flip() // repaired: only the one file is fetched
	r, err = d.downloader(t, nil).Fetch(t.Context(), m, to, nil)
	if err != nil || r.Fetched != int64(some["bin/lib.dll"]) {
		t.Errorf("%+v, %v", r, err)
	}
	same(t, to, dir)

	flip()
	var seen atomic.Int64
	d.front = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, filepath.Base(at)) && seen.Add(1) == 2 {
			flip()
		}
		return false
	}
	to = t.TempDir()
	r, err = d.downloader(t, nil).Fetch(t.Context(), m, to, nil)
	if err != nil || r.Again != 1 {
		t.Errorf("repaired in between: %+v, %v", r, err)
	}
	same(t, to, dir)
}

// TestFetchLyingStore: answers that no honest store gives end in an error or
// in the right file, never in a wrong one.
func TestFetchLyingStore(t *testing.T) {
	const size = 300_000
	d := newDepot(t)
	dir := folder(t, map[string]int{"f": size})
	_, g := d.add(t, dir)
	m := d.locate(t, g, time.Hour)
	whole := []byte(tree(t, dir)["f"])
	answer := func(w http.ResponseWriter, status int, body []byte, header ...string) bool {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		w.Write(body)
		return true
	}
	half := func(w http.ResponseWriter) bool { // the first half, then a cut
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Header().Set("ETag", `"one"`)
		w.Write(whole[:size/2])
		panic(http.ErrAbortHandler)
	}
	rest := "bytes 150000-299999/300000"
	for what, c := range map[string]struct {
		front func(w http.ResponseWriter, r *http.Request, n int64) bool
		kind  error // nil: it works out
		again int
	}{
		"too long": {func(w http.ResponseWriter, _ *http.Request, _ int64) bool {
			return answer(w, 200, append(whole[:size:size], 'x'))
		}, cmg.ErrInvalid, 1},
		"endless":   {func(w http.ResponseWriter, _ *http.Request, _ int64) bool { io.Copy(w, repeat("x")); return true }, cmg.ErrInvalid, 1},
		"too short": {func(w http.ResponseWriter, _ *http.Request, _ int64) bool { return answer(w, 200, whole[:9]) }, cmg.ErrInvalid, 1},
		"empty":     {func(w http.ResponseWriter, _ *http.Request, _ int64) bool { return answer(w, 204, nil) }, cmg.ErrInvalid, 0},
		"gzip": {func(w http.ResponseWriter, _ *http.Request, _ int64) bool {
			return answer(w, 200, whole, "Content-Encoding", "gzip")
		}, cmg.ErrInvalid, 0},
		"unasked range": {func(w http.ResponseWriter, _ *http.Request, _ int64) bool {
			return answer(w, 206, whole, "Content-Range", "bytes 0-299999/300000")
		}, cmg.ErrUnavailable, 0},
		"absent":       {func(w http.ResponseWriter, _ *http.Request, _ int64) bool { return answer(w, 404, nil) }, cmg.ErrNotFound, 0},
		"gone":         {func(w http.ResponseWriter, _ *http.Request, _ int64) bool { return answer(w, 410, nil) }, cmg.ErrNotFound, 0},
		"bad request":  {func(w http.ResponseWriter, _ *http.Request, _ int64) bool { return answer(w, 400, nil) }, cmg.ErrInvalid, 0},
		"always later": {func(w http.ResponseWriter, _ *http.Request, _ int64) bool { return answer(w, 503, nil) }, cmg.ErrUnavailable, 0},
		"later, once": {func(w http.ResponseWriter, _ *http.Request, n int64) bool {
			return n == 1 && answer(w, 503, nil, "Retry-After", "0")
		}, nil, 0},
		"too many, once": {func(w http.ResponseWriter, _ *http.Request, n int64) bool { return n == 1 && answer(w, 429, nil) }, nil, 0},
		"endless forward": {func(w http.ResponseWriter, r *http.Request, _ int64) bool {
			return answer(w, 302, nil, "Location", r.URL.String())
		}, cmg.ErrUnavailable, 0},
		"ignores ranges": {func(w http.ResponseWriter, _ *http.Request, n int64) bool {
			return n == 1 && half(w) || answer(w, 200, whole)
		}, nil, 0},
		"other range": {func(w http.ResponseWriter, _ *http.Request, n int64) bool {
			return n == 1 && half(w) || answer(w, 206, whole[size/2:], "Content-Range", "bytes 0-149999/300000")
		}, cmg.ErrUnavailable, 0},
		"other size": {func(w http.ResponseWriter, _ *http.Request, n int64) bool {
			return n == 1 && half(w) || n == 2 && answer(w, 206, whole[size/2:], "Content-Range", "bytes 150000-299999/300001") || answer(w, 200, whole)
		}, nil, 1},
		"other tag": {func(w http.ResponseWriter, _ *http.Request, n int64) bool {
			return n == 1 && half(w) || n == 2 && answer(w, 206, whole[size/2:], "Content-Range", rest, "ETag", `"two"`) || answer(w, 200, whole)
		}, nil, 0},
		"no such range": {func(w http.ResponseWriter, _ *http.Request, n int64) bool {
			return n == 1 && half(w) || n == 2 && answer(w, 416, nil) || answer(w, 200, whole)
		}, nil, 1},
		"other half": {func(w http.ResponseWriter, _ *http.Request, n int64) bool {
			return n == 1 && half(w) || n == 2 && answer(w, 206, whole[:size/2], "Content-Range", rest) || answer(w, 200, whole)
		}, nil, 1},
	} {
		t.Run(what, func(t *testing.T) {
			var n atomic.Int64
			d.front = func(w http.ResponseWriter, r *http.Request) bool { return c.front(w, r, n.Add(1)) }
			to := t.TempDir()
			r, err := d.downloader(t, func(c *content.DownloaderConfig) { c.Tries = 3 }).Fetch(t.Context(), m, to, nil)
			if !errors.Is(err, c.kind) || r.Again != c.again {
				t.Errorf("%+v, %v, want %v and %d anew", r, err, c.kind, c.again)
			}
			if err == nil {
				same(t, to, dir)
			} else if _, e := os.Stat(filepath.Join(to, "f")); !os.IsNotExist(e) {
				t.Errorf("a file lies there: %v", e)
			}
		})
	}
}

// TestFetchStall: a store that says nothing more is left and asked anew.
func TestFetchStall(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, map[string]int{"f": 300_000})
	_, g := d.add(t, dir)
	m := d.locate(t, g, time.Hour)
	var once sync.Once
	d.front = func(w http.ResponseWriter, r *http.Request) (mine bool) {
		once.Do(func() {
			mine = true
			w.Header().Set("Content-Length", "300000")
			io.WriteString(w, tree(t, dir)["f"][:100_000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		return mine
	}
	to := t.TempDir()
	r, err := d.downloader(t, func(c *content.DownloaderConfig) { c.Stall = 200 * time.Millisecond }).Fetch(t.Context(), m, to, nil)
	if err != nil || r.Resumed != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	same(t, to, dir)
}

// TestFetchOthersGoOn: one file that is gone does not keep the others from
// being fetched, and nothing is installed.
func TestFetchOthersGoOn(t *testing.T) {
	d := newDepot(t)
	dir := folder(t, some)
	man, g := d.add(t, dir)
	m := d.locate(t, g, time.Hour)
	name := content.FileName(fileNamed(m, "bin/lib.dll").SHA256)
	if err := d.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	r, err := d.downloader(t, nil).Fetch(t.Context(), m, to, nil)
	if !errors.Is(err, cmg.ErrNotFound) || !strings.Contains(err.Error(), "bin/lib.dll") || !strings.Contains(err.Error(), "LAB00001") {
		t.Errorf("error %v", err)
	}
	if want := man.Size() - int64(some["bin/lib.dll"]); r.Fetched != want || r.Files != 0 {
		t.Errorf("%+v, want %d bytes", r, want)
	}
	if _, _, err := content.Add(t.Context(), d, dir, content.AddOptions{Package: "LAB00001", Version: 1, Name: "Tools & more"}); err != nil { // repairs
		t.Fatal(err)
	}
	if r, err = d.downloader(t, nil).Fetch(t.Context(), m, to, nil); err != nil || r.Fetched != int64(some["bin/lib.dll"]) {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
	same(t, to, dir)
}

// TestFetchUntrusted: a server with a certificate of nobody is no reason to
// try again and again.
func TestFetchUntrusted(t *testing.T) {
	d := newDepot(t)
	_, g := d.add(t, folder(t, map[string]int{"f": 10}))
	l, err := content.NewDownloader(content.DownloaderConfig{Tries: 1000, Backoff: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Fetch(t.Context(), d.locate(t, g, time.Hour), t.TempDir(), nil)
	if err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "&s=") {
		t.Error(err)
	}
}
