package gate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestGateClasses fills a gate and sees who comes in next.
func TestGateClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Limit: 20, Reserve: true})
		ctx := context.Background()
		for i := range 14 {
			if err := g.Enter(ctx, cmg.ClassBulk); err != nil {
				t.Fatal(i, err)
			}
		}
		order := make(chan cmg.Class, 100)
		var wg sync.WaitGroup
		wait := func(c cmg.Class) {
			wg.Go(func() {
				if g.Enter(ctx, c) == nil {
					order <- c
				}
			})
			synctest.Wait()
		}
		wait(cmg.ClassBulk) // beyond its share: waits
		for range 4 {
			wait(cmg.ClassState) // 16 may be inside for these: two wait
		}
		for range 2 {
			wait("") // 18: in
		}
		for range 2 {
			wait(cmg.ClassRegistration) // 20: in
		}
		if n := g.inside.Load(); n != 20 || len(order) != 6 {
			t.Errorf("%d are inside, %d were let in at once", n, len(order))
		}
		for range 6 {
			<-order
		}
		wait("")
		for range 3 {
			g.Leave() // 17 stay, and one of the first classes comes
		}
		synctest.Wait()
		if c := <-order; c != "" || len(order) != 0 {
			t.Errorf("%q came in, then %d more", c, len(order))
		}
		time.Sleep(3 * time.Second) // the others lose patience
		wg.Wait()
		if len(order) != 0 || g.waiting.Load() != 0 || g.late.Load() != 3 {
			t.Errorf("%d let in, %d wait, %d refused", len(order), g.waiting.Load(), g.late.Load())
		}
		for range g.inside.Load() {
			g.Leave()
		}
		if g.inside.Load() != 0 {
			t.Error("somebody is still inside")
		}
	})
}

// TestGateStorm wants nobody lost and never too many inside.
func TestGateStorm(t *testing.T) {
	g := New(Config{Limit: 5})
	var now, most, in, out atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i%20)*time.Millisecond)
			defer cancel()
			for range 20 {
				if g.Enter(ctx, cmg.ClassState) != nil {
					out.Add(1)
					continue
				}
				in.Add(1)
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				now.Add(-1)
				g.Leave()
			}
		})
	}
	wg.Wait()
	if most.Load() > 5 || g.inside.Load() != 0 || g.waiting.Load() != 0 || in.Load()+out.Load() != 4000 || in.Load() == 0 {
		t.Errorf("at most %d at once, %d inside, %d waiting, %d + %d of 4000", most.Load(), g.inside.Load(), g.waiting.Load(), in.Load(), out.Load())
	}
}

// TestGateNewestFirst keeps a queue from ever being empty: from then on the
// newest goes first, and whoever has waited for long is turned away at once.
func TestGateNewestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Limit: 1, Queue: 100, Patience: 2 * time.Second})
		ctx := context.Background()
		if err := g.Enter(ctx, ""); err != nil {
			t.Fatal(err)
		}
		type end struct {
			who int
			err error
		}
		ends := make(chan end, 100)
		var wg sync.WaitGroup
		join := func(who int) {
			wg.Go(func() { ends <- end{who, g.Enter(ctx, "")} })
			synctest.Wait()
		}
		next := func() end {
			synctest.Wait()
			return <-ends
		}
		join(1)
		join(2)
		g.Leave()
		if e := next(); e != (end{1, nil}) {
			t.Errorf("in normal times %v", e)
		}
		time.Sleep(510 * time.Millisecond) // 2 waits, and the queue was not empty since
		join(3)
		time.Sleep(10 * time.Millisecond)
		join(4)
		if !g.Stats().Pressure {
			t.Error("no pressure is seen")
		}
		g.Leave()
		got := map[int]error{}
		for range 2 {
			e := next()
			got[e.who] = e.err
		}
		if !errors.Is(got[2], ErrLate) || got[4] != nil || g.Waiting() != 1 {
			t.Errorf("under pressure: %v, %d wait", got, g.Waiting())
		}
		g.Leave()
		if e := next(); e != (end{3, nil}) {
			t.Errorf("then %v", e)
		}
		g.Leave()
		wg.Wait()
		if s := g.Stats(); s.Inside != 0 || s.Waiting != 0 || s.Late != 1 || s.Full != 0 || s.Queued != 4 || s.Pressure {
			t.Errorf("%+v", s)
		}
	})
}

// TestGateDisplaces fills the queue: a newcomer takes the place of the worst
// class's oldest, and one that is worse than all gets none.
func TestGateDisplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Limit: 1, Queue: 2})
		ctx := context.Background()
		if err := g.Enter(ctx, cmg.ClassState); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var bulk, state, first atomic.Value
		join := func(c cmg.Class, into *atomic.Value) {
			wg.Go(func() {
				if err := g.Enter(ctx, c); err != nil {
					into.Store(err)
				}
			})
			synctest.Wait()
		}
		join(cmg.ClassBulk, &bulk)
		join(cmg.ClassState, &state)
		join(cmg.ClassRegistration, &first)
		if bulk.Load() != ErrFull || state.Load() != nil || first.Load() != nil {
			t.Errorf("bulk %v, state %v, registration %v", bulk.Load(), state.Load(), first.Load())
		}
		if err := g.Enter(ctx, cmg.ClassBulk); !errors.Is(err, ErrFull) {
			t.Errorf("the worst comes last: %v", err)
		}
		for range 3 {
			g.Leave()
			synctest.Wait()
		}
		wg.Wait()
		if s := g.Stats(); s.Inside != 0 || s.Full != 2 || state.Load() != nil || first.Load() != nil {
			t.Errorf("%+v", s)
		}
	})
}

// TestGateEnds has those who wait go away.
func TestGateEnds(t *testing.T) {
	g := New(Config{Limit: 1})
	ctx, cancel := context.WithCancel(t.Context())
	if err := g.Enter(ctx, ""); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := g.Enter(ctx, ""); !errors.Is(err, context.Canceled) || g.Waiting() != 0 {
		t.Errorf("%v, %d wait", err, g.Waiting())
	}
	g.Leave()
	g.SetLimit(0)
	if g.TryEnter("") {
		t.Error("there is no room at all")
	}
	var none *Gate
	if err := none.Enter(ctx, ""); err != nil {
		t.Error(err)
	}
	none.Leave()
}

// TestAdapter serves with a capacity of ten: what is inside beyond that only
// makes all slower. The limit settles near it.
func TestAdapter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Config{Limit: 200, Queue: 1000})
		a := NewAdapter(g, 2, 500, 30*time.Millisecond)
		var wg sync.WaitGroup
		var stop atomic.Bool
		slots := make(chan struct{}, 10)
		for range 300 {
			wg.Go(func() {
				for !stop.Load() {
					if g.Enter(t.Context(), "") != nil {
						continue
					}
					began := time.Now()
					slots <- struct{}{}
					time.Sleep(10 * time.Millisecond)
					<-slots
					a.Observe(time.Since(began), time.Now())
					g.Leave()
				}
			})
		}
		time.Sleep(20 * time.Second)
		if n := g.Limit(); n < 10 || n > 60 {
			t.Errorf("the limit is %d", n)
		}
		stop.Store(true)
		wg.Wait()
	})
}

func BenchmarkGate(b *testing.B) {
	g := New(Config{Limit: 100, Reserve: true})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if g.Enter(ctx, cmg.ClassState) != nil {
			b.Fatal("refused")
		}
		g.Leave()
	}
}
