package web

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func TestAnswerAndBack(t *testing.T) {
	inner := errors.New("open /var/lib/secret: permission denied")
	for _, test := range []struct {
		name   string
		err    error
		status int
		code   string // in the header
		body   string
		back   string // the error that ReadAnswer makes of it
	}{
		{"refusal", cmg.Refuse(401, "CMGService_Invalid_Token", "the token expired", inner), 401, "CMGService_Invalid_Token",
			"CMGService_Invalid_Token: the token expired", "CMGService_Invalid_Token: the token expired"},
		{"refusal inside", fmt.Errorf("register: %w", cmg.Refuse(403, "CMGSite_Blocked", "blocked", nil)), 403, "CMGSite_Blocked", "CMGSite_Blocked: blocked", "CMGSite_Blocked: blocked"},
		{"refusal that would break the header", cmg.Refuse(400, "Bad\r\nSet-Cookie: x", "why\r\nnot\x00", nil), 400, "BadSetCookiex", "BadSetCookiex: why  not", "BadSetCookiex: why  not"},
		{"kind", fmt.Errorf("package LAB1: %w: %w", inner, cmg.ErrNotFound), 404, "", "not found", "NotFound: not found"},
		{"fault", inner, 500, "", "internal server error", "InternalServerError: internal server error"},
		{"body too large", fmt.Errorf("read: %w", &http.MaxBytesError{Limit: 5}), 413, "", "request entity too large", "RequestEntityTooLarge: request entity too large"},
		{"unavailable", cmg.ErrUnavailable, 503, "", "service unavailable", "ServiceUnavailable: service unavailable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "99")
				w.Header().Set("Etag", `"x"`)
				Answer(w, test.err)
			}))
			defer srv.Close()
			resp, body := get(t, srv.Client(), "GET", srv.URL)
			if resp.StatusCode != test.status || resp.Header.Get(RefusalHeader) != test.code || body != test.body {
				t.Errorf("got %d %q %q, want %d %q %q", resp.StatusCode, resp.Header.Get(RefusalHeader), body, test.status, test.code, test.body)
			}
			if resp.Header.Get("Etag") != "" || resp.Header.Get("Set-Cookie") != "" || (resp.StatusCode == 401) != (resp.Header.Get("Www-Authenticate") != "") {
				t.Errorf("headers %v", resp.Header)
			}
			resp.Body = io.NopCloser(strings.NewReader(body))
			err := ReadAnswer(resp)
			if err == nil || err.Error() != test.back {
				t.Errorf("back: %v, want %s", err, test.back)
			}
			if cmg.StatusOf(err) != test.status || cmg.KindOf(test.status) != nil && !errors.Is(err, cmg.KindOf(test.status)) {
				t.Errorf("back: status %d, want %d", cmg.StatusOf(err), test.status)
			}
		})
	}
	rec := httptest.NewRecorder()
	if Answer(rec, nil); rec.Body.Len() > 0 || len(rec.Header()) > 0 {
		t.Error("no error was answered")
	}
}

func TestReadAnswerOfOthers(t *testing.T) {
	long := strings.Repeat("x", 10*maxWhy)
	for _, test := range []struct {
		name, status, kind, body string
		want                     string
	}{
		{"fine", "200 OK", "", "", ""},
		{"not modified", "304 Not Modified", "", "", ""},
		{"reason of the gateway", "403 CMGService_Certificate_Expired", "text/plain", "expired in May", "CMGService_Certificate_Expired: expired in May"},
		{"reason with blanks", "502 Bad Gateway", "text/html", "<h1>no</h1>", "BadGateway: bad gateway"},
		{"no reason", "418 ", "text/plain", "", "HTTP_418: i'm a teapot"},
		{"unknown status", "599", "", "", "HTTP_599: "},
		{"long", "500 x", "text/plain", long, "x: " + long[:maxWhy]},
		{"control characters", "500 x", "text/plain", "a\x1b[2Jb\r\nc\xff", "x: a [2Jb  c?"},
	} {
		t.Run(test.name, func(t *testing.T) {
			resp := &http.Response{Status: test.status, Header: http.Header{"Content-Type": {test.kind}}, Body: io.NopCloser(strings.NewReader(test.body))}
			fmt.Sscan(test.status, &resp.StatusCode)
			got := ""
			if err := ReadAnswer(resp); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
