package gateway

import (
	"log/slog"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/web"
)

// logRequest tells the log of a request that is over: of every refusal and
// every 5xx, and of a sample of the others. The query is left out, for a
// client may put secrets there.
func (x *exchange) logRequest(in int64) {
	b := &x.bill
	status := 0
	if x.begun {
		status = x.res.Status
	}
	if b.refusal == nil && status < 500 && !x.g.requestLog.Sample(x.id) {
		return
	}
	trace := b.trace
	if b.inward {
		trace = traceParent(x.head)
	}
	l := web.RequestLine{Message: "request", Attrs: []slog.Attr{slog.String("request", x.id), slog.Int("status", status),
		slog.String("from", x.remote), slog.String("method", x.method), slog.String("path", string(x.path))}}
	more := func(a ...slog.Attr) { l.Attrs = append(l.Attrs, a...) }
	if r := b.refusal; r != nil {
		l.Message = "refused"
		more(slog.String("code", r.Code), slog.String("why", r.Why), slog.Any("err", r.Err))
		more(cmg.Evidence(r.Code, b.evidence)...)
	}
	if status >= 500 {
		l.Level = slog.LevelWarn
	}
	if x.route != nil {
		more(slog.String("endpoint", x.route.Name))
	}
	if b.caller != nil {
		more(slog.String("caller", b.caller.key), slog.String("proof", proofNames[b.proof]))
	}
	if b.point != nil {
		more(slog.String("connection_point", b.point.name))
	}
	if trace != "" {
		more(slog.String("traceparent", trace))
	}
	more(slog.Int64("request_bytes", in), slog.Int64("response_bytes", b.sent), slog.Float64("ms", float64(b.took.Microseconds())/1000))
	x.g.requestLog.Put(l)
}

const maxTrace = 128

// traceOf finds the trace context a client sent (W3C Trace Context, 3.2).
func traceOf(fields []h1.Field) string {
	for i := range fields {
		if f := &fields[i]; strings.EqualFold(string(f.Name), "traceparent") {
			return string(f.Value[:min(len(f.Value), maxTrace)])
		}
	}
	return ""
}

func traceParent(head []byte) string {
	var r h1.Request
	if r.ParseCompact(head) != nil {
		return ""
	}
	return traceOf(r.Fields)
}
