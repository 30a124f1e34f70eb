package site

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencmg/cmg"
)

// ErrTooManyWaiting tells that no further device that nothing proves may
// wait for an administrator.
var ErrTooManyWaiting = fmt.Errorf("too many unproven devices wait for approval: %w", cmg.ErrUnavailable)

// maxWaiting is how many devices may wait that nothing has proven: whoever
// reaches the management point can make them, where that is allowed at all.
const maxWaiting = 10_000

var (
	qCountWaiting        = query(`SELECT count(*) FROM devices WHERE proof = ? AND approval = ?`)
	qDuplicates          = query(`SELECT ` + deviceColumns + ` FROM devices WHERE hardware IN (SELECT hardware FROM devices WHERE hardware > '' GROUP BY hardware HAVING count(*) > 1) ORDER BY hardware, id LIMIT ?`)
	qDevicesOfHardware   = query(`SELECT ` + deviceColumns + ` FROM devices WHERE hardware = ? ORDER BY id LIMIT ?`)
	qDeleteDevice        = query(`DELETE FROM devices WHERE id = ?`)
	qDeleteDeviceStates  = query(`DELETE FROM deployment_states WHERE device = ?`)
	qDeleteDeviceReports = query(`DELETE FROM reports WHERE device = ?`)
)

// roomFor says whether one more device as d may wait.
func (t *tx) roomFor(d cmg.Device) error {
	if d.Proof != cmg.ProofNone {
		return nil
	}
	var n int
	if err := t.row(qCountWaiting, string(cmg.ProofNone), string(cmg.Pending)).Scan(&n); err != nil {
		return fault("count waiting devices", err)
	}
	if n >= maxWaiting {
		return ErrTooManyWaiting
	}
	return nil
}

// bytesOf keeps nil out of a column that is never null.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// DuplicateDevices lists devices that call their hardware by the same name as
// another does, those of one name together, at most limit (0: all). The usual
// cause is a machine that was installed anew.
func (s *Site) DuplicateDevices(ctx context.Context, limit int) ([]cmg.Device, error) {
	return list(ctx, s.read, scanDevice, qDuplicates, upTo(limit))
}

// SameHardware lists the other devices that call their hardware as d does.
func (s *Site) SameHardware(ctx context.Context, d cmg.Device) (others []cmg.Device, err error) {
	if d.Hardware == "" {
		return nil, nil
	}
	all, err := list(ctx, s.read, scanDevice, qDevicesOfHardware, d.Hardware, upTo(0))
	for _, o := range all {
		if o.ID != d.ID {
			others = append(others, o)
		}
	}
	return others, err
}

// DeleteDevice forgets a device, its reports and how far it was with
// deployments. Its session and device tokens are worth nothing from then on;
// a content token stays good at gateways until it ends. A device that can
// still prove itself may register anew, so that a blocked one is ErrConflict:
// it would come back as if nobody had blocked it.
func (s *Site) DeleteDevice(ctx context.Context, id cmg.DeviceID) error {
	return s.update(ctx, func(tx *tx) error {
		d, err := scanDevice(tx.row(qDevice, string(id)).Scan)
		if err != nil {
			return missing("device", string(id), err)
		}
		if d.Approval == cmg.Blocked {
			return fmt.Errorf("delete device %s: it is blocked, and could register again if it were forgotten: %w", id, cmg.ErrConflict)
		}
		return errors.Join(
			tx.exec(qDeleteDeviceReports, string(id)),
			tx.exec(qDeleteDeviceStates, string(id)),
			tx.exec(qDeleteFacts, string(id)),
			tx.exec(qDeleteMember, string(id)),
			tx.exec(qDeleteDevice, string(id)),
			tx.audit("device.delete", string(id), "name="+d.Name))
	})
}
