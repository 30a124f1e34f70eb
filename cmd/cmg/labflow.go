package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

var (
	labGateways         = []string{"gateway-1", "gateway-2"}
	labConnectionPoints = []string{"connection-point-1", "connection-point-2"}
	labAgents           = []string{"agent-1", "agent-2", "agent-3"}
)

// A gatewayStatus is what the lab reads of a gateway's status.
type gatewayStatus struct {
	Requests    int64            `json:"requests"`
	Repeated    int64            `json:"repeated"`
	Manifests   int64            `json:"manifests"`
	Refusals    map[string]int64 `json:"refusals"`
	Publication *struct {
		Version uint64 `json:"version"`
		Routes  int    `json:"routes"`
		Anchors int    `json:"anchors"`
		Keys    int    `json:"keys"`
	} `json:"publication"`
}

// note adds a step that a role took by itself, seen in its status.
func (l *lab) note(sum *labSummary, s labStep) {
	s.Number, s.OK = len(sum.Steps)+1, true
	s.Millis = float64(time.Since(l.began).Milliseconds())
	sum.Steps = append(sum.Steps, s)
	l.tell(s)
}

// showChannels tells the first two steps of the flow, before any client is
// there: channels from the inside, and what came out over them.
func (l *lab) showChannels(ctx context.Context, sum *labSummary) error {
	channels := 0
	for _, name := range labConnectionPoints {
		var status struct {
			Gateways map[string][]any `json:"gateways"`
		}
		if err := getStatus(ctx, l.status(name), &status); err != nil {
			return err
		}
		for _, links := range status.Gateways {
			channels += len(links)
		}
	}
	l.note(sum, labStep{
		Title: "the inside opens channels to the outside, never the other way", By: strings.Join(labConnectionPoints, ", "),
		Request: "TLS 1.3 to both gateways at the clients' port, " + local(l.ports.client),
		Proof:   "certificates of the site, both ways", Answer: fmt.Sprintf("%d channels", channels),
	})
	answer := ""
	for _, name := range labGateways {
		var status gatewayStatus
		if err := getStatus(ctx, l.status(name), &status); err != nil {
			return err
		}
		if p := status.Publication; p != nil {
			answer += fmt.Sprintf("%s knows version %d (%d routes, %d trust anchors, %d token keys) ", name, p.Version, p.Routes, p.Anchors, p.Keys)
		}
	}
	l.note(sum, labStep{
		Title: "the site publishes what may pass and whom to trust", By: "management-point-1, over the channels",
		Request: "publication for both gateways", Proof: "the site's signature", Answer: strings.TrimSpace(answer),
	})
	return nil
}

// showAgent tells what an agent has done.
func (l *lab) showAgent(sum *labSummary, name string, a agentStatus) {
	first := "registration token, then its key: device token, session token"
	if a.Proof == cmg.ProofCertificate {
		first = "client certificate"
	}
	l.note(sum, labStep{
		Title: "a device registers, obeys its policy and reports", By: name, Proof: first,
		Request: "CCM_POST registration, policy assignments, content location; GET policy, manifest, files; reports",
		Answer:  fmt.Sprintf("%s: %d policy obeyed, %s from the store verified by SHA-256", a.Device, a.PoliciesApplied, size(a.verified())),
	})
}

// balance compares what came to the gateways with what became of it: a
// request is forwarded by a connection point, answered with a manifest, or
// refused. So what was refused did not reach the inside. A request that was
// sent again counts at each connection point that took it, at most once more
// for each time. Agents may be asking meanwhile, so it is tried until the
// books balance.
func (l *lab) balance(ctx context.Context, s *labSummary) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := poll(ctx, func() error {
		s.RequestsForwarded, s.RequestsRefused = map[string]int64{}, map[string]int64{}
		var came, again, forwarded, refused, manifests int64
		for _, name := range labGateways {
			var status gatewayStatus
			if err := getStatus(ctx, l.status(name), &status); err != nil {
				return err
			}
			came, manifests = came+status.Requests, manifests+status.Manifests
			again += status.Repeated
			for code, n := range status.Refusals {
				s.RequestsRefused[code] += n
				if strings.HasPrefix(code, "CMGService_") {
					refused += n
				}
			}
		}
		for _, name := range labConnectionPoints {
			var status struct {
				Requests int64 `json:"requests"`
			}
			if err := getStatus(ctx, l.status(name), &status); err != nil {
				return err
			}
			s.RequestsForwarded[name] = status.Requests
			forwarded += status.Requests
		}
		if became := forwarded + manifests + refused; became < came || became > came+again {
			return fmt.Errorf("%d requests came to the gateways, which sent %d again; %d were forwarded, %d answered with a manifest and %d refused", came, again, forwarded, manifests, refused)
		}
		return nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		s.wrong("the gateways' books do not balance: %v", err)
		return nil
	}
	return err
}
