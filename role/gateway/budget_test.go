package gateway

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A purse is a budget on a clock of the test's own.
type purse struct {
	*budget
	t    *testing.T
	dir  string
	conf BudgetConfig
	now  time.Time
	n    int64
}

func (p *purse) open() {
	p.t.Helper()
	p.n = 0
	p.budget = must[*budget](p.t)(openBudget(p.conf, slog.New(slog.DiscardHandler), p.dir, func() int64 { return p.n }, p.now))
}

// spend sends n bytes within a tick.
func (p *purse) spend(n int64) int {
	p.n += n
	p.now = p.now.Add(budgetTick)
	p.look(p.now)
	return p.state
}

func newPurse(t *testing.T, c BudgetConfig) *purse {
	c, err := c.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	p := &purse{t: t, dir: t.TempDir(), conf: c, now: time.Unix(1.7e9, 0)}
	p.open()
	return p
}

func TestBudgetStates(t *testing.T) {
	p := newPurse(t, BudgetConfig{Bytes: 1000, Window: time.Hour, Stop: true})
	for _, row := range []struct{ spend, state int }{{499, budgetFine}, {1, budgetWarn}, {399, budgetWarn}, {1, budgetCritical}, {99, budgetCritical}} {
		if got := p.spend(int64(row.spend)); got != row.state || p.refuse(false) != nil {
			t.Errorf("after %d of 1000: %s, refuses %v; want %s", p.n, budgetStates[got], p.refuse(false), budgetStates[row.state])
		}
	}
	if got := p.spend(1); got != budgetExhausted || p.refuse(false) == nil || p.refuse(true) != nil || !p.cuts(false) || p.cuts(true) {
		t.Errorf("at 1000: %s", budgetStates[got])
	}
	p.now = p.now.Add(30 * time.Minute)
	if p.spend(0) != budgetExhausted {
		t.Error("it is forgotten within its window")
	}
	p.now = p.now.Add(31 * time.Minute)
	if p.spend(0) != budgetFine || p.refuse(false) != nil {
		t.Error("it is remembered beyond its window")
	}
	p = newPurse(t, BudgetConfig{Bytes: 1000})
	if p.spend(5000) != budgetExhausted || p.refuse(false) != nil {
		t.Error("a budget that is only to be watched refuses")
	}
	if (*budget)(nil).refuse(false) != nil || (*budget)(nil).cuts(false) {
		t.Error("no budget refuses")
	}
}

// TestBudgetSurvives kills at every moment of a steady flow: the next run
// never knows less than was sent, nor much more.
func TestBudgetSurvives(t *testing.T) {
	for ticks := 1; ticks < 60; ticks++ {
		p := newPurse(t, BudgetConfig{Bytes: 1 << 30, Stop: true})
		for range ticks {
			p.spend(1 << 20)
		}
		sent := int64(ticks) << 20
		p.n += 1 << 20 // nobody has looked since
		p.open()       // without an end
		const rate = 4 << 20
		if got := p.used(); got < sent || got > sent+2*rate+p.conf.Bytes/1000 {
			t.Errorf("after %d ticks %d of %d bytes are known", ticks, got, sent)
		}
		p.now = p.now.Add(time.Hour)
		before := p.used()
		p.mu.Lock()
		p.save(p.now, true)
		p.mu.Unlock()
		if p.open(); p.used() != before {
			t.Errorf("a clean end changed %d to %d", before, p.used())
		}
	}
	p := newPurse(t, BudgetConfig{Bytes: 1000, Stop: true})
	p.spend(1000)
	if p.open(); p.refuse(false) == nil {
		t.Error("a restart makes good again")
	}
}

func TestBudgetFileIsNotGuessed(t *testing.T) {
	for _, text := range []string{"", "{", `{"slots":[{"at":1,"bytes":-5}]}`, strings.Repeat(" ", maxBudgetFile+1)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, budgetFileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openBudget(BudgetConfig{Bytes: 1, Window: time.Hour}, slog.New(slog.DiscardHandler), dir, func() int64 { return 0 }, time.Now()); err == nil {
			t.Errorf("%.30q was taken for a budget", text)
		}
	}
	for _, c := range []BudgetConfig{{Bytes: -1}, {Window: time.Second}, {Warn: 95}, {Critical: 101}, {Warn: -1}} {
		if _, err := c.withDefaults(); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

// TestBudgetStops has a download cross the budget: it is cut within seconds,
// what follows is refused, an exempt endpoint passes, and a restart knows.
func TestBudgetStops(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprint("h2=", h2), func(t *testing.T) {
			conf := getSite(t).config(t)
			conf.Budget = BudgetConfig{Bytes: 4 << 20, Stop: true, Exempt: []string{"IDEM"}}
			r := run(t, conf)
			in := r.connect("cp-1", func(q *request) {
				if !strings.HasSuffix(string(q.head.Path), "/endless") {
					echo(q)
					return
				}
				q.begin(200, -1, nil, false)
				for piece := noise(64 << 10); ; time.Sleep(5 * time.Millisecond) { // 12 MiB a second
					if _, err := q.st.Write(piece); err != nil {
						return
					}
				}
			})
			in.publish(r.site.publication(t, 1))
			c := r.client(&r.site.device, h2)
			resp := gotten(c.Do(r.request("GET", "/any/endless", nil)))(t)
			got, err := io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if err == nil || got < 3<<20 || got > 4<<20+5*13<<20 {
				t.Errorf("the download ended with %v after %d bytes", err, got)
			}
			refused := func(r *running) {
				resp, _ := do(t, r.client(&r.site.device, h2), r.request("GET", "/any/x", nil))
				if resp.StatusCode != 503 || resp.Header.Get("CMG-Refusal") != "CMGService_Budget_Exhausted" || resp.Header.Get("Retry-After") == "" {
					t.Errorf("beyond the budget: %s %v", resp.Status, resp.Header)
				}
			}
			refused(r)
			if resp, _ := do(t, c, r.request("GET", "/idem/x", nil)); resp.StatusCode != 200 {
				t.Errorf("an exempt endpoint: %s", resp.Status)
			}
			r.end()
			again := run(t, conf)
			again.connect("cp-1", echo)
			refused(again)
		})
	}
}

func gotten[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
