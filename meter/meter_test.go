package meter

import (
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSum(t *testing.T) {
	s := NewSum()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			at := Pick()
			for range 1000 {
				s.Add(at, 3)
			}
		})
	}
	wg.Wait()
	if n := s.Load(); n != 24000 {
		t.Errorf("%d, want 24000", n)
	}
	for range 1000 {
		if at := Pick(); int(at) >= Shards() {
			t.Fatalf("shard %d of %d", at, Shards())
		}
	}
}

// TestTake wants nothing lost between whoever adds and whoever takes.
func TestTake(t *testing.T) {
	var tally Tally
	var got Traffic
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10000 {
			tally.Add(1, 2, 3)
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		got = got.Plus(tally.Take())
	}
	if want := (Traffic{10000, 20000, 30000}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestLatency(t *testing.T) {
	var a, b Latency
	a.Observe(500 * time.Microsecond)
	a.Observe(501 * time.Microsecond)
	b.Observe(20 * time.Minute)
	h := SumLatency(&a, nil, &b)
	if h.Count != 3 || h.Upto[0.0005] != 1 || h.Upto[0.001] != 2 || h.Upto[30] != 2 || h.Seconds < 1200 || h.Seconds > 1201 {
		t.Errorf("%+v", h)
	}
}

func TestHandler(t *testing.T) {
	plain := &Family{Name: "cmg_test_total", Kind: Counter, Help: "Counts tests.", Labels: []string{"of"}}
	took := &Family{Name: "cmg_test_seconds", Kind: Durations, Help: "Times tests."}
	var l Latency
	l.Observe(2 * time.Millisecond)
	srv := httptest.NewServer(Handler([]*Family{plain, took}, func(e *Emit) {
		e.Value(plain, 7, `a"b`)
		e.Histogram(took, SumLatency(&l))
	}))
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# HELP cmg_test_total Counts tests.", `cmg_test_total{of="a\"b"} 7`, `cmg_test_seconds_bucket{le="0.001"} 0`, `cmg_test_seconds_bucket{le="0.0025"} 1`, "go_goroutines "} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in\n%.2000s", want, b)
		}
	}
	if d := Document([]*Family{plain}); !strings.Contains(d, "| `cmg_test_total` | counter | `of` | Counts tests. |") {
		t.Error(d)
	}
}
