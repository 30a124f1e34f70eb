package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/bits"
	"github.com/opencmg/cmg/role/agent"
	"github.com/opencmg/cmg/role/connectionpoint"
	"github.com/opencmg/cmg/role/gateway"
	"github.com/opencmg/cmg/role/managementpoint"
)

// startRoles starts all but the agents and waits until all are ready. Those
// who dial come after those who listen, so that no back-off costs time.
func (l *lab) startRoles(ctx context.Context) error {
	err := errors.Join(
		l.startContentStore("content-store-1"), l.startManagementPoint("management-point-1"),
		l.startGateway("gateway-1", 0), l.startGateway("gateway-2", 1))
	if err == nil {
		err = l.crew.await(ctx, "/livez")
	}
	if err == nil {
		err = errors.Join(l.startConnectionPoint("connection-point-1"), l.startConnectionPoint("connection-point-2"))
	}
	if err == nil {
		err = l.crew.await(ctx, "/readyz")
	}
	return err
}

func (l *lab) status(name string) string { return local(l.ports.status[name]) }

func (l *lab) storeURL() string { return "https://" + local(l.ports.store) }

func (l *lab) startContentStore(name string) error {
	id := l.identity(name)
	return l.crew.start(name, []string{"content", "serve"}, render("content_store", &contentStoreSection{
		Listen: local(l.ports.store), Certificate: id.Certificate, Key: id.Key,
		Dir: l.site.contentDir(), URL: l.storeURL(), KeyFile: l.site.contentKey(), Status: l.status(name),
	}), l.ports.status[name])
}

func (l *lab) startManagementPoint(name string) error {
	return l.crew.start(name, []string{"management-point"}, render(
		"site", &siteSection{Dir: string(l.site)},
		"management_point", &managementpoint.Config{
			Name: name, Listen: local(l.ports.management), Identity: l.identity(name), Signing: l.site.signing(),
			TokenKeys: l.site.tokenKeys(), Status: l.status(name), Approval: "automatic",
			Uploads:      managementpoint.UploadConfig{Config: bits.Config{Dir: l.file("state", name, "uploads")}},
			Distribution: managementpoint.DistributionConfig{Dir: l.site.contentDir(), Library: true},
		}), l.ports.status[name])
}

func (l *lab) startGateway(name string, instance int) error {
	front := l.identity(name + "-front")
	return l.crew.start(name, []string{"gateway"}, render("gateway", &gateway.Config{
		Name: name, Listen: local(l.ports.client), ReusePort: true, Channel: local(l.ports.channel[instance]),
		Certificate: front.Certificate, Key: front.Key, Identity: l.identity(name), StateDir: l.file("state", name),
		Content: gateway.ContentConfig{URL: l.storeURL(), KeyFile: l.site.contentKey(), Roots: front.Roots},
		Status:  l.status(name),
	}), l.ports.status[name])
}

func (l *lab) startConnectionPoint(name string) error {
	return l.crew.start(name, []string{"connection-point"}, render("connection_point", &connectionpoint.Config{
		Name: name, Gateways: []connectionpoint.Gateway{{Service: local(l.ports.client), Instances: len(labGateways)}}, Identity: l.identity(name),
		Map: "https://" + local(l.ports.management), StateDir: l.file("state", name), Status: l.status(name),
	}), l.ports.status[name])
}

func (l *lab) prefix(proof cmg.Proof) string {
	if proof == cmg.ProofCertificate {
		return cmg.PrefixMutualAuth + l.role.String()
	}
	return cmg.PrefixServerAuth + l.role.String()
}

// service is the gateway's service name with its port.
func (l *lab) service() string { return strings.TrimPrefix(l.url(), "https://") }

// labPolicyInterval lets a policy made by hand take effect while one looks.
const labPolicyInterval = 30 * time.Second

// startAgents starts the three agents and waits until each has registered,
// obeyed its policy and reported.
func (l *lab) startAgents(ctx context.Context, sum *labSummary) error {
	for _, name := range labAgents {
		c := agent.Config{
			URL: l.url(), PrefixMutual: l.prefix(cmg.ProofCertificate), PrefixServer: l.prefix(cmg.ProofToken), SiteCode: labSite,
			StateDir: l.file("state", name), Roots: l.file("certs", "roots.crt"), Name: name, ContentDir: l.file("packages", name),
			Resolve: map[string][]string{l.service(): {local(l.ports.client)}}, PolicyInterval: labPolicyInterval, Status: l.status(name),
		}
		if name == "agent-1" {
			id := l.identity(name)
			c.ClientCertificate, c.ClientKey = id.Certificate, id.Key
		} else {
			c.RegistrationTokenFile = l.file("certs", name+".token")
		}
		if err := l.crew.start(name, []string{"agent"}, render("agent", &c), l.ports.status[name]); err != nil {
			return err
		}
	}
	for _, name := range labAgents {
		a, err := l.awaitAgent(ctx, name)
		if err != nil {
			return fmt.Errorf("wait for %s: %w", name, err)
		}
		sum.add(name, a)
		l.showAgent(sum, name, a)
	}
	return nil
}

// An agentStatus is what the lab reads of an agent's status.
type agentStatus struct {
	Registered      bool         `json:"registered"`
	Device          cmg.DeviceID `json:"device"`
	Proof           cmg.Proof    `json:"proof"`
	PoliciesApplied int          `json:"policies_applied"`
	ReportsWaiting  int          `json:"reports_waiting"`
	Passes          int          `json:"passes"`
	LastErrors      []string     `json:"last_errors"`
	Packages        []struct {
		ID       cmg.PackageID `json:"id"`
		Version  int           `json:"version"`
		Files    int           `json:"files"`
		Bytes    int64         `json:"bytes"`
		Verified bool          `json:"verified"`
	} `json:"packages"`
}

// verified gives the bytes of content whose every digest was right.
func (a agentStatus) verified() (n int64) {
	for _, p := range a.Packages {
		if p.Verified {
			n += p.Bytes
		}
	}
	return n
}

// done says what an agent still has to do.
func (a agentStatus) done(pack cmg.PackageID, bytes int64) error {
	switch {
	case len(a.LastErrors) > 0:
		return errors.New(strings.Join(a.LastErrors, "; "))
	case !a.Registered:
		return errors.New("it is not registered")
	case a.PoliciesApplied == 0:
		return errors.New("it has obeyed no policy")
	case len(a.Packages) == 0 || a.Packages[0].ID != pack || a.verified() != bytes:
		return fmt.Errorf("it has verified %d bytes of package %s, not %d", a.verified(), pack, bytes)
	case a.ReportsWaiting > 0 || a.Passes == 0:
		return errors.New("it has not reported")
	}
	return nil
}

func (l *lab) awaitAgent(ctx context.Context, name string) (a agentStatus, err error) {
	process := l.crew.all[len(l.crew.all)-1]
	for _, p := range l.crew.all {
		if p.name == name {
			process = p
		}
	}
	return a, poll(ctx, func() error {
		if process.hasEnded() {
			return fmt.Errorf("it ended: %w: %w\n%s", process.how, errGivenUp, l.crew.tail(process))
		}
		var status struct {
			Agent agentStatus `json:"agent"`
		}
		if err := getStatus(ctx, process.status, &status); err != nil {
			return err
		}
		a = status.Agent
		return a.done(l.pack.ID, l.pack.Size)
	})
}
