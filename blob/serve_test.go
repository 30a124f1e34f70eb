package blob_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/blob/blobtest"
)

func (s *shop) url(t testing.TB, name string, life time.Duration) string {
	t.Helper()
	u, err := s.SignedURL(t.Context(), name, s.clock().Add(life))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func (s *shop) do(t testing.TB, method, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := s.srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

// TestSignature holds the URL against the package comment, not against the
// code that made it.
func TestSignature(t *testing.T) {
	s := newShop(t, "/base")
	s.now = time.Unix(1_800_000_000, 999)
	id := sha256.Sum256(append([]byte("cmg-store-1 key id\n"), s.key...))
	k := hex.EncodeToString(id[:4])
	mac := hmac.New(sha256.New, s.key)
	fmt.Fprintf(mac, "cmg-store-1\nread\nfiles/AB/x.y\n1800000060\n%s", k)
	want := s.srv.URL + "/base/files/AB/x.y?e=1800000060&k=" + k + "&s=" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	if got := s.url(t, "files/AB/x.y", time.Minute); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestExpiry(t *testing.T) {
	s := newShop(t, "")
	s.put(t, "it", []byte("bytes"))
	start := time.Unix(1_800_000_000, 0)
	s.now = start
	u := s.url(t, "it", 24*time.Hour)
	for after, want := range map[time.Duration]int{
		0: 200, 24*time.Hour - time.Minute: 200, 24*time.Hour - time.Nanosecond: 200, 24 * time.Hour: 403, 24*time.Hour + time.Minute: 403,
	} {
		s.now = start.Add(after)
		resp, b := s.do(t, "GET", u)
		if resp.StatusCode != want || want == 403 && (resp.Header.Get("CMG-Refusal") != blob.CodeExpired || !strings.HasPrefix(string(b), blob.CodeExpired+": ")) {
			t.Errorf("after %v: %s, %s, %q", after, resp.Status, resp.Header.Get("CMG-Refusal"), b)
		}
	}
}

func TestRefusals(t *testing.T) {
	s := newShop(t, "")
	s.put(t, "it", []byte("bytes"))
	s.put(t, "other", []byte("bytes"))
	u := s.url(t, "it", time.Hour)
	bare, query, _ := strings.Cut(u, "?")
	sig := query[strings.Index(query, "&s=")+3:]
	flip := "A"
	if sig[0] == 'A' {
		flip = "B"
	}
	later := strings.Replace(query, "e=", "e=1", 1)
	for _, c := range []struct{ what, method, url, code string }{
		{"no query", "GET", bare, blob.CodeSignatureRequired},
		{"no signature", "GET", bare + "?" + strings.Split(query, "&s=")[0], blob.CodeSignatureRequired},
		{"other key", "GET", bare + "?e=9&k=00000000&s=" + sig, blob.CodeUnknownKey},
		{"changed signature", "GET", bare + "?" + strings.Replace(query, "&s="+sig, "&s="+flip+sig[1:], 1), blob.CodeInvalidSignature},
		{"cut signature", "GET", u[:len(u)-1], blob.CodeInvalidSignature},
		{"longer signature", "GET", u + "A", blob.CodeInvalidSignature},
		{"later expiry", "GET", bare + "?" + later, blob.CodeInvalidSignature},
		{"twice", "GET", u + "&e=99999999999", blob.CodeInvalidSignature},
		{"more", "GET", u + "&x=1", blob.CodeInvalidSignature},
		{"other name", "GET", strings.Replace(u, "/it?", "/other?", 1), blob.CodeInvalidSignature},
		{"absent", "GET", s.url(t, "absent", time.Hour), blob.CodeNotFound},
		{"post", "POST", u, blob.CodeMethod},
		{"put", "PUT", u, blob.CodeMethod},
		{"propfind", "PROPFIND", u, blob.CodeMethod},
		{"escaped", "GET", strings.Replace(u, "/it?", "/%2e%2e/it?", 1), blob.CodeInvalidName},
		{"folder", "GET", s.srv.URL + "/?" + query, blob.CodeInvalidName},
	} {
		resp, b := s.do(t, c.method, c.url)
		if resp.Header.Get("CMG-Refusal") != c.code || resp.StatusCode < 400 || !strings.HasPrefix(string(b), c.code+": ") {
			t.Errorf("%s: %s %s %q, want %s", c.what, resp.Status, resp.Header.Get("CMG-Refusal"), b, c.code)
		}
		if strings.Contains(string(b), sig) || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: the answer is not plain: %q %v", c.what, b, resp.Header)
		}
	}
}

// TestRawPaths writes requests that no client library would.
func TestRawPaths(t *testing.T) {
	s := newShop(t, "/base")
	s.put(t, "it", []byte("the bytes"))
	_, query, _ := strings.Cut(s.url(t, "it", time.Hour), "?")
	for target, want := range map[string]int{
		"/base/it":                          200,
		"/base/../base/it":                  400,
		"/base/../../etc/passwd":            400,
		"/base/..%2f..%2fetc/passwd":        400,
		"/base/%2e%2e/%2e%2e/etc/passwd":    400,
		"/base/..\\..\\etc\\passwd":         400,
		"/base/.tmp/x":                      400,
		"/base//it":                         400,
		"/base/./it":                        400,
		"/base/it/":                         400,
		"/base/it%00":                       400,
		"/base/%69t":                        400, // the same name, escaped without need
		"/base":                             400,
		"/it":                               400,
		"//base/it":                         400,
		"/base/C:/Windows/win.ini":          400,
		"/base/" + strings.Repeat("a", 300): 400,
	} {
		conn, err := tls.Dial("tcp", s.srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true}) // whoever it is: the request is what counts
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s?%s HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n", target, query)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", target, err)
		}
		b, _ := io.ReadAll(resp.Body)
		conn.Close()
		if resp.StatusCode != want || want == 200 != (string(b) == "the bytes") {
			t.Errorf("%s: %s %q, want %d", target, resp.Status, b, want)
		}
	}
}

func TestRangesOverHTTP(t *testing.T) {
	s := newShop(t, "")
	b := blobtest.Bytes(1000)
	s.put(t, "it", b)
	s.put(t, "empty", nil)
	u := s.url(t, "it", time.Hour)
	whole, _ := s.do(t, "HEAD", u)
	tag, at := whole.Header.Get("ETag"), whole.Header.Get("Last-Modified")
	for _, c := range []struct {
		what   string
		header []string
		status int
		body   []byte
	}{
		{"none", nil, 200, b},
		{"first", []string{"Range", "bytes=0-0"}, 206, b[:1]},
		{"middle", []string{"Range", "bytes=10-19"}, 206, b[10:20]},
		{"open", []string{"Range", "bytes=990-"}, 206, b[990:]},
		{"suffix", []string{"Range", "bytes=-10"}, 206, b[990:]},
		{"long suffix", []string{"Range", "bytes=-5000"}, 206, b},
		{"over the end", []string{"Range", "bytes=990-5000"}, 206, b[990:]},
		{"past the end", []string{"Range", "bytes=1000-"}, 416, nil},
		{"far past the end", []string{"Range", "bytes=99999999999999999999-"}, 416, nil},
		{"empty suffix", []string{"Range", "bytes=-0"}, 416, nil},
		{"backwards", []string{"Range", "bytes=5-4"}, 416, nil},
		{"negative", []string{"Range", "bytes=--5"}, 416, nil},
		{"words", []string{"Range", "bytes=a-b"}, 416, nil},
		{"several", []string{"Range", "bytes=0-1,5-6"}, 200, b},
		{"other unit", []string{"Range", "lines=0-1"}, 200, b},
		{"if-range holds", []string{"Range", "bytes=10-19", "If-Range", tag}, 206, b[10:20]},
		{"if-range of old bytes", []string{"Range", "bytes=10-19", "If-Range", `"old"`}, 200, b},
		{"if-range by time", []string{"Range", "bytes=10-19", "If-Range", at}, 200, b},
		{"if-range of old bytes past the end", []string{"Range", "bytes=1000-", "If-Range", `"old"`}, 200, b},
		{"not changed", []string{"If-None-Match", tag}, 304, nil},
		{"not changed since", []string{"If-Modified-Since", at}, 304, nil},
		{"other bytes", []string{"If-Match", `"old"`}, 412, nil},
	} {
		resp, got := s.do(t, "GET", u, c.header...)
		if resp.StatusCode != c.status || c.body != nil && !bytes.Equal(got, c.body) {
			t.Errorf("%s: %s and %d bytes, want %d and %d", c.what, resp.Status, len(got), c.status, len(c.body))
		}
		if c.status == 416 && (resp.Header.Get("Content-Range") != "bytes */1000" || resp.Header.Get("CMG-Refusal") != blob.CodeRange) {
			t.Errorf("%s: %v", c.what, resp.Header)
		}
		if c.status < 300 && (resp.Header.Get("ETag") != tag || resp.Header.Get("Content-Length") != strconv.Itoa(len(c.body))) {
			t.Errorf("%s: %v", c.what, resp.Header)
		}
	}
	if resp, got := s.do(t, "GET", s.url(t, "empty", time.Hour)); resp.StatusCode != 200 || len(got) != 0 {
		t.Errorf("empty: %s", resp.Status)
	}
	if resp, _ := s.do(t, "GET", s.url(t, "empty", time.Hour), "Range", "bytes=0-"); resp.StatusCode != 416 {
		t.Errorf("range of nothing: %s", resp.Status)
	}
}

// TestManyReaders: 500 at once, each another piece.
func TestManyReaders(t *testing.T) {
	s := newShop(t, "")
	b := blobtest.Bytes(1 << 20)
	s.put(t, "it", b)
	u := s.url(t, "it", time.Hour)
	client := s.srv.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 500
	var readers sync.WaitGroup
	for i := range 500 {
		readers.Go(func() {
			from := i * 1000
			req, _ := http.NewRequestWithContext(t.Context(), "GET", u, nil)
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, from+499_999))
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, b[from:from+500_000]) {
				t.Errorf("reader %d: %s, %d bytes, %v", i, resp.Status, len(got), err)
			}
		})
	}
	readers.Wait()
}

// TestStall: a reader that takes nothing is cut off, one that was idle between
// two requests is not.
func TestStall(t *testing.T) {
	s := newShop(t, "")
	const wait = 300 * time.Millisecond
	d, err := blob.NewDisk(blob.DiskConfig{Dir: s.dir, URL: s.srv.URL, Key: s.key, Stall: wait})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	served := make(chan time.Duration, 1)
	s.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		d.Handler(nil).ServeHTTP(w, r)
		served <- time.Since(start)
	})
	s.put(t, "big", make([]byte, 64<<20)) // more than sockets hold
	s.put(t, "small", []byte("bytes"))

	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url(t, "big", time.Hour), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if took := <-served; took < wait { // it came back at all: the reader has taken nothing yet
		t.Errorf("cut off after %v", took)
	}
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("%d bytes came through a cut", n)
	}
	resp.Body.Close()

	small := s.url(t, "small", time.Hour)
	for range 2 {
		if resp, _ := s.do(t, "GET", small); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
		<-served
		time.Sleep(2 * wait) // the idle time is what is tested
	}
	if resp, _ := s.do(t, "GET", small+"x"); resp.StatusCode != 403 {
		t.Error(resp.Status)
	}
	<-served
}

func FuzzServe(f *testing.F) {
	s := newShop(f, "/b")
	s.now = time.Unix(1_800_000_000, 0)
	s.put(f, "it", []byte("bytes"))
	u := s.url(f, "it", time.Hour)
	_, query, _ := strings.Cut(u, "?")
	for _, p := range append(blobtest.BadNames, "it", "../it") {
		f.Add("/b/"+p, query, "bytes=0-1", `"x"`)
	}
	f.Add("/b/it", "e=1800003600&k=&s=", "bytes=-", "")
	f.Add("/b/it", query, "bytes=4-,2-3", "")
	h := s.Handler(nil)
	f.Fuzz(func(t *testing.T, path, q, rang, ifRange string) {
		w := &answerRecorder{header: http.Header{}}
		r := &http.Request{Method: "GET", Header: http.Header{"Range": {rang}, "If-Range": {ifRange}}, URL: parsed(path, q)}
		h.ServeHTTP(w, r)
		if w.status < 300 && (path != "/b/it" || q != query && len(q) != len(query)) {
			t.Errorf("%q?%q was served: %d %q", path, q, w.status, w.body.String())
		}
		if w.status >= 500 {
			t.Errorf("%q?%q Range %q: %d", path, q, rang, w.status)
		}
	})
}
