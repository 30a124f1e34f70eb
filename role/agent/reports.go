package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

const (
	heartbeat = 24 * time.Hour // between two discovery records
	maxOutbox = 200            // reports kept while nobody takes them
)

// queueState puts a state message about a policy into the outbox.
func (a *Agent) queueState(policyID string, o *obedience) {
	a.state.Serial++
	s := ccm.StateMessage{Time: o.At, Serial: a.state.Serial, TopicID: policyID, TopicType: ccm.TopicContentDeployment, StateID: ccm.StateSucceeded, Details: o.Detail}
	if o.State == failed {
		s.StateID = ccm.StateFailed
	}
	for _, c := range o.Content {
		s.Params = append(s.Params, string(c.ID), strconv.Itoa(c.Version), strconv.Itoa(c.Files), strconv.FormatInt(c.Bytes, 10))
	}
	r := a.newReport(ccm.ContentStateMessages)
	r.States = []ccm.StateMessage{s}
	a.queue(outgoing{Endpoint: ccm.EndpointState, Body: r.XML()})
}

// queueDiscovery puts a discovery record into the outbox, once a day and
// after every start.
func (a *Agent) queueDiscovery() error {
	now := a.cfg.Now()
	if a.greeted && now.Before(a.state.Discovered.Add(heartbeat)) {
		return nil
	}
	r := a.newReport(ccm.ContentInventory)
	action := ccm.ActionDiscovery(now)
	r.Action = &action
	r.Instances = a.discovered()
	a.queue(outgoing{Endpoint: ccm.EndpointDiscovery, Body: r.XML(), Before: []string{r.Head()}})
	a.greeted, a.state.Discovered = true, now
	return a.save()
}

func (a *Agent) newReport(kind string) ccm.Report {
	return ccm.Report{Content: kind, Type: "Full", Date: a.cfg.Now(), Device: a.state.Device, NetBIOSName: a.cfg.Name, ClientVersion: cmg.Version}
}

// discovered is what the discovery record says of this machine (PROTOCOL 6.6).
func (a *Agent) discovered() []ccm.ReportedInstance {
	make := func(namespace, class string, pairs ...string) ccm.ReportedInstance {
		i := ccm.ReportedInstance{Content: "New", Namespace: namespace, ParentClass: class, Instance: ccm.Instance{Class: class}}
		for k := 0; k+1 < len(pairs); k += 2 {
			i.Properties = append(i.Properties, ccm.Property{Name: pairs[k], Value: pairs[k+1]})
		}
		return i
	}
	const client = `\\.\root\ccm`
	return []ccm.ReportedInstance{
		make(client, "CCM_Client", "ClientIdChangeDate", a.state.Registered.UTC().Format("01/02/2006 15:04:05"), "ClientVersion", cmg.Version, "PreviousClientId", "Unknown"),
		make(client, "SMS_Authority", "Name", "SMS:"+a.cfg.SiteCode),
		make(client+`\invagt`, "CCM_DiscoveryData", "PlatformID", runtime.GOOS+" "+runtime.GOARCH),
		make(client+`\invagt`, "CCM_ExtNetworkAdapterConfiguration", "FQDN", a.cfg.Name),
	}
}

func (a *Agent) queue(o outgoing) {
	o.ID = "{" + strings.ToUpper(cmg.NewGUID()) + "}"
	a.state.Outbox = append(a.state.Outbox, o)
	if over := len(a.state.Outbox) - maxOutbox; over > 0 {
		a.cfg.Log.Warn("reports dropped: nobody has taken them", "count", over)
		a.state.Outbox = slices.Delete(a.state.Outbox, 0, over)
	}
}

// sendReports sends what is in the outbox, in order. A report leaves it when
// the management point has acknowledged it, or refused it for good.
func (a *Agent) sendReports(ctx context.Context) error {
	var refused []error
	for len(a.state.Outbox) > 0 {
		o := a.state.Outbox[0]
		err := a.sendReport(ctx, o)
		if s := refusedWith(err); err != nil && s != http.StatusBadRequest && s != http.StatusRequestEntityTooLarge {
			return errors.Join(append(refused, fmt.Errorf("send report: %w", err))...)
		}
		if err != nil {
			refused = append(refused, fmt.Errorf("send report %s: %w", o.ID, err))
		}
		a.state.Outbox = slices.Delete(a.state.Outbox, 0, 1)
		if err := a.save(); err != nil {
			return err
		}
	}
	return errors.Join(refused...)
}
