package connectionpoint

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A fleet is the places that channels are held to, and the links to each.
// They change with the configuration.
type fleet struct {
	now  atomic.Pointer[[]*place] // that are wanted
	ever atomic.Pointer[[]*place] // by index, also those that are not wanted any more

	mu      sync.Mutex
	ctx     context.Context // of Run; nil: it has not begun
	running sync.WaitGroup
	ended   bool
}

// handoff is how long places that are not wanted any more are kept, so that
// those in their stead have channels first.
const handoff = 10 * time.Second

func (f *fleet) places() []*place { return *f.now.Load() }

func (f *fleet) links() (ls []*link) {
	for _, pl := range f.places() {
		ls = append(ls, pl.links...)
	}
	return ls
}

// plan makes the places of a configuration: those that are there already
// stay. Nothing is dialed.
func (f *fleet) plan(c Config, p *Point) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var old, ever, now []*place
	if f.now.Load() != nil {
		old, ever = *f.now.Load(), slices.Clone(*f.ever.Load())
	}
	for _, g := range c.Gateways {
		places, _ := g.places() // were checked by build
		for i, pl := range places {
			pl.key = fmt.Sprintf("%+v %d %d", struct {
				A, B, C, D, E string
				F             int
			}{g.Name, g.TCP, g.HTTPS, g.Service, g.Mode, g.Instances}, i, c.Connections)
			if k := slices.IndexFunc(old, func(o *place) bool { return o.key == pl.key && !slices.Contains(now, o) }); k >= 0 {
				now = append(now, old[k])
				continue
			}
			pl.index, pl.each, pl.seats, pl.news = len(ever), c.Connections, map[string]int{}, map[string]*news{}
			for i := range pl.want * pl.each {
				pl.links = append(pl.links, &link{p: p, place: pl, number: i})
			}
			ever, now = append(ever, pl), append(now, pl)
		}
	}
	f.ever.Store(&ever)
	f.now.Store(&now)
}

// begin dials, and goes on until ctx ends.
func (f *fleet) begin(ctx context.Context, p *Point) {
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	f.sail(p)
}

// sail starts the links of places that are new, and ends those of places that
// are not wanted any more.
func (f *fleet) sail(p *Point) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx == nil || f.ended {
		return
	}
	var fresh, gone []*place
	now := *f.now.Load()
	for _, pl := range *f.ever.Load() {
		switch wanted := slices.Contains(now, pl); {
		case wanted && pl.stop == nil:
			var ctx context.Context
			ctx, pl.stop = context.WithCancel(f.ctx)
			for _, l := range pl.links {
				f.running.Go(func() { l.keep(ctx) })
			}
			fresh = append(fresh, pl)
		case !wanted && pl.stop != nil && !pl.leaving:
			pl.leaving = true
			gone = append(gone, pl)
		}
	}
	if len(gone) > 0 {
		f.running.Go(func() { f.retire(fresh, gone) })
	}
	p.updateReadiness()
}

// retire ends gone once there is a channel to each of fresh.
func (f *fleet) retire(fresh, gone []*place) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(handoff); time.Now().Before(end) && slices.ContainsFunc(fresh, func(pl *place) bool { return pl.found() == 0 }); {
		select {
		case <-tick.C:
		case <-f.ctx.Done():
			end = time.Time{}
		}
	}
	for _, pl := range gone {
		pl.stop()
	}
}

// wait returns when every link has ended, after the fleet's context has.
func (f *fleet) wait() {
	<-f.ctx.Done()
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.running.Wait()
}
