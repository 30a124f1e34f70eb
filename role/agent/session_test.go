package agent

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
)

func TestTokensRenewed(t *testing.T) {
	day := 24 * time.Hour
	for _, c := range []struct {
		name                     string
		before                   func(l *lab, a *Agent)
		registrations, exchanges int
	}{
		{"nothing due", func(l *lab, _ *Agent) { l.wait(7 * time.Hour) }, 0, 0},
		{"session about to end", func(l *lab, _ *Agent) { l.wait(7*time.Hour + 55*time.Minute) }, 0, 1},
		{"session over", func(l *lab, _ *Agent) { l.wait(9 * time.Hour) }, 0, 1},
		{"session refused", func(l *lab, a *Agent) { l.block(t, a.state.Session.Value) }, 0, 1},
		{"a third of the device token is over", func(l *lab, _ *Agent) { l.wait(31 * day) }, 1, 1},
		{"device token over", func(l *lab, _ *Agent) { l.wait(91 * day) }, 1, 1},
		{"device token refused", func(l *lab, a *Agent) { l.wait(9 * time.Hour); l.block(t, a.state.Token.Value) }, 1, 2},
		{"certificate about to end", func(_ *lab, a *Agent) { shortenCertificate(t, a) }, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			cfg := l.config(l.file("state"))
			a, err := l.pass(cfg)
			if err != nil {
				t.Fatal(err)
			}
			device := a.state.Device
			c.before(l, a)
			l.forget()
			if a, err = l.pass(cfg); err != nil {
				t.Fatal(err)
			}
			if a.state.Device != device && c.name != "certificate about to end" { // the lab knows devices by their certificate
				t.Errorf("device was %s and is %s", device, a.state.Device)
			}
			if got := l.count(ccm.EndpointRegistration); got != c.registrations {
				t.Errorf("%d registrations, want %d", got, c.registrations)
			}
			// A refused exchange does not reach the management point.
			if got := l.count("session"); got != min(c.exchanges, 1) {
				t.Errorf("%d exchanges, want %d", got, c.exchanges)
			}
		})
	}
}

func (l *lab) block(t *testing.T, token string) {
	t.Helper()
	c, err := l.tokens.Verify(token, l.now(), auth.TokenSession, auth.TokenDevice)
	if err != nil && !errors.Is(err, cmg.ErrUnauthenticated) {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocked[c.ID] = true
}

func shortenCertificate(t *testing.T, a *Agent) {
	t.Helper()
	der, err := ccm.SelfSign(a.identity.key, a.cfg.Now().AddDate(0, -11, -15))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.store.saveIdentity(a.identity.key, der); err != nil {
		t.Fatal(err)
	}
}

// Client tokens count in seconds and none may be used twice.
func TestSessionsWithinOneSecond(t *testing.T) {
	l := newLab(t)
	a, err := l.pass(l.config(l.file("state")))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := a.openSession(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	a.state.Proved = time.Time{} // as if it had been killed before it could save
	if err := a.openSession(t.Context()); err != nil && !strings.Contains(err.Error(), replayed) {
		t.Fatal(err)
	}
}
