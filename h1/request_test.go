package h1

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func read(s string) (Request, *Reader, error) {
	rd := NewReader(strings.NewReader(s))
	var r Request
	err := rd.Request(&r)
	return r, rd, err
}

// TestRequestRefused: see vectors_test.go.
func TestRequestRefused(t *testing.T) {
	for _, c := range refusedHeads {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := read(c.in)
			refusedWith(t, err, c.status)
		})
	}
	for _, c := range refusedBodies {
		t.Run("body: "+c.name, func(t *testing.T) {
			r, rd, err := read("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + c.in)
			if err != nil {
				t.Fatal(err)
			}
			b := rd.Body(r.Length)
			_, err = io.ReadAll(&b)
			refusedWith(t, err, c.status)
		})
	}
}

func refusedWith(t *testing.T, err error, status int) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Status != status {
		t.Fatalf("got %v, want a refusal with %d", err, status)
	}
	if !errors.Is(err, cmg.ErrInvalid) && !errors.Is(err, cmg.ErrTooLarge) {
		t.Errorf("%v has no kind", err)
	}
}

// TestRequestNormalised: what passes is written so that it can be read in one
// way only, also behind the compact form.
func TestRequestNormalised(t *testing.T) {
	for _, c := range normalisedHeads {
		t.Run(c.name, func(t *testing.T) {
			r, _, err := read(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(AppendRequest(nil, &r, r.Target, r.Host)); got != c.want {
				t.Errorf("written %q, want %q", got, c.want)
			}
			var back Request
			if err := back.ParseCompact(r.AppendCompact(nil)); err != nil {
				t.Fatal(err)
			}
			if got := string(AppendRequest(nil, &back, back.Target, back.Host)); got != c.want {
				t.Errorf("behind the compact form %q, want %q", got, c.want)
			}
		})
	}
}

// TestResponseRefused: see answers_test.go.
func TestResponseRefused(t *testing.T) {
	for _, c := range refusedAnswers {
		t.Run(c.name, func(t *testing.T) {
			var r Response
			var e *Error
			if err := NewReader(strings.NewReader(c.in)).Response(&r, []byte("GET")); !errors.As(err, &e) {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
}

// TestVectorsInDocs holds the tables of docs/security.md against those here.
// CMG_UPDATE=1 writes them.
func TestVectorsInDocs(t *testing.T) {
	const file = "../docs/security.md"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(doc)
	if len(refusedHeads)+len(normalisedHeads)+len(refusedBodies) < 60 || len(refusedAnswers) < 20 {
		t.Fatal("there are fewer vectors than there have to be")
	}
	for name, vs := range map[string][]vector{"heads": refusedHeads, "normalised": normalisedHeads, "bodies": refusedBodies, "answers": refusedAnswers} {
		begin, end := "<!-- vectors: "+name+" -->\n", "<!-- end -->"
		i := strings.Index(text, begin)
		if i < 0 {
			t.Fatalf("%s has no table of %s", file, name)
		}
		i += len(begin)
		j := i + strings.Index(text[i:], end)
		if want := tableOf(vs); text[i:j] != want {
			if os.Getenv("CMG_UPDATE") == "" {
				t.Errorf("the table of %s in %s is not what is tested: CMG_UPDATE=1 writes it", name, file)
			}
			text = text[:i] + want + text[j:]
		}
	}
	if os.Getenv("CMG_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func tableOf(vs []vector) string {
	var b strings.Builder
	b.WriteString("| Vector | Sent | Becomes |\n|---|---|---|\n")
	for _, v := range vs {
		becomes := strconv.Itoa(v.status)
		if v.status == 0 {
			becomes = excerpt(v.want)
		}
		b.WriteString("| " + v.name + " | " + excerpt(v.in) + " | " + becomes + " |\n")
	}
	return b.String()
}

// excerpt is a message on one line of a table; what is long is cut.
func excerpt(s string) string {
	if len(s) > 160 {
		s = s[:60] + "…"
	}
	q := strconv.QuoteToASCII(s)
	q = strings.NewReplacer(`\"`, `"`, `\u2026`, "…", "|", "¦", "`", "'").Replace(q[1 : len(q)-1])
	return "`" + q + "`"
}

func TestRequest(t *testing.T) {
	r, rd, err := read("\r\nCCM_POST /CCM_Proxy_MutualAuth/72057594037927937/%63cm_system/request?a=%7B1%7d HTTP/1.1\r\n" +
		"Host: gw.example:8443\r\nCCMClientID: GUID:A\r\nccmclienttimestamp:  2026 \r\nRange: bytes=0-1,5-\r\n" +
		"CMG-Caller: forged\r\ncmg_caller: forged\r\nX-Forwarded-For: 1.2.3.4\r\nX_Forwarded_Proto: http\r\n" +
		"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nUpgrade: h2c\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(r.Target), "/CCM_Proxy_MutualAuth/72057594037927937/ccm_system/request?a=%7B1%7d"; got != want {
		t.Errorf("target %q, want %q", got, want)
	}
	if got, want := string(r.Path), "/CCM_Proxy_MutualAuth/72057594037927937/ccm_system/request"; got != want {
		t.Errorf("path %q, want %q", got, want)
	}
	if string(r.Method) != "CCM_POST" || string(r.Host) != "gw.example:8443" || r.Length != 5 || !r.Expect || r.Close {
		t.Errorf("got %+v", r)
	}
	text := string(AppendRequest(nil, &r, []byte("/ccm_system/request"), []byte("mp")))
	want := "CCM_POST /ccm_system/request HTTP/1.1\r\nHost: mp\r\nCCMClientID: GUID:A\r\nccmclienttimestamp: 2026\r\nRange: bytes=0-1,5-\r\nContent-Length: 5\r\n\r\n"
	if text != want {
		t.Errorf("written:\n%q\nwant\n%q", text, want)
	}
	var back Request
	if err := back.ParseCompact(r.AppendCompact(nil)); err != nil {
		t.Fatal(err)
	}
	if got := string(AppendRequest(nil, &back, []byte("/ccm_system/request"), []byte("mp"))); got != want {
		t.Errorf("after the compact form:\n%q\nwant\n%q", got, want)
	}
	b := rd.Body(r.Length)
	if got, err := io.ReadAll(&b); string(got) != "hello" || err != nil {
		t.Errorf("body %q, %v", got, err)
	}
}

func TestRequestPipelined(t *testing.T) {
	rd := NewReader(strings.NewReader("GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET http://a/b HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\nGET"))
	var r Request
	for _, want := range []string{"/a", "/b"} {
		if err := rd.Request(&r); err != nil || string(r.Target) != want {
			t.Fatalf("%q, %v; want %s", r.Target, err, want)
		}
	}
	if !r.Close || !r.HTTP10 {
		t.Error("close and 1.0 not seen")
	}
	if err := rd.Request(&r); err != io.ErrUnexpectedEOF {
		t.Errorf("cut head: %v", err)
	}
}

// TestIdle proves that a reader that waits holds no buffer.
func TestIdle(t *testing.T) {
	pr, pw := io.Pipe()
	rd := NewReader(pr)
	go pw.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	var r Request
	if err := rd.Request(&r); err != nil {
		t.Fatal(err)
	}
	rd.Release()
	if rd.buf != nil {
		t.Error("a buffer is held while nothing is in it")
	}
	pw.Close()
	if err := rd.Wait(); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
}
