package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/opencmg/cmg/web"
)

// A page is a log that tests read while it is written.
type page struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

// line gives the line about a request, nil while there is none.
func (p *page) line(id string) (m map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range strings.Lines(p.b.String()) {
		var x map[string]any
		if json.Unmarshal([]byte(l), &x) == nil && x["request"] == id {
			return x
		}
	}
	return nil
}

func logTo(p *page, rate float64) func(*Gateway) {
	return func(g *Gateway) {
		g.requestLog = web.NewRequestLog(slog.New(slog.NewJSONHandler(p, nil)), web.RequestLogConfig{Rate: rate})
	}
}

const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestRequestLog(t *testing.T) {
	var log page
	var inside sync.Map
	r, _ := start(t, func(q *request) {
		inside.Store(q.field("CMG-Request-Id"), q.field("Traceparent")+q.field("traceparent"))
		q.answer(map[bool]int{true: 503, false: 200}[strings.HasSuffix(string(q.head.Path), "bad")], []byte("12345"))
	}, logTo(&log, 1))
	for _, h2 := range []bool{false, true} {
		c := r.client(&r.site.device, h2)
		for _, row := range []struct {
			path    string
			status  int
			message string
			passes  bool
		}{{"/any/x?secret=1", 200, "request", true}, {"/any/bad", 503, "request", true}, {"/nothing", 403, "refused", false}} {
			t.Run(fmt.Sprint(row.path, h2), func(t *testing.T) {
				q := r.request("GET", row.path, nil)
				q.Header.Set("Traceparent", trace)
				resp, body := do(t, c, q)
				id := resp.Header.Get(web.RequestIDHeader)
				var l map[string]any
				eventually(t, "the line is there", func() bool { l = log.line(id); return l != nil })
				path, _, _ := strings.Cut(row.path, "?")
				for k, want := range map[string]any{"msg": row.message, "status": float64(row.status), "path": path, "method": "GET", "traceparent": trace} {
					if l[k] != want {
						t.Errorf("%s is %v, want %v", k, l[k], want)
					}
				}
				if got, passed := inside.Load(id); passed != row.passes || passed && got != trace {
					t.Errorf("the inside saw %v, %v", got, passed)
				}
				if row.passes && (l["caller"] != string(deviceID) || l["connection_point"] != "cp-1" || l["endpoint"] != "any") {
					t.Errorf("line %v", l)
				}
				if l["response_bytes"].(float64) < float64(len(body)) || l["request_bytes"].(float64) < 50 {
					t.Errorf("line %v", l)
				}
			})
		}
	}
}

// TestRequestLogUnsampled wants refusals and 5xx logged without samples, with
// the trace even so.
func TestRequestLogUnsampled(t *testing.T) {
	var log page
	r, _ := start(t, func(q *request) {
		q.answer(map[bool]int{true: 503, false: 200}[strings.HasSuffix(string(q.head.Path), "bad")], nil)
	}, logTo(&log, -1))
	c := r.client(&r.site.device, false)
	get := func(path string) string {
		q := r.request("GET", path, nil)
		q.Header = http.Header{"Traceparent": {trace}}
		resp, _ := do(t, c, q)
		return resp.Header.Get(web.RequestIDHeader)
	}
	good, bad, refused := get("/any/x"), get("/any/bad"), get("/nothing")
	eventually(t, "the lines are there", func() bool { return log.line(bad) != nil && log.line(refused) != nil })
	if log.line(good) != nil || log.line(bad)["traceparent"] != trace || log.line(bad)["level"] != "WARN" || log.line(refused)["traceparent"] != trace {
		t.Errorf("%v\n%v\n%v", log.line(good), log.line(bad), log.line(refused))
	}
}
