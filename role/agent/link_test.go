package agent

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

func TestRefusalsAreToldAndNotRepeated(t *testing.T) {
	for what, tries := range map[string]int{ccm.EndpointRegistration: 1, "session": 2 /* for policy, and for reports */, ccm.EndpointPolicy: 1, "policy": 1, ccm.EndpointLocation: 1, "manifest": 1, ccm.EndpointDiscovery: 1} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			l.addPackage("LAB00001", "tools", tools)
			l.setRefuse(func(w string) error {
				if w == what {
					return cmg.Refuse(http.StatusForbidden, "CMGService_Test_Refusal", "because", nil)
				}
				return nil
			})
			a, err := l.pass(l.config(l.file("state")))
			if !errors.Is(err, cmg.ErrForbidden) || !strings.Contains(err.Error(), "CMGService_Test_Refusal") {
				t.Errorf("got %v", err)
			}
			if got := l.count(what); got != tries {
				t.Errorf("asked %d times, want %d", got, tries)
			}
			if !strings.Contains(strings.Join(a.report.now.LastErrors, "\n"), "CMGService_Test_Refusal") {
				t.Errorf("status tells %q", a.report.now.LastErrors)
			}
		})
	}
}

func TestPassingFaultsAreRetried(t *testing.T) {
	for name, fault := range map[string]error{
		"503":          cmg.Refuse(http.StatusServiceUnavailable, "CMGService_NoConnectionPoint", "none", nil),
		"502":          cmg.Refuse(http.StatusBadGateway, "CMGService_Bad_Gateway", "lost", nil),
		"500":          errors.New("broken"),
		"empty answer": errEmptyAnswer,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			first := map[string]bool{}
			l.setRefuse(func(what string) error {
				if first[what] || (fault == errEmptyAnswer && what != ccm.EndpointRegistration && what != ccm.EndpointPolicy) {
					return nil
				}
				first[what] = true
				return fault
			})
			l.addPackage("LAB00001", "tools", tools)
			if _, err := l.pass(l.config(l.file("state"))); err != nil {
				t.Fatal(err)
			}
			if n := l.count(ccm.EndpointRegistration); n != 2 {
				t.Errorf("registration was asked for %d times", n)
			}
		})
	}
}

// Reports wait for a management point that can take them, across a restart,
// under the id they had first.
func TestReportsAreKept(t *testing.T) {
	l := newLab(t)
	p := l.addPackage("LAB00001", "tools", tools)
	l.setRefuse(func(what string) error {
		if what == ccm.EndpointState {
			return cmg.ErrUnavailable
		}
		return nil
	})
	c := l.config(l.file("state"))
	a, err := l.pass(c)
	if !errors.Is(err, cmg.ErrUnavailable) || len(a.state.Outbox) != 2 {
		t.Fatalf("got %v, %d waiting", err, len(a.state.Outbox))
	}
	id := a.state.Outbox[0].ID
	l.setRefuse(func(string) error { return nil })
	if a, err = l.pass(c); err != nil || len(a.state.Outbox) != 0 {
		t.Fatalf("got %v, %d waiting", err, len(a.state.Outbox))
	}
	if _, ok := l.reports[id]; !ok {
		t.Errorf("no report has the id %s", id)
	}
	checkReports(t, l, p.ID, ccm.StateSucceeded)
}

// A server that the roots do not vouch for gets nothing, and is not asked
// again and again.
func TestUntrustedServer(t *testing.T) {
	l, other := newLab(t), newLab(t)
	c := l.config(l.file("state"))
	c.Roots = other.file("roots.pem")
	start := time.Now()
	if _, err := l.pass(c); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
	if len(l.seen) != 0 || time.Since(start) > 10*time.Second {
		t.Errorf("asked for %v in %s", l.seen, time.Since(start))
	}
}
