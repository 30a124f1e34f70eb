package managementpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// takeReport keeps a discovery record or state messages (PROTOCOL 6.5, 6.6).
// The reply goes out after the report is on disk. A message id that the
// device has used before is answered in the same way and changes nothing.
func (p *Point) takeReport(ctx context.Context, m *ccm.Message, text string) (string, error) {
	d, err := p.sender(ctx, m, true)
	if err != nil {
		return "", err
	}
	r, err := ccm.ReadReport(text)
	if err != nil {
		return "", err
	}
	if r.Device != "" && r.Device != d.ID {
		return "", errMismatch
	}
	now := p.cfg.Now()
	report := cmg.Report{ID: m.ID, Device: d.ID, Kind: r.Kind(), Received: now, Body: text}
	if report.ID == "" { // some senders leave it out
		sum := sha256.Sum256([]byte(text))
		report.ID = hex.EncodeToString(sum[:])
	}
	if report.Kind == "Discovery" {
		_, err := p.cfg.Site.AddDiscovery(ctx, report, facts(r.Instances))
		return "", err
	}
	if _, err := p.cfg.Site.AddReport(ctx, report, deployments(d.ID, r.States, now)...); err != nil {
		return "", err
	}
	return "", nil
}

// facts gives what collections may be asked by: class.property of everything
// that a discovery record holds, and os, the family of the platform. Of a class
// with several objects the first counts.
func facts(instances []ccm.ReportedInstance) map[string]string {
	all := map[string]string{}
	for _, i := range instances {
		for _, v := range i.Properties {
			name := strings.ToLower(i.Class + "." + v.Name)
			if _, there := all[name]; !there {
				all[name] = v.Value
			}
		}
	}
	platform := strings.ToLower(all["ccm_discoverydata.platformid"])
	if platform != "" {
		all["os"] = platform
	}
	for family, word := range map[string]string{"windows": "windows", "linux": "linux", "macos": "darwin"} {
		if strings.Contains(platform, word) {
			all["os"] = family
		}
	}
	return all
}

// deployments picks what state messages tell of our own deployments.
func deployments(d cmg.DeviceID, states []ccm.StateMessage, now time.Time) (all []cmg.DeploymentState) {
	for _, s := range states {
		if s.TopicType != ccm.TopicContentDeployment || s.TopicID == "" || len(s.TopicID) > 64 {
			continue
		}
		st := cmg.DeploymentState{Device: d, Policy: s.TopicID, Detail: s.Details, Updated: s.Time}
		switch s.StateID {
		case ccm.StateSucceeded:
			st.State = "succeeded"
		case ccm.StateFailed:
			st.State = "failed"
		default:
			continue
		}
		// A later state replaces an earlier one, by the device's clock. One
		// that runs ahead must not keep all later ones out.
		if st.Updated.IsZero() || st.Updated.After(now) {
			st.Updated = now
		}
		all = append(all, st)
	}
	return all
}
