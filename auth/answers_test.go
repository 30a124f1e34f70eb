package auth

import (
	"errors"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// Whoever carries statements cannot show one again that the site has signed
// before a certificate was revoked.
func TestAnswersAreNotShownAgain(t *testing.T) {
	signer := identity(t, newAuthority(t, "site CA"), cmg.RoleSite, testSite)
	now := time.Now().Truncate(time.Second)
	d := cmg.Digest{1}
	say := func(state StatusState, issued time.Time) string {
		return must[string](t)(SignStatuses(signer, issued, []Status{{Certificate: d, State: state, Until: issued.Add(time.Hour)}}))
	}
	var a Answers
	for _, step := range []struct {
		name, jws string
		at        time.Time
		fails     error
		want      StatusState
	}{
		{"good", say(StatusGood, now), now, nil, StatusGood},
		{"revoked", say(StatusRevoked, now.Add(time.Minute)), now.Add(time.Minute), nil, StatusRevoked},
		{"good of before", say(StatusGood, now), now.Add(time.Minute), nil, StatusRevoked},
		{"good of before, later", say(StatusGood, now), now.Add(10 * time.Minute), cmg.ErrInvalid, StatusRevoked},
		{"good of a time to come", say(StatusGood, now.Add(10*time.Minute)), now, cmg.ErrInvalid, StatusRevoked},
		{"released", say(StatusGood, now.Add(2*time.Minute)), now.Add(2 * time.Minute), nil, StatusGood},
	} {
		if err := a.Take(signer, step.jws, step.at); !errors.Is(err, step.fails) {
			t.Errorf("%s: %v, want %v", step.name, err, step.fails)
		}
		if e, _ := a.get(d); e.State != step.want {
			t.Errorf("%s: it is %s, want %s", step.name, e.State, step.want)
		}
	}
}
