package site

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/opencmg/cmg"
)

// keepRefusals is how many refusals the site remembers.
const keepRefusals = 20000

var (
	qInsertRefusal = query(`INSERT INTO refusals (id, hop, made, body) VALUES (?, ?, ?, ?) ON CONFLICT (id, hop) DO NOTHING`)
	qRefusal       = query(`SELECT body FROM refusals WHERE id = ? ORDER BY id, hop`)
	qRefusals      = query(`SELECT body FROM refusals ORDER BY made DESC, id DESC LIMIT ?`)
	qPruneRefusals = query(`DELETE FROM refusals WHERE made < (SELECT made FROM refusals ORDER BY made DESC, id DESC LIMIT 1 OFFSET ?)`)
)

// AddRefusals keeps what roles said no to, all in one transaction; one that
// is there already stays as it is. The oldest beyond 20,000 are forgotten.
func (s *Site) AddRefusals(ctx context.Context, rs []cmg.RefusalRecord) error {
	if len(rs) == 0 {
		return nil
	}
	return s.update(ctx, func(tx *tx) error {
		for _, r := range rs {
			b, err := json.Marshal(r)
			if err != nil {
				return fmt.Errorf("write refusal %.80s: %w", r.ID, err)
			}
			if err := tx.exec(qInsertRefusal, r.ID, r.Hop, micros(r.Time), string(b)); err != nil {
				return err
			}
		}
		return tx.exec(qPruneRefusals, keepRefusals)
	})
}

// Refusal gives what is known of the request with this id: one record for
// each hop that refused it. None is ErrNotFound.
func (s *Site) Refusal(ctx context.Context, id string) ([]cmg.RefusalRecord, error) {
	rs, err := list(ctx, s.read, scanRefusal, qRefusal, id)
	if err == nil && len(rs) == 0 {
		err = fmt.Errorf("refusal of request %.80q: %w", id, cmg.ErrNotFound)
	}
	return rs, err
}

// Refusals lists the newest refusals, at most limit.
func (s *Site) Refusals(ctx context.Context, limit int) ([]cmg.RefusalRecord, error) {
	return list(ctx, s.read, scanRefusal, qRefusals, upTo(limit))
}

func scanRefusal(scan func(...any) error) (r cmg.RefusalRecord, err error) {
	var body string
	if err = scan(&body); err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(body), &r)
}
