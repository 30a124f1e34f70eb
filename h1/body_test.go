package h1

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestBody(t *testing.T) {
	for name, c := range map[string]struct {
		length int64
		in     string
		want   string
		rest   string // what has to be left for the next message
		err    bool
	}{
		"known":                {3, "abcdef", "abc", "def", false},
		"known, cut":           {5, "abc", "abc", "", true},
		"none":                 {0, "abc", "", "abc", false},
		"until close":          {UntilClose, "abc", "abc", "", false},
		"chunks":               {Chunked, "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nrest", "abcde", "rest", false},
		"trailers are dropped": {Chunked, "1\r\na\r\n0\r\nX: y\r\nZ: w\r\n\r\nrest", "a", "rest", false},
		"chunk cut":            {Chunked, "3\r\nab", "ab", "", true},
		"no last chunk":        {Chunked, "1\r\na\r\n", "a", "", true},
		"size not hex":         {Chunked, "g\r\na\r\n0\r\n\r\n", "", "", true},
		"size empty":           {Chunked, "\r\na\r\n", "", "", true},
		"size with plus":       {Chunked, "+1\r\na\r\n0\r\n\r\n", "", "", true},
		"size with 0x":         {Chunked, "0x1\r\na\r\n0\r\n\r\n", "", "", true},
		"size with blank":      {Chunked, "1 \r\na\r\n0\r\n\r\n", "", "", true},
		"size huge":            {Chunked, "1000000000000000\r\na", "", "", true},
		"bare lf":              {Chunked, "1\na\n0\n\n", "", "", true},
		"chunk too long":       {Chunked, "1\r\nabc\r\n0\r\n\r\n", "a", "", true},
		"extension too long":   {Chunked, "1;" + strings.Repeat("x", 300) + "\r\na\r\n0\r\n\r\n", "", "", true},
		"control in extension": {Chunked, "1;\x01\r\na\r\n0\r\n\r\n", "", "", true},
		"bad trailer":          {Chunked, "0\r\nX y\r\n\r\n", "", "", true},
		"trailers too long":    {Chunked, "0\r\n" + strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 10) + "\r\n", "", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			for _, src := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in))} {
				rd := NewReader(src)
				b := rd.Body(c.length)
				got, err := io.ReadAll(&b)
				if string(got) != c.want || (err != nil) != c.err {
					t.Fatalf("got %q, %v; want %q, error %v", got, err, c.want, c.err)
				}
				if errors.Is(err, io.EOF) {
					t.Error("a cut body reads as a whole one")
				}
				if c.err {
					continue
				}
				if rest, _ := io.ReadAll(rd); string(rest) != c.rest {
					t.Errorf("left %q, want %q", rest, c.rest)
				}
			}
		})
	}
}

func TestResponse(t *testing.T) {
	for name, c := range map[string]struct {
		method, in string
		status     int
		length     int64
		close, err bool
	}{
		"plain":              {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, 3, false, false},
		"no reason":          {"GET", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", 404, 0, false, false},
		"own reason":         {"GET", "HTTP/1.1 403 Client certificate required\r\nContent-Length: 0\r\n\r\n", 403, 0, false, false},
		"chunked":            {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, Chunked, false, false},
		"until close":        {"GET", "HTTP/1.0 200 OK\r\n\r\n", 200, UntilClose, true, false},
		"head":               {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 200, 3, false, false},
		"head chunked":       {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, 0, false, false},
		"not modified":       {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", 304, 0, false, false},
		"after interim":      {"GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, 0, false, false},
		"close":              {"GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 200, 0, true, false},
		"te and cl":          {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 0, 0, false, true},
		"bad status":         {"GET", "HTTP/1.1 20x OK\r\n\r\n", 0, 0, false, true},
		"status too long":    {"GET", "HTTP/1.1 2000 OK\r\n\r\n", 0, 0, false, true},
		"switching":          {"GET", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 0, 0, false, true},
		"control in reason":  {"GET", "HTTP/1.1 200 O\x01K\r\n\r\n", 0, 0, false, true},
		"interim for ever":   {"GET", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 9), 0, 0, false, true},
		"not http":           {"GET", "SSH-2.0-OpenSSH_9.2p1\r\n\r\n", 0, 0, false, true},
		"fold":               {"GET", "HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n", 0, 0, false, true},
		"two equal lengths":  {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 0, 0, false, true},
		"cut":                {"GET", "HTTP/1.1 200 OK\r\nContent-", 0, 0, false, true},
		"nothing":            {"GET", "", 0, 0, false, true},
		"bare lf everywhere": {"GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", 0, 0, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			var r Response
			err := NewReader(strings.NewReader(c.in)).Response(&r, []byte(c.method))
			if (err != nil) != c.err {
				t.Fatalf("got %v, want error %v", err, c.err)
			}
			if err != nil {
				return
			}
			if r.Status != c.status || r.Length != c.length || r.Close != c.close {
				t.Errorf("got %+v", r)
			}
			var back Response
			if err := back.ParseCompact(r.AppendCompact(nil)); err != nil || back.Status != r.Status || back.Length != r.Length || string(back.Reason) != string(r.Reason) {
				t.Errorf("compact form gives %+v, %v", back, err)
			}
		})
	}
}

func TestAppendResponse(t *testing.T) {
	r := Response{Status: 200, Reason: []byte("OK"), Length: Chunked}
	r.Add("Content-Type", []byte("text/plain"))
	for name, c := range map[string]struct {
		f       Framing
		length  int64
		want    string
		chunked bool
	}{
		"chunked":    {Framing{Method: []byte("GET")}, Chunked, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n", true},
		"to 1.0":     {Framing{Method: []byte("GET"), HTTP10: true, Close: true}, Chunked, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n", false},
		"known":      {Framing{Method: []byte("GET")}, 7, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\n", false},
		"empty":      {Framing{Method: []byte("GET")}, 0, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n", false},
		"head":       {Framing{Method: []byte("HEAD")}, 7, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\n", false},
		"head, long": {Framing{Method: []byte("HEAD")}, Chunked, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", false},
		"kept, 1.0":  {Framing{Method: []byte("GET"), HTTP10: true}, 7, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\nConnection: keep-alive\r\n\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			r.Length = c.length
			got, chunked := AppendResponse(nil, &r, c.f)
			if string(got) != c.want || chunked != c.chunked {
				t.Errorf("got %q, %v", got, chunked)
			}
		})
	}
	if got := string(AppendChunk(nil, []byte("hello world, hello"))); got != "12\r\nhello world, hello\r\n" {
		t.Errorf("chunk %q", got)
	}
}
