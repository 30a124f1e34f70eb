package web

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"

	"github.com/opencmg/cmg"
)

// RequestIDHeader holds the id of a request, the same at every hop and in
// every log.
const RequestIDHeader = "CMG-Request-Id"

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewRequestID makes a request id: 16 random bytes in base32, 26 characters
// in lower case.
func NewRequestID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return base32Lower.EncodeToString(b[:])
}

// plausibleID keeps ids from outside out of the log that are none.
func plausibleID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) < 0
}

// Log gives l, or a silent logger for nil.
func Log(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// Handler makes an http.Handler of f. An error that f returns becomes the
// answer (see Answer) and one log line; where the answer has begun already,
// the connection is cut, so that nobody takes a part for the whole. A panic
// is answered with 500 and logged with its stack. Every request has an id: its
// own, if that is plausible, or a new one; f finds it in the request's header
// and the client in the answer's.
func Handler(log *slog.Logger, f func(http.ResponseWriter, *http.Request) error) http.Handler {
	log = Log(log)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get(RequestIDHeader)
		if !plausibleID(id) {
			id = NewRequestID()
			r.Header.Set(RequestIDHeader, id)
		}
		w.Header().Set(RequestIDHeader, id)
		rec := &recorder{ResponseWriter: w}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler { // a wish, not a fault
				panic(p)
			}
			log.LogAttrs(r.Context(), slog.LevelError, "request panicked", append(attributes(r, id),
				slog.Any("panic", p), slog.String("stack", string(debug.Stack())))...)
			rec.fail(errPanic)
		}()
		err := f(rec, r)
		if err == nil {
			return
		}
		logRefusal(log, r, id, err)
		rec.fail(err)
	})
}

var errPanic = errors.New("the handler panicked")

// attributes never include the query: signed URLs are secrets.
func attributes(r *http.Request, id string) []slog.Attr {
	return []slog.Attr{
		slog.String("request", id),
		slog.String("method", r.Method),
		slog.String("path", r.URL.Path),
	}
}

func logRefusal(log *slog.Logger, r *http.Request, id string, err error) {
	status := statusOf(err)
	level := slog.LevelInfo
	switch {
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		level = slog.LevelDebug // the client went away
	case status >= http.StatusInternalServerError:
		level = slog.LevelError
	}
	as := append(attributes(r, id), slog.Int("status", status), slog.String("err", err.Error()))
	var refusal *cmg.Refusal
	if errors.As(err, &refusal) {
		as = append(as, cmg.Evidence(refusal.Code, refusal.Facts)...)
	}
	log.LogAttrs(r.Context(), level, "request refused", as...)
}

// recorder knows whether the answer has begun.
type recorder struct {
	http.ResponseWriter
	begun bool
}

func (w *recorder) WriteHeader(status int) {
	// 1xx comes before the answer; 101 is one (RFC 9110 section 15.2).
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.begun = true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// ReadFrom keeps the server's way of sending a file without copying it.
func (w *recorder) ReadFrom(r io.Reader) (int64, error) {
	w.begun = true
	return io.Copy(w.ResponseWriter, r)
}

// Flush is for handlers that ask for an http.Flusher.
func (w *recorder) Flush() {
	w.begun = true
	http.NewResponseController(w.ResponseWriter).Flush() // not supported: nothing to flush
}

// Unwrap is for http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) fail(err error) {
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	Answer(w.ResponseWriter, err)
}
