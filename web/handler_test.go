package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func TestNewRequestID(t *testing.T) {
	a, b := NewRequestID(), NewRequestID()
	if a == b || !regexp.MustCompile(`^[a-z2-7]{26}$`).MatchString(a) || !plausibleID(a) {
		t.Errorf("got %q and %q", a, b)
	}
}

// serve runs one handler behind a real server and gives what it logged.
func serve(t *testing.T, f func(http.ResponseWriter, *http.Request) error) (*httptest.Server, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer // read only after the server is closed
	srv := httptest.NewUnstartedServer(Handler(slog.New(slog.NewTextHandler(&log, nil)), f))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv, &log
}

func TestHandler(t *testing.T) {
	for _, test := range []struct {
		name   string
		f      func(http.ResponseWriter, *http.Request) error
		status int // 0: the connection is cut
		body   string
		lines  int
		logged string
	}{
		{"fine", func(w http.ResponseWriter, _ *http.Request) error { _, err := io.WriteString(w, "hello"); return err }, 200, "hello", 0, ""},
		{"refused", func(http.ResponseWriter, *http.Request) error {
			return cmg.Refuse(403, "CMGSite_Blocked", "blocked", errors.New("row 7"))
		}, 403, "CMGSite_Blocked: blocked", 1, "row 7"},
		{"fault", func(http.ResponseWriter, *http.Request) error { return errors.New("disk") }, 500, "internal server error", 1, "level=ERROR"},
		{"panic", func(http.ResponseWriter, *http.Request) error { panic("oh") }, 500, "internal server error", 1, "handler_test.go"},
		{"fault in the middle", func(w http.ResponseWriter, _ *http.Request) error {
			io.WriteString(w, "half")
			http.NewResponseController(w).Flush()
			return errors.New("disk")
		}, 0, "", 1, "disk"},
		{"panic in the middle", func(w http.ResponseWriter, _ *http.Request) error {
			w.(http.Flusher).Flush()
			panic("oh")
		}, 0, "", 1, "oh"},
		{"fault in the middle of a copy", func(w http.ResponseWriter, _ *http.Request) error {
			w.(io.ReaderFrom).ReadFrom(strings.NewReader(strings.Repeat("x", 1<<20)))
			return errors.New("disk")
		}, 0, "", 1, "disk"},
		{"abort", func(http.ResponseWriter, *http.Request) error { panic(http.ErrAbortHandler) }, 0, "", 0, ""},
		{"early hints, then refused", func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(http.StatusEarlyHints)
			return cmg.ErrNotFound
		}, 404, "not found", 1, "status=404"},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv, log := serve(t, test.f)
			resp, err := srv.Client().Get(srv.URL + "/a/path?sig=secret")
			var body []byte
			if err == nil {
				body, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if test.status == 0 {
				if err == nil {
					t.Errorf("a part passes for the whole: %d, %d bytes", resp.StatusCode, len(body))
				}
			} else if err != nil || resp.StatusCode != test.status || strings.TrimSpace(string(body)) != test.body {
				t.Errorf("got %v %q, want %d %q", err, body, test.status, test.body)
			} else if !plausibleID(resp.Header.Get(RequestIDHeader)) {
				t.Errorf("request id %q", resp.Header.Get(RequestIDHeader))
			}
			srv.Close()
			if n := strings.Count(log.String(), "\n"); n != test.lines || !strings.Contains(log.String(), test.logged) || strings.Contains(log.String(), "secret") {
				t.Errorf("log, want %d lines with %q:\n%s", test.lines, test.logged, log)
			}
		})
	}
}

func TestHandlerRequestID(t *testing.T) {
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) error {
		_, err := io.WriteString(w, r.Header.Get(RequestIDHeader))
		return err
	})
	for sent, kept := range map[string]bool{"abc-123_X": true, "": false, "a b": false, strings.Repeat("x", 65): false, "é": false} {
		req := httptest.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
		req.RequestURI = ""
		req.Header.Set(RequestIDHeader, sent)
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		got := resp.Header.Get(RequestIDHeader)
		if string(body) != got || (got == sent) != kept || !plausibleID(got) {
			t.Errorf("sent %q: handler saw %q, answer says %q", sent, body, got)
		}
	}
}

func TestClientGoneIsNoFault(t *testing.T) {
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	h := Handler(slog.New(slog.NewTextHandler(&log, nil)), func(_ http.ResponseWriter, r *http.Request) error {
		cancel()
		return r.Context().Err()
	})
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
	if log.Len() > 0 {
		t.Errorf("logged: %s", &log)
	}
}

func TestLogOfNilIsSilent(t *testing.T) {
	Log(nil).Error("nobody hears")
	l := slog.Default()
	if Log(l) != l {
		t.Error("another logger came back")
	}
	h := Handler(nil, func(http.ResponseWriter, *http.Request) error { return cmg.ErrNotFound })
	rec := httptest.NewRecorder()
	if h.ServeHTTP(rec, httptest.NewRequest("GET", "/", nil)); rec.Code != 404 {
		t.Errorf("status %d", rec.Code)
	}
}
