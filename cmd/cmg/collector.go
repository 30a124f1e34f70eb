package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// A process of the data path holds little and makes much garbage. Collecting
// each time the heap has doubled would take it a sixth of its time; it may
// gather garbageRoom bytes instead. Once it holds as much as that itself, such
// as for parked clients, the collector is back at its usual pace.
const (
	garbageRoom = 64 << 20
	usualPace   = 100 // percent of growth between two collections, as GOGC has it
	slowestPace = 800
	paceTick    = time.Second
)

// easeCollector sets the collector's pace until stop, which waits. GOGC, where
// set, stands.
func easeCollector(lookup func(string) (string, bool)) (stop func()) {
	if s, ok := lookup("GOGC"); ok && s != "" {
		return func() {}
	}
	before := debug.SetGCPercent(slowestPace)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { followHeap(ctx) })
	return func() {
		cancel()
		wg.Wait()
		debug.SetGCPercent(before)
	}
}

func followHeap(ctx context.Context) {
	tick := time.NewTicker(paceTick)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for set := slowestPace; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(live)
		// To set it stops the world for a moment: not for a trifle.
		if p := pace(live[0].Value.Uint64()); p < set-set/8 || p > set+set/8 {
			set = p
			debug.SetGCPercent(p)
		}
	}
}

// pace is how much the heap may grow, in percent, when so many bytes of it are
// in use.
func pace(live uint64) int {
	if live == 0 {
		return slowestPace
	}
	return int(max(usualPace, min(slowestPace, usualPace*garbageRoom/live)))
}
