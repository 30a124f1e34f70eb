package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/opencmg/cmg"
)

// A budgetFile is what a gateway knows of its budget after a restart.
type budgetFile struct {
	Slots     []budgetSlot `json:"slots"`     // oldest first
	Rate      float64      `json:"rate"`      // bytes a second, at most of late
	Allowance int64        `json:"allowance"` // what may have been sent that this file does not have
	Clean     bool         `json:"clean"`     // it has all: the gateway ended as it should
}

type budgetSlot struct {
	At    int64 `json:"at"` // Unix time of its begin
	Bytes int64 `json:"bytes"`
}

const (
	budgetFileName = "budget.json"
	maxBudgetFile  = 1 << 20
)

// openBudget reads the budget kept by an earlier run. After a kill it counts
// what that run may have sent since its last write: the highest rate of late
// for as long as a write may lie back. A file that cannot be read is an error
// and not an empty budget.
func openBudget(c BudgetConfig, log *slog.Logger, dir string, sent func() int64, now time.Time) (*budget, error) {
	b := &budget{conf: c, log: log, file: filepath.Join(dir, budgetFileName), sent: sent, seen: sent(), last: now}
	raw, err := os.ReadFile(b.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("budget: %w", err)
	case len(raw) > maxBudgetFile:
		return nil, fmt.Errorf("budget: %s has more than %d bytes: %w", b.file, maxBudgetFile, cmg.ErrInvalid)
	default:
		if err := json.Unmarshal(raw, &b.kept); err != nil {
			return nil, fmt.Errorf("budget: read %s (without it the budget begins anew): %w", b.file, err)
		}
		for _, s := range b.kept.Slots {
			if s.Bytes < 0 {
				return nil, fmt.Errorf("budget: %s holds a negative number of bytes: %w", b.file, cmg.ErrInvalid)
			}
		}
		if gap := max(b.kept.Allowance, 0); !b.kept.Clean && gap > 0 {
			b.enter(now, gap)
			log.Warn("outbound budget: the last run did not end as it should; counting what it may have sent unseen", "bytes", gap)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.enter(now, 0)
	b.kept.Rate = 0
	b.save(now, false)
	if b.bad != nil {
		return nil, fmt.Errorf("budget: %w", b.bad)
	}
	state := b.judge()
	b.ended.Store(state == budgetExhausted && c.Stop)
	b.tell(state)
	return b, nil
}

// save writes the file so that a crash leaves the old or the new one. It is
// called with mu held.
func (b *budget) save(now time.Time, clean bool) {
	if b.gone.Load() {
		return
	}
	b.kept.Clean, b.kept.Allowance = clean, max(int64(b.kept.Rate*budgetGap), b.conf.Bytes/1000)
	was := b.bad
	if b.bad = b.write(); b.bad != nil {
		if was == nil {
			b.log.Error("outbound budget: it cannot be written: a restart would not know it", "err", b.bad)
		}
		return
	}
	b.saved, b.loose = now, 0
}

func (b *budget) write() error {
	text, err := json.Marshal(b.kept)
	if err != nil {
		return err
	}
	return writeWhole(b.file, text)
}

// retire leaves the file to the process that takes this one's place. What is
// sent from here on is covered by what that one counts unseen.
func (b *budget) retire() {
	if b != nil {
		b.gone.Store(true)
	}
}

// loadBudget opens the budget, if there is to be one.
func (g *Gateway) loadBudget() (err error) {
	if g.cfg.Budget.Bytes > 0 {
		g.budget, err = openBudget(g.cfg.Budget, g.log, g.cfg.StateDir, g.accounts.sent.Load, g.now())
	}
	return err
}
