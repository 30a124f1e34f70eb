package h1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzRequest holds the reader against net/http: what we accept it accepts,
// with the same method, host, length and end-to-end fields; and a head that
// went through the compact form is written as the same text.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"CCM_POST /ccm_system/request HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\nRange: bytes=1-2\r\n\r\nabc",
		"POST /%41 HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, x\r\nX: 1\r\n\r\n",
		"PROPFIND http://a/b?c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n",
		"\r\nOPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
		"GET /a/..%2fb HTTP/1.1\r\nHost:\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	for _, vs := range [][]vector{refusedHeads, normalisedHeads} {
		for _, v := range vs {
			f.Add([]byte(v.in))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		rd := NewReader(bytes.NewReader(in))
		var r Request
		if err := rd.Request(&r); err != nil {
			holdStricter(t, in, err)
			return
		}
		text := string(AppendRequest(nil, &r, r.Target, r.Host))
		var back Request
		if err := back.ParseCompact(r.AppendCompact(nil)); err != nil {
			t.Fatalf("the compact form of %q is refused: %v", in, err)
		}
		if got := string(AppendRequest(nil, &back, back.Target, back.Host)); got != text {
			t.Fatalf("compact form changed\n%q into\n%q", text, got)
		}
		std, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(in, "\r\n"))))
		if err != nil {
			t.Fatalf("net/http refuses what we accept: %q: %v", in, err)
		}
		if std.Method != string(r.Method) || !strings.EqualFold(std.Host, string(r.Host)) {
			t.Fatalf("%q: method %s host %s, net/http says %s, %s", in, r.Method, r.Host, std.Method, std.Host)
		}
		if std.ContentLength != r.Length {
			t.Fatalf("%q: length %d, net/http says %d", in, r.Length, std.ContentLength)
		}
		for _, x := range r.Fields {
			found := false
			for _, v := range std.Header[http.CanonicalHeaderKey(string(x.Name))] {
				found = found || v == string(x.Value)
			}
			if !found {
				t.Fatalf("%q: field %s: %q is not what net/http reads: %q", in, x.Name, x.Value, std.Header)
			}
		}
		b := rd.Body(r.Length)
		ours, err := io.ReadAll(&b)
		if err != nil {
			return
		}
		if theirs, err := io.ReadAll(std.Body); err != nil || !bytes.Equal(ours, theirs) {
			t.Fatalf("%q: body %q, net/http reads %q, %v", in, ours, theirs, err)
		}
	})
}

// stricter says why we refuse what net/http takes. Everything else that we
// refuse it refuses as well.
var stricter = map[string]string{
	"a line does not end in CR LF":                             "it takes a bare line feed, and passes over empty lines before a request",
	"both Content-Length and Transfer-Encoding":                "it passes over the length, as RFC 9112 lets it; another server may not",
	"more than one Content-Length":                             "it takes equal ones",
	"Content-Length is not a number of at most 18 digits":      "it takes 19 digits, and passes over a bad length beside chunked",
	"a Transfer-Encoding other than one chunked":               "it passes over one in HTTP/1.0",
	"Transfer-Encoding in HTTP/1.0":                            "it passes over it",
	"no Host":                                                  "only its server refuses this",
	"the target's host is not the Host":                        "it takes the target's",
	"Host is not a host name with an optional port":            "its server takes what is in no name of a host",
	"a field is folded over two lines":                         "it joins the lines",
	"a field name is not a token right before a colon":         "it takes a longer name, and a blank in it",
	"the request line is not: method, target, version":         "it cuts at the first and the last blank",
	"the target is neither a path nor an http(s) address":      "it takes other schemes, and the asterisk with each method",
	"the path has an encoded slash, backslash or control byte": "two servers may decode them or not",
	"the path has a dot segment":                               "it leaves them to whoever routes",
	"the path has a character that has to be percent-encoded":  "it takes them",
	"the query has a character that has to be percent-encoded": "it takes them",
	"Connection is not a list of tokens":                       "it takes anything",
	"more than one Upgrade":                                    "it takes several",
	"Upgrade is not a list of protocols":                       "it takes anything",
	"Upgrade is longer than 256 bytes":                         "it takes any length",
	"CONNECT is not served":                                    "it leaves this to whoever routes",
	"an expectation other than 100-continue":                   "only its server refuses this",
	"an HTTP version other than 1.0 and 1.1":                   "it reads any, and refuses later",
	"the method is not a token of at most 32 characters":       "it takes longer ones",
	"the head is longer than 64 KiB":                           "its limit is its server's",
	"more than 128 fields":                                     "it has no such limit",
	"the target is longer than 16 KiB":                         "it has no such limit",
	"the path has a percent sign without two hex digits":       "it takes them in a target that is no path",
	"the path does not begin with a slash":                     "it takes an address without a path",
}

// holdStricter wants a reason where net/http takes what we refuse.
func holdStricter(t *testing.T, in []byte, err error) {
	var bad *Error
	if !errors.As(err, &bad) {
		return // it is cut short
	}
	if _, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(in))); err != nil {
		return
	}
	if stricter[bad.Why] == "" {
		t.Fatalf("%q: net/http takes what we refuse (%s), and nothing says why", in, bad.Why)
	}
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"), false)
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 Not here\r\n\r\nabc"), true)
	f.Add([]byte("HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\nETag: \"a\"\r\n\r\n1;a\r\nb\r\n0\r\n\r\n"), false)
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		rd := NewReader(bytes.NewReader(in))
		var r Response
		if rd.Response(&r, []byte(method)) != nil {
			return
		}
		text, _ := AppendResponse(nil, &r, Framing{Method: []byte(method)})
		var back Response
		if err := back.ParseCompact(r.AppendCompact(nil)); err != nil {
			t.Fatalf("the compact form of %q is refused: %v", in, err)
		}
		if got, _ := AppendResponse(nil, &back, Framing{Method: []byte(method)}); !bytes.Equal(got, text) {
			t.Fatalf("compact form changed\n%q into\n%q", text, got)
		}
		std, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), &http.Request{Method: method})
		if err != nil || std.StatusCode != r.Status {
			t.Fatalf("net/http does not read what we write: %q: %v", text, err)
		}
		std.Body.Close()
		if !NoBody([]byte(method), r.Status) {
			b := rd.Body(r.Length)
			io.Copy(io.Discard, &b)
		}
	})
}

// FuzzCompact feeds the compact reader with anything: what it accepts must
// be harmless as text.
func FuzzCompact(f *testing.F) {
	var r Request
	r.Method, r.Target, r.Host = []byte("GET"), []byte("/a?b"), []byte("h")
	r.Add("Range", []byte("bytes=0-"))
	r.Add("X-Own", []byte("1"))
	f.Add(r.AppendCompact(nil))
	s := Response{Status: 200, Reason: []byte("OK"), Length: 5}
	s.Add("ETag", []byte(`"x"`))
	f.Add(s.AppendCompact(nil))
	r.Upgrade = []byte("foo/1, websocket")
	f.Add(r.AppendCompact(nil))
	s = Response{Status: 101, Reason: []byte("Switching Protocols"), Upgrade: []byte("websocket")}
	f.Add(s.AppendCompact(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		var r Request
		if r.ParseCompact(in) == nil && r.Target[0] == '/' && len(r.Host) > 0 {
			text := AppendRequest(nil, &r, r.Target, r.Host)
			if _, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text))); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if n := bytes.Count(text, []byte("\r\n")); n > len(r.Fields)+4+2*min(1, len(r.Upgrade)) {
				t.Fatalf("%q: %d lines of %d fields", text, n, len(r.Fields))
			}
		}
		var s Response
		if s.ParseCompact(in) == nil {
			AppendResponse(nil, &s, Framing{Method: []byte("GET")})
		}
	})
}

func BenchmarkRequest(b *testing.B) {
	in := []byte("GET /CCM_Proxy_ServerAuth/72057594037927937/SMS_MP/.sms_aut?MPLIST HTTP/1.1\r\nHost: gw.cmg.test:443\r\nUser-Agent: ccmhttp\r\nAccept: */*\r\n" +
		"Authorization: Bearer " + strings.Repeat("x", 400) + "\r\nCCMClientID: GUID:0B9A1F7D-5C0E-4A3A-9C1D-2F5E7A8B9C0D\r\nAccept-Encoding: gzip\r\n\r\n")
	var r Request
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if err := r.Parse(in); err != nil {
			b.Fatal(err)
		}
		out = r.AppendCompact(out[:0])
		if err := r.ParseCompact(out); err != nil {
			b.Fatal(err)
		}
		out = AppendRequest(out[len(out):], &r, r.Target, r.Host)
		out = out[:0]
	}
}

// FuzzAddPeer checks fields of a response that was not read from text: what
// is taken gives text that reads the same.
func FuzzAddPeer(f *testing.F) {
	for _, s := range [][2]string{{"content-type", "text/plain"}, {"X-A", "b\r\nc: d"}, {"", "x"}, {"connection", "close"}, {"set-cookie", "a=b"}, {"a b", "c"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		var r, again Response
		if err := r.Begin(200, 0); err != nil {
			t.Fatal(err)
		}
		if err := r.AddPeer(name, value); err != nil {
			return
		}
		text, _ := AppendResponse(nil, &r, Framing{Method: []byte("GET")})
		if err := again.Parse(text, []byte("GET")); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if len(again.Fields) != len(r.Fields) || len(r.Fields) > 1 {
			t.Fatalf("%q: %d fields, %d", text, len(again.Fields), len(r.Fields))
		}
		for _, hop := range []string{"connection", "content-length", "transfer-encoding", "upgrade"} {
			if strings.EqualFold(name, hop) && len(r.Fields) > 0 {
				t.Errorf("%q was taken", name)
			}
		}
	})
}

// TestBeginResponse checks the bounds of what is not read from text.
func TestBeginResponse(t *testing.T) {
	var r Response
	for status, ok := range map[int]bool{99: false, 100: true, 599: true, 600: false, -1: false} {
		if err := r.Begin(status, Chunked); (err == nil) != ok || ok && (r.Status != status || r.Length != Chunked) {
			t.Errorf("%d: %v, %+v", status, err, r)
		}
	}
	for i := range MaxFields + 1 {
		if err := r.AddPeer("x", "y"); (err == nil) != (i < MaxFields) {
			t.Errorf("field %d: %v", i, err)
		}
	}
}
