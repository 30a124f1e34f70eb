package gateway

import (
	"context"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
)

// How short memory is. Each step does what those before it do.
const (
	memoryFine  = iota
	memoryTight // connections end behind their answer, and no request is parked that may be sent again
	memoryShort // no connection is taken
	memoryOut   // requests parked longest are ended, if they may be sent again
)

// memorySteps are the shares of the limit at which the steps begin, in
// percent.
var memorySteps = [...]int64{memoryTight: 85, memoryShort: 92, memoryOut: 95}

const memoryTick = 250 * time.Millisecond

// A memoryGuard compares what the process holds with its limit (GOMEMLIMIT,
// which cmg derives from the control group). Requests look at one number.
type memoryGuard struct {
	limit int64 // bytes; 0: none
	used  func() int64
	at    atomic.Int32
	ended atomic.Int64 // parked requests
}

func newMemoryGuard() *memoryGuard {
	m := &memoryGuard{used: memoryHeld}
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 {
		m.limit = limit
	}
	return m
}

// memoryHeld is what a collection could not give back: garbage that waits
// for one does not make memory short.
func memoryHeld() (n int64) {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	for i := range s {
		if v := s[i].Value; v.Kind() == metrics.KindUint64 {
			if i < 2 {
				n += int64(v.Uint64())
			} else {
				n -= int64(v.Uint64())
			}
		}
	}
	return n
}

func (m *memoryGuard) level() int { return int(m.at.Load()) }

// guardMemory looks until ctx ends.
func (g *Gateway) guardMemory(ctx context.Context) {
	m := g.memory
	if m.limit == 0 {
		return
	}
	tick := time.NewTicker(memoryTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		used, level := m.used(), memoryFine
		for step, share := range memorySteps {
			if step > memoryFine && used >= m.limit/100*share {
				level = step
			}
		}
		if was := int(m.at.Swap(int32(level))); was != level {
			log := g.log.Info
			if level > was {
				log = g.log.Warn
			}
			log("memory", "step", level, "held", used, "limit", m.limit)
		}
		if level == memoryOut {
			m.ended.Add(int64(g.clients.unparkLongest()))
		}
	}
}

// unparkLongest ends the tenth of the parked requests that wait longest, at
// least sixteen.
func (cs *clients) unparkLongest() (n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	type parked struct {
		c     *client
		since int64
	}
	var all []parked
	for c := range cs.open {
		if t := c.since.Load(); t != 0 {
			all = append(all, parked{c, t})
		}
	}
	slices.SortFunc(all, func(a, b parked) int { return int(max(-1, min(1, a.since-b.since))) })
	most := max(16, len(all)/10)
	for _, p := range all {
		if n == most {
			break
		}
		if p.c.unpark() {
			n++
		}
	}
	return n
}

// harmless says that a request may be sent again whatever became of it.
func (x *exchange) harmless() bool {
	switch x.method {
	case "GET", "HEAD", "OPTIONS", "PROPFIND":
		return true
	}
	return x.route != nil && x.route.Idempotent
}

func errMemory() error {
	return cmg.Refuse(503, "CMGService_Memory_Short", "this gateway is short of memory and cannot hold requests that wait", nil)
}
