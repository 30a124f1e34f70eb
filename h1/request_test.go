package h1

import (
	"errors"
	"io"
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

func TestRequestRefused(t *testing.T) {
	const ok = "GET / HTTP/1.1\r\nHost: a\r\n"
	for name, c := range map[string]struct {
		in     string
		status int
	}{
		"length and chunked":           {ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"chunked and length":           {ok + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400},
		"two lengths":                  {ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
		"two equal lengths":            {ok + "Content-Length: 1\r\ncontent-length: 1\r\n\r\n", 400},
		"length list":                  {ok + "Content-Length: 1, 1\r\n\r\n", 400},
		"length plus":                  {ok + "Content-Length: +1\r\n\r\n", 400},
		"length minus":                 {ok + "Content-Length: -1\r\n\r\n", 400},
		"length hex":                   {ok + "Content-Length: 0x1\r\n\r\n", 400},
		"length empty":                 {ok + "Content-Length:\r\n\r\n", 400},
		"length huge":                  {ok + "Content-Length: 9999999999999999999\r\n\r\n", 400},
		"te gzip":                      {ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", 400},
		"te twice":                     {ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"te identity":                  {ok + "Transfer-Encoding: identity\r\n\r\n", 400},
		"te with tab inside":           {ok + "Transfer-Encoding: \x0bchunked\r\n\r\n", 400},
		"te in 1.0":                    {"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
		"fold":                         {ok + "A: b\r\n c\r\n\r\n", 400},
		"fold first":                   {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
		"bare lf":                      {"GET / HTTP/1.1\nHost: a\n\n", 400},
		"bare lf in fields":            {ok + "A: b\nC: d\r\n\r\n", 400},
		"bare cr":                      {ok + "A: b\rC: d\r\n\r\n", 400},
		"nul in value":                 {ok + "A: b\x00\r\n\r\n", 400},
		"nul in name":                  {ok + "A\x00: b\r\n\r\n", 400},
		"space before colon":           {ok + "A : b\r\n\r\n", 400},
		"tab before colon":             {ok + "A\t: b\r\n\r\n", 400},
		"empty name":                   {ok + ": b\r\n\r\n", 400},
		"no colon":                     {ok + "Abc\r\n\r\n", 400},
		"delete character":             {ok + "A: \x7f\r\n\r\n", 400},
		"no host":                      {"GET / HTTP/1.1\r\n\r\n", 400},
		"two hosts":                    {ok + "Host: b\r\n\r\n", 400},
		"host with path":               {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		"host with at":                 {"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400},
		"absolute other host":          {"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"absolute without path":        {"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"two spaces":                   {"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"space in target":              {"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"tab for space":                {"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"space at the end":             {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400},
		"http 0.9":                     {"GET /\r\n\r\n", 400},
		"http 2.0":                     {"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505},
		"http 1.2":                     {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
		"lower-case http":              {"GET / http/1.1\r\nHost: a\r\n\r\n", 400},
		"method":                       {"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"method long":                  {strings.Repeat("A", 33) + " / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"connect":                      {"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501},
		"asterisk with get":            {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"relative target":              {"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"encoded slash":                {"GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"encoded backslash":            {"GET /a%5Cb HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"backslash":                    {"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"encoded nul":                  {"GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"encoded line feed":            {"GET /a%0a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"percent cut":                  {"GET /a%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"percent without hex":          {"GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"dot dot":                      {"GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"dot dot at the end":           {"GET /a/.. HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"dot dot with parameter":       {"GET /a/..;x/b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"encoded dots":                 {"GET /a/%2e%2E/b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"half-encoded dots":            {"GET /a/.%2e/b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"dot":                          {"GET /a/./b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"fragment":                     {"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"fragment in query":            {"GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"high byte in target":          {"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"control in query":             {"GET /?\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"expectation":                  {ok + "Expect: 200-ok\r\n\r\n", 417},
		"long target":                  {"GET /" + strings.Repeat("a", MaxTarget) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
		"long head":                    {ok + "A: " + strings.Repeat("a", MaxHead) + "\r\n\r\n", 431},
		"endless head":                 {ok + strings.Repeat("A: a\r\n", MaxHead), 431},
		"many fields":                  {ok + strings.Repeat("A: a\r\n", MaxFields) + "\r\n", 431},
		"long name":                    {ok + strings.Repeat("A", 257) + ": a\r\n\r\n", 400},
		"cr before the request":        {"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"too many empty lines":         {"\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"connection not tokens":        {ok + "Connection: (close)\r\n\r\n", 400},
		"tls hello on a plain port":    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400},
		"preface of http2":             {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		"unicode line separator value": {ok + "A\xe2\x80\xa8: b\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := read(c.in)
			var e *Error
			if !errors.As(err, &e) || e.Status != c.status {
				t.Fatalf("got %v, want a refusal with %d", err, c.status)
			}
			if !errors.Is(err, cmg.ErrInvalid) && !errors.Is(err, cmg.ErrTooLarge) {
				t.Errorf("%v has no kind", err)
			}
		})
	}
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
