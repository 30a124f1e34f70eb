package site

import (
	"context"
	"fmt"

	"github.com/opencmg/cmg"
)

const (
	reportColumns = `id, device, kind, received, body`
	newest        = ` ORDER BY received DESC, id DESC LIMIT ?`
)

var (
	qInsertReport = query(`INSERT INTO reports (` + reportColumns + `) VALUES (?, ?, ?, ?, ?)
	ON CONFLICT (device, id) DO NOTHING`)
	qReports             = query(`SELECT ` + reportColumns + ` FROM reports` + newest)
	qReportsOfKind       = query(`SELECT ` + reportColumns + ` FROM reports WHERE kind = ?` + newest)
	qReportsOfDevice     = query(`SELECT ` + reportColumns + ` FROM reports WHERE device = ?` + newest)
	qReportsOfDeviceKind = query(`SELECT ` + reportColumns + ` FROM reports WHERE device = ? AND kind = ?` + newest)

	qSetState = query(`INSERT INTO deployment_states (policy, device, state, detail, updated) VALUES (?, ?, ?, ?, ?)
	ON CONFLICT (policy, device) DO UPDATE SET state = excluded.state, detail = excluded.detail, updated = excluded.updated
	WHERE excluded.updated >= deployment_states.updated`)
	qStates = query(`SELECT device, policy, state, detail, updated FROM deployment_states WHERE policy = ? ORDER BY policy, device`)
)

// AddReport keeps a report and what it says of deployments, in one
// transaction. A report whose id its device has used before is ignored whole
// and added is false: senders repeat what they saw no answer to. A state
// older than the one that is kept changes nothing.
func (s *Site) AddReport(ctx context.Context, r cmg.Report, states ...cmg.DeploymentState) (added bool, err error) {
	err = s.update(ctx, func(tx *tx) error {
		if added, err = tx.addReport(r); err != nil || !added {
			return err
		}
		for _, st := range states {
			if err := tx.exec(qSetState, st.Policy, string(st.Device), st.State, st.Detail, micros(st.Updated)); err != nil {
				return err
			}
		}
		return nil
	})
	return added && err == nil, err
}

func (t *tx) addReport(r cmg.Report) (added bool, err error) {
	if r.ID == "" || r.Device == "" {
		return false, fmt.Errorf("add report: id and device have to be set: %w", cmg.ErrInvalid)
	}
	if r.Received.IsZero() {
		r.Received = t.now
	}
	n, err := t.changed(qInsertReport, r.ID, string(r.Device), r.Kind, micros(r.Received), r.Body)
	return n > 0, err
}

// Reports lists reports, newest first, at most limit (0: all), of one device
// and one kind; an empty device or kind means any.
func (s *Site) Reports(ctx context.Context, device cmg.DeviceID, kind string, limit int) ([]cmg.Report, error) {
	switch {
	case device != "" && kind != "":
		return list(ctx, s.read, scanReport, qReportsOfDeviceKind, string(device), kind, upTo(limit))
	case device != "":
		return list(ctx, s.read, scanReport, qReportsOfDevice, string(device), upTo(limit))
	case kind != "":
		return list(ctx, s.read, scanReport, qReportsOfKind, kind, upTo(limit))
	}
	return list(ctx, s.read, scanReport, qReports, upTo(limit))
}

// DeploymentStates lists how far the devices are with a policy.
func (s *Site) DeploymentStates(ctx context.Context, policy string) ([]cmg.DeploymentState, error) {
	return list(ctx, s.read, scanState, qStates, policy)
}

func scanReport(scan func(...any) error) (r cmg.Report, err error) {
	var received int64
	err = scan(&r.ID, &r.Device, &r.Kind, &received, &r.Body)
	r.Received = fromMicros(received)
	return r, err
}

func scanState(scan func(...any) error) (st cmg.DeploymentState, err error) {
	var updated int64
	err = scan(&st.Device, &st.Policy, &st.State, &st.Detail, &updated)
	st.Updated = fromMicros(updated)
	return st, err
}
