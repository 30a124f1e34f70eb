package connectionpoint

import (
	"bytes"
	"log/slog"
	"time"

	"github.com/opencmg/cmg/web"
)

// logRequest tells the log of a request that is over: of every failure and
// every 5xx, and of a sample of the others, the same that a gateway with the
// same rate logs. What it tells of the request was sent to the server, and
// stands in r.out. The query is left out: a client may put secrets there.
func (r *relay) logRequest(err error) {
	if r.id == "" && err == nil || err == nil && r.status < 500 && !r.p.requestLog.Sample(r.id) {
		return
	}
	l := web.RequestLine{Message: "request", Attrs: []slog.Attr{slog.String("request", r.id), slog.Int("status", r.status)}}
	if err != nil || r.status >= 500 {
		l.Level = slog.LevelWarn
	}
	if err != nil {
		l.Message = "request failed"
		l.Attrs = append(l.Attrs, slog.Any("err", err))
	}
	if r.row != nil {
		method, path, trace := requestLine(r.out)
		l.Attrs = append(l.Attrs, slog.String("method", method), slog.String("path", path), slog.String("endpoint", r.row.endpoint),
			slog.String("gateway", r.row.gateway), slog.String("target", r.row.target))
		if trace != "" {
			l.Attrs = append(l.Attrs, slog.String("traceparent", trace))
		}
	}
	l.Attrs = append(l.Attrs, slog.Int64("request_bytes", r.sent), slog.Int64("response_bytes", r.received),
		slog.Float64("ms", float64(time.Since(r.begun).Microseconds())/1000))
	r.p.requestLog.Put(l)
}

const maxTrace = 128

// requestLine reads from the text of a request that this process wrote.
func requestLine(text []byte) (method, path, trace string) {
	line, rest, _ := bytes.Cut(text, []byte("\r\n"))
	m, target, _ := bytes.Cut(line, []byte(" "))
	target, _, _ = bytes.Cut(target, []byte(" "))
	target, _, _ = bytes.Cut(target, []byte("?"))
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if len(line) == 0 {
			break // the body begins
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("traceparent")) {
			value = bytes.TrimSpace(value)
			trace = string(value[:min(len(value), maxTrace)])
		}
	}
	return string(m), string(target), trace
}
