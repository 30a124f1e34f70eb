package main

import (
	"runtime/debug"
	"testing"
)

func TestPace(t *testing.T) {
	for live, want := range map[uint64]int{0: 800, 1 << 20: 800, 8 << 20: 800, 16 << 20: 400, 32 << 20: 200, 64 << 20: 100, 1 << 30: 100} {
		if got := pace(live); got != want {
			t.Errorf("pace(%d) = %d, want %d", live, got, want)
		}
	}
}

func TestEaseCollector(t *testing.T) {
	before := debug.SetGCPercent(90)
	defer debug.SetGCPercent(before)
	now := func() int {
		p := debug.SetGCPercent(-1)
		debug.SetGCPercent(p)
		return p
	}
	stop := easeCollector(func(string) (string, bool) { return "", false })
	if got := now(); got != slowestPace {
		t.Errorf("the pace is %d at first, want %d", got, slowestPace)
	}
	if stop(); now() != 90 {
		t.Errorf("the pace is %d afterwards, want 90", now())
	}
	easeCollector(func(string) (string, bool) { return "100", true })()
	if got := now(); got != 90 {
		t.Errorf("the pace went to %d although GOGC is set", got)
	}
}
