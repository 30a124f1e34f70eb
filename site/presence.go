package site

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/opencmg/cmg"
)

// A Presence is what a management point wrote down of a device that lets
// itself be notified. Who is online at this moment only its memory knows.
type Presence struct {
	Device     cmg.DeviceID
	Acked      uint64 // the device has taken every push up to this id
	Online     bool
	LastOnline time.Time
	Run        string // the run of a management point that it is online at
}

// OnlineWrite is how often management points write down at least who is
// online, so what is older than twice that tells nothing any more.
const OnlineWrite = 5 * time.Minute

// OnlineAt says that the device was online at now, as far as is known.
func (p Presence) OnlineAt(now time.Time) bool {
	return p.Online && now.Sub(p.LastOnline) < 2*OnlineWrite
}

const presenceColumns = `device, acked, online, last_online, run`

var (
	qPresence  = query(`SELECT ` + presenceColumns + ` FROM presence WHERE device = ?`)
	qPresences = query(`SELECT ` + presenceColumns + ` FROM presence WHERE device > ? ORDER BY device LIMIT ?`)

	qBeginPresence = query(`INSERT INTO presence (` + presenceColumns + `) SELECT ?, last, 0, 0, '' FROM push_mark WHERE one = 1 ON CONFLICT (device) DO NOTHING`)

	// A device that has gone from one management point to another is not
	// offline because the first one says so later.
	qNotePresence = query(`INSERT INTO presence (` + presenceColumns + `) VALUES (?, ?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET
		acked = CASE WHEN excluded.acked > presence.acked THEN excluded.acked ELSE presence.acked END,
		online = CASE WHEN excluded.online = 0 AND excluded.run <> presence.run THEN presence.online ELSE excluded.online END,
		last_online = CASE WHEN excluded.last_online > presence.last_online THEN excluded.last_online ELSE presence.last_online END,
		run = CASE WHEN excluded.online = 1 THEN excluded.run ELSE presence.run END`)
)

// Presence gives what is known of a device; of one that was never there, its
// id alone.
func (s *Site) Presence(ctx context.Context, d cmg.DeviceID) (Presence, error) {
	p, err := scanPresence(s.row(ctx, qPresence, string(d)).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Presence{Device: d}, nil
	}
	return p, fault("read presence", err)
}

// Presences lists what is known of devices with ids greater than after, in
// order, at most limit of them; 0 is all.
func (s *Site) Presences(ctx context.Context, after cmg.DeviceID, limit int) ([]Presence, error) {
	return list(ctx, s.read, scanPresence, qPresences, string(after), upTo(limit))
}

// beginPresence notes where a new device begins: what all were told of before
// it registered is nothing to it.
func (t *tx) beginPresence(d cmg.DeviceID) error { return t.exec(qBeginPresence, string(d)) }

// NotePresence writes down how devices stand, in one transaction, and forgets
// the pushes to one device that it has taken.
func (s *Site) NotePresence(ctx context.Context, all []Presence) error {
	if len(all) == 0 {
		return nil
	}
	return s.update(ctx, func(tx *tx) error {
		for _, p := range all {
			if err := tx.exec(qNotePresence, string(p.Device), int64(p.Acked), p.Online, micros(p.LastOnline), p.Run); err != nil {
				return err
			}
			if err := tx.exec(qDropAcked, string(p.Device), int64(p.Acked)); err != nil {
				return err
			}
		}
		return nil
	})
}

func scanPresence(scan func(...any) error) (p Presence, err error) {
	var acked, last int64
	err = scan(&p.Device, &acked, &p.Online, &last, &p.Run)
	p.Acked, p.LastOnline = uint64(acked), fromMicros(last)
	return p, err
}
