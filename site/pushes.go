package site

import (
	"context"
	"fmt"
	"time"

	"github.com/opencmg/cmg"
)

// A Push is a task that one device, or every device, is to be told of now.
type Push struct {
	ID      uint64       // grows with every push of the site
	Device  cmg.DeviceID // empty: all
	Task    int          // a kind such as ccm.TaskPolicy
	GUID    string       // one for ever
	Param   []byte
	Made    time.Time
	Expires time.Time // nobody is told of it from then on
}

const (
	taskPolicy = 1                  // ccm.TaskPolicy: one that waits stands for all
	policyLife = 3 * 24 * time.Hour // of the pushes that follow from a change of policy

	// MaxPushes is how many tasks may wait for one device, and as many for all.
	MaxPushes = 64
	// MaxPushParam is the length of a push's parameter, in bytes.
	MaxPushParam = 4 << 10
	// MaxPushLife is how long a push may wait for its device.
	MaxPushLife = 30 * 24 * time.Hour

	lookForPushes = 250 * time.Millisecond
)

var (
	qPushMark     = query(`SELECT last FROM push_mark WHERE one = 1`)
	qNextPush     = query(`UPDATE push_mark SET last = last + 1 WHERE one = 1 RETURNING last`)
	qInsertPush   = query(`INSERT INTO pushes (id, device, task, guid, param, made, expires) VALUES (?, ?, ?, ?, ?, ?, ?)`)
	qPushes       = query(`SELECT id, device, task, guid, param, made, expires FROM pushes WHERE id > ? ORDER BY id LIMIT ?`)
	qPushesOf     = query(`SELECT count(*) FROM pushes WHERE device = ? AND expires > ?`)
	qDropPolicies = query(`DELETE FROM pushes WHERE device = ? AND task = ?`)
	qDropAcked    = query(`DELETE FROM pushes WHERE device = ? AND id <= ?`)
	qPrunePushes  = query(`DELETE FROM pushes WHERE expires <= ?`)
)

// Push has devices told of a task, for life at most (0: three days); no
// devices are all of them. An unknown device is cmg.ErrNotFound; one for whom
// MaxPushes wait already cmg.ErrConflict, and then nobody is told. A push to
// get policy takes the place of one that waits.
func (s *Site) Push(ctx context.Context, task int, param []byte, life time.Duration, devices ...cmg.DeviceID) error {
	if life == 0 {
		life = policyLife
	}
	if task <= 0 || len(param) > MaxPushParam || life < 0 || life > MaxPushLife {
		return fmt.Errorf("push task %d with %d bytes for %s: %w", task, len(param), life, cmg.ErrInvalid)
	}
	return s.update(ctx, func(tx *tx) error {
		detail := fmt.Sprintf("task=%d until=%s", task, tx.now.Add(life).UTC().Format(time.RFC3339))
		if len(devices) == 0 {
			if err := tx.push("", task, param, life); err != nil {
				return err
			}
			return tx.audit("device.notify", "all", detail)
		}
		for _, d := range devices {
			if _, err := scanDevice(tx.row(qDevice, string(d)).Scan); err != nil {
				return missing("device", string(d), err)
			}
			if err := tx.push(d, task, param, life); err != nil {
				return err
			}
			if err := tx.audit("device.notify", string(d), detail); err != nil {
				return err
			}
		}
		return nil
	})
}

// push is Push for one device, or with "" for all, within a transaction.
func (t *tx) push(d cmg.DeviceID, task int, param []byte, life time.Duration) error {
	if task == taskPolicy {
		if err := t.exec(qDropPolicies, string(d), task); err != nil {
			return err
		}
	}
	var waiting int
	if err := t.row(qPushesOf, string(d), micros(t.now)).Scan(&waiting); err != nil {
		return fault("count pushes", err)
	}
	if waiting >= MaxPushes {
		return fmt.Errorf("push to device %q: %d wait for it already: %w", d, waiting, cmg.ErrConflict)
	}
	var id int64
	if err := t.row(qNextPush).Scan(&id); err != nil {
		return fault("number push", err)
	}
	if param == nil {
		param = []byte{}
	}
	return t.exec(qInsertPush, id, string(d), task, "{"+cmg.NewGUID()+"}", param, micros(t.now), micros(t.now.Add(life)))
}

// policyChanged has the devices that a change of policy is for get policy at
// once; no devices are all of them. It is part of the change's transaction:
// nobody is told of what did not happen.
func (t *tx) policyChanged(devices ...cmg.DeviceID) error {
	if len(devices) == 0 {
		return t.push("", taskPolicy, nil, policyLife)
	}
	for _, d := range devices {
		if err := t.push(d, taskPolicy, nil, policyLife); err != nil {
			return err
		}
	}
	return nil
}

// AwaitPushes waits until there are pushes later than after, and gives the
// id of the newest. It looks at one row a few times a second: the command
// line that writes is another process, and SQLite tells nobody.
func (s *Site) AwaitPushes(ctx context.Context, after uint64) (uint64, error) {
	look := time.NewTicker(lookForPushes)
	defer look.Stop()
	for {
		var last int64
		if err := s.row(ctx, qPushMark).Scan(&last); err != nil {
			return after, fault("look for pushes", err)
		}
		if uint64(last) > after {
			return uint64(last), nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return after, ctx.Err()
		}
	}
}

// Pushes lists pushes later than after in the order of their ids, at most
// limit of them; 0 is all. Some may have expired.
func (s *Site) Pushes(ctx context.Context, after uint64, limit int) ([]Push, error) {
	return list(ctx, s.read, scanPush, qPushes, int64(after), upTo(limit))
}

// PrunePushes forgets pushes that have expired.
func (s *Site) PrunePushes(ctx context.Context) error {
	return s.update(ctx, func(tx *tx) error { return tx.exec(qPrunePushes, micros(tx.now)) })
}

func scanPush(scan func(...any) error) (p Push, err error) {
	var id, made, expires int64
	err = scan(&id, &p.Device, &p.Task, &p.GUID, &p.Param, &made, &expires)
	p.ID, p.Made, p.Expires = uint64(id), fromMicros(made), fromMicros(expires)
	return p, err
}
