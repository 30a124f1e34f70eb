package web

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func TestRequestLogSamples(t *testing.T) {
	for rate, want := range map[float64]int{0: 1000, 0.01: 1000, 0.5: 50000, 1: 100000, -1: 0} {
		a, b := NewRequestLog(nil, RequestLogConfig{Rate: rate}), NewRequestLog(nil, RequestLogConfig{Rate: rate})
		n := 0
		for i := range 100000 {
			id := "c5ecnccu-" + strconv.FormatUint(uint64(i), 36)
			if a.Sample(id) != b.Sample(id) {
				t.Fatal("two roles take different samples")
			}
			if a.Sample(id) {
				n++
			}
		}
		if d := n - want; d < -want/5 || d > want/5 {
			t.Errorf("rate %v: %d of 100,000, want about %d", rate, n, want)
		}
	}
	for _, rate := range []float64{1.1, math.NaN()} {
		if err := (RequestLogConfig{Rate: rate}).Check(); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("rate %v is taken", rate)
		}
	}
}

// TestRequestLogNeverBlocks fills it while nobody writes.
func TestRequestLogNeverBlocks(t *testing.T) {
	var out bytes.Buffer
	r := NewRequestLog(slog.New(slog.NewTextHandler(&out, nil)), RequestLogConfig{})
	for i := range pendingLines + 7 {
		r.Put(RequestLine{Message: "request", Attrs: []slog.Attr{slog.Int("n", i)}})
	}
	if r.Dropped() != 7 {
		t.Errorf("%d dropped, want 7", r.Dropped())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Run(ctx) // what waits is written before it ends
	if n := strings.Count(out.String(), "msg=request"); n != pendingLines || r.Written() != int64(n) {
		t.Errorf("%d lines, %d counted, want %d", n, r.Written(), pendingLines)
	}
}
