package connectionpoint

import "testing"

func TestRequestLine(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for text, want := range map[string][3]string{
		"GET /a/b?secret=1 HTTP/1.1\r\nHost: h\r\ntraceParent: " + trace + "\r\n\r\n": {"GET", "/a/b", trace},
		"POST / HTTP/1.1\r\nHost: h\r\n\r\ntraceparent: body\r\n":                     {"POST", "/", ""},
		"": {"", "", ""},
	} {
		m, p, tr := requestLine([]byte(text))
		if got := [3]string{m, p, tr}; got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
