package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// A labSummary is what a pass found.
type labSummary struct {
	OK                 bool             `json:"ok"`
	Seconds            float64          `json:"seconds"`
	Dir                string           `json:"dir"`
	URL                string           `json:"url"`
	Package            string           `json:"package"`
	AgentsRegistered   int              `json:"agents_registered"`
	PoliciesApplied    int              `json:"policies_applied"`
	BytesVerified      int64            `json:"bytes_verified"`
	RequestsForwarded  map[string]int64 `json:"requests_forwarded"`  // by connection point
	InboundConnections int64            `json:"inbound_connections"` // into the inside, not from a connection point
	RequestsRefused    map[string]int64 `json:"requests_refused"`    // by code, at the gateways
	Agents             []labAgent       `json:"agents"`
	Steps              []labStep        `json:"steps"`
	Wrong              []string         `json:"wrong"` // why it is not ok

	token string // a session token of device's
}

type labAgent struct {
	Name          string       `json:"name"`
	Device        cmg.DeviceID `json:"device"`
	Proof         cmg.Proof    `json:"proof"`
	Policies      int          `json:"policies"`
	BytesVerified int64        `json:"bytes_verified"`
}

func (s *labSummary) add(name string, a agentStatus) {
	s.Agents = append(s.Agents, labAgent{Name: name, Device: a.Device, Proof: a.Proof, Policies: a.PoliciesApplied, BytesVerified: a.verified()})
	s.AgentsRegistered++
	s.PoliciesApplied += a.PoliciesApplied
	s.BytesVerified += a.verified()
}

// device is an agent's that was proven by a token.
func (s *labSummary) device() cmg.DeviceID { return s.Agents[len(s.Agents)-1].Device }

// count asks the roles what they did, and judges the pass.
func (l *lab) count(ctx context.Context, s *labSummary) error {
	if err := l.balance(ctx, s); err != nil {
		return err
	}
	for name, n := range s.RequestsForwarded {
		if n == 0 {
			s.wrong("%s forwarded nothing", name)
		}
	}
	var inside struct {
		Connections struct {
			Other int64 `json:"other"`
		} `json:"connections"`
	}
	if err := getStatus(ctx, l.status("management-point-1"), &inside); err != nil {
		return err
	}
	if s.InboundConnections = inside.Connections.Other; s.InboundConnections != 0 {
		s.wrong("%d connections into the inside did not come from a connection point", s.InboundConnections)
	}
	for _, step := range s.Steps {
		if !step.OK {
			s.wrong("step %d, %s: %s", step.Number, step.Title, step.Answer)
		}
	}
	s.Seconds = time.Since(l.began).Round(10 * time.Millisecond).Seconds()
	s.OK = len(s.Wrong) == 0
	return nil
}

func (s *labSummary) wrong(format string, a ...any) {
	s.Wrong = append(s.Wrong, fmt.Sprintf(format, a...))
}

// print tells the summary to people.
func (s labSummary) print(l *lab) {
	row := func(what string, value any) { l.say("  %-34s %v", what, value) }
	l.say("\nsummary")
	row("agents registered", s.AgentsRegistered)
	row("policies applied", s.PoliciesApplied)
	row("bytes of content verified", fmt.Sprintf("%d (%s)", s.BytesVerified, size(s.BytesVerified)))
	for _, name := range slices.Sorted(maps.Keys(s.RequestsForwarded)) {
		row("requests forwarded by "+name, s.RequestsForwarded[name])
	}
	row("inbound connections to the inside", s.InboundConnections)
	for _, code := range slices.Sorted(maps.Keys(s.RequestsRefused)) {
		row("refused at the edge", fmt.Sprintf("%s × %d", code, s.RequestsRefused[code]))
	}
	verdict := "all as it should be"
	if !s.OK {
		verdict = "NOT as it should be:\n    " + strings.Join(s.Wrong, "\n    ")
	}
	l.say("  %s, in %.1f s", verdict, s.Seconds)
}

// printHints says how to try things by hand while the lab is up.
func (l *lab) printHints() {
	l.say(`
up until Ctrl-C. In another terminal:

  . %s
  # the management point's list, proven by a certificate, then by a token
  curl --resolve "$CMG_RESOLVE" --cacert "$CMG_CA" --cert "$CMG_CLIENT_CERT" --key "$CMG_CLIENT_KEY" "$CMG_URL$CMG_MP_MUTUAL/SMS_MP/.sms_aut?MPLIST"
  curl --resolve "$CMG_RESOLVE" --cacert "$CMG_CA" -H "Authorization: Bearer $CMG_TOKEN" "$CMG_URL$CMG_MP_SERVER/SMS_MP/.sms_aut?MPLIST"
  # refused at the edge, with a reason
  curl -i --http1.1 --resolve "$CMG_RESOLVE" --cacert "$CMG_CA" "$CMG_URL$CMG_MP_SERVER/SMS_MP/.sms_aut?MPLIST"
  # kill a role, then start it again
  kill -9 "$(cat "$CMG_LAB/run/connection-point-1.pid")"; sh "$CMG_LAB/run/connection-point-1.sh"
  # what a role says of itself
  %s status %s

gateway  %s (at 127.0.0.1), certificates from %s
logs     %s
`, shellWord(l.file("env.sh")), shellWord(l.self), l.status("gateway-1"), l.url(), l.file("certs", "roots.crt"), l.file("run"))
}
