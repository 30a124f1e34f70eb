package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// ensureRegistered registers where the site does not know the device, or has
// to hear of a new certificate, and renews the device token once a third of
// its life is over: the field does so monthly of ninety days.
func (a *Agent) ensureRegistered(ctx context.Context) error {
	now := a.cfg.Now()
	switch {
	case a.state.Device == "", !a.cfg.mutual() && a.state.Token.Value == "":
		return a.register(ctx, a.firstProof)
	case !a.cfg.mutual() && a.state.Token.lived(now) > renewAfter:
		return a.renew(ctx, now)
	case a.state.Registered.IsZero():
		err := a.inSession(ctx, func(bearer func(context.Context) (string, error)) error {
			return a.register(ctx, bearer)
		})
		if err != nil && ctx.Err() == nil {
			// What the agent has still works: the next pass tries again.
			a.cfg.Log.Warn("registration not renewed", "err", err)
			return nil
		}
		return err
	}
	return nil
}

// renewAfter is the part of a device token's life after which it is renewed.
const renewAfter = 1. / 3

// renew gets a new device token with the old one and a proof of the device's
// key. That works for a while after the old one's end too; when it does not
// any more, what registered the device first has to do it again.
func (a *Agent) renew(ctx context.Context, now time.Time) error {
	over := !now.Before(a.state.Token.Expires)
	err := a.openSession(ctx)
	if err == nil && a.state.Token.lived(now) > renewAfter { // a site that gives none with a session
		err = a.inSession(ctx, func(bearer func(context.Context) (string, error)) error {
			return a.register(ctx, bearer)
		})
	}
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case !over:
		// What the agent has still works: the next pass tries again.
		a.cfg.Log.Warn("device token not renewed", "err", err)
		return nil
	}
	again := a.register(ctx, a.firstProof)
	if errors.Is(again, errNoRegistrationToken) {
		return fmt.Errorf("renew device token: %w", err)
	}
	if again != nil {
		return errors.Join(err, again)
	}
	return nil
}

// lived gives the part of the token's life that is over, from 0 to 1.
func (t token) lived(now time.Time) float64 {
	life := t.Expires.Sub(t.Issued)
	if life <= 0 {
		return 1
	}
	return float64(now.Sub(t.Issued)) / float64(life)
}

// firstProof is what a device shows that has no device token: the best it has.
func (a *Agent) firstProof(ctx context.Context) (string, error) {
	switch {
	case a.cfg.mutual():
		return "", nil
	case a.cfg.EntraToken != nil:
		return a.cfg.EntraToken(ctx)
	}
	return a.cfg.registrationToken()
}

func (a *Agent) register(ctx context.Context, bearer func(context.Context) (string, error)) error {
	now := a.cfg.Now()
	body, err := ccm.Registration{
		SMSID: a.state.Device, NetBIOSName: a.cfg.Name, FQDN: a.cfg.Name,
		AgentVersion: "5.00.9128.1000", Signing: a.identity.der, Hardware: hardware(a.cfg.SiteCode, hardwareFiles...), Time: now,
	}.XML(a.identity.key)
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	text, err := a.ask(ctx, ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, ReplyEndpoint: "ClientRegistration", Body: body}, bearer)
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	r, err := ccm.ReadRegistrationReply(text)
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	if !a.cfg.mutual() && r.DeviceToken == "" {
		return fmt.Errorf("register: the answer holds no device token: %w", cmg.ErrInvalid)
	}
	if r.SMSID != a.state.Device {
		a.state.Session = token{} // it was another device's
	}
	a.state.Device, a.state.Approval, a.state.Registered = r.SMSID, r.Approval, now
	a.state.Token = token{Value: r.DeviceToken, Issued: now, Expires: r.Expires}
	a.cfg.Log.Info("registered", "device", r.SMSID, "approval", r.Approval, "proof", a.cfg.proof())
	return a.save()
}

// renewBefore is how long before its end a session token is replaced.
const renewBefore = 10 * time.Minute

// session gives a session token that is good for a while yet.
func (a *Agent) session(ctx context.Context) (string, error) {
	now, s := a.cfg.Now(), a.state.Session
	margin := min(renewBefore, s.Expires.Sub(s.Issued)/4)
	if s.Value != "" && now.Add(margin).Before(s.Expires) {
		return s.Value, nil
	}
	err := a.openSession(ctx)
	if refusedWith(err) == http.StatusUnauthorized {
		// The site does not take the device token any more: blocked, or its
		// keys are new. A registration token may be there to start again with.
		again := a.register(ctx, a.firstProof)
		if errors.Is(again, errNoRegistrationToken) {
			return "", err
		}
		if again != nil {
			return "", errors.Join(err, again)
		}
		err = a.openSession(ctx)
	}
	return a.state.Session.Value, err
}

// replayed is the management point's code for a client token seen before. An
// agent that was killed and started again within one second may have used it.
const replayed = "CMGMP_Proof_Replayed"

// openSession asks the token service for a session token, with the device
// token and a proof that the agent holds the device's key.
func (a *Agent) openSession(ctx context.Context) error {
	err := a.requestSession(ctx)
	var r *cmg.Refusal
	if errors.As(err, &r) && r.Code == replayed {
		err = a.requestSession(ctx) // with the next second's proof
	}
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	return a.save()
}

func (a *Agent) requestSession(ctx context.Context) error {
	var answer struct {
		Token   string    `json:"token"`
		Type    string    `json:"token_type"`
		Expires time.Time `json:"expires"`
		Device  struct {
			Token   string    `json:"token"`
			Expires time.Time `json:"expires"`
		} `json:"device_token"` // where it replaces the one that was shown
	}
	err := a.link.do(ctx, call{
		method: http.MethodPost, url: a.base() + "/CCM_STS",
		header: func(h http.Header) error {
			value := ccm.ClientToken(a.state.Device, a.proofTime())
			sig, err := ccm.SignText(a.identity.key, value)
			if err != nil {
				return err
			}
			h.Set(ccm.HeaderClientToken, value)
			h.Set(ccm.HeaderClientTokenSignature, sig)
			h.Set("Authorization", "Bearer "+a.state.Token.Value)
			return nil
		},
		read: func(r *http.Response) error {
			b, err := readBounded(r.Body, 64<<10)
			if err != nil {
				return err
			}
			if json.Unmarshal(b, &answer) != nil || answer.Token == "" || answer.Expires.IsZero() { // its error would quote a token
				return fmt.Errorf("answer is not a token with its expiry: %w", cmg.ErrInvalid)
			}
			return nil
		},
	})
	if err != nil {
		return err
	}
	now := a.cfg.Now()
	if !answer.Expires.After(now) {
		return fmt.Errorf("the token ended %s: is this machine's clock right?: %w", answer.Expires.UTC().Format(time.RFC3339), cmg.ErrInvalid)
	}
	a.state.Session = token{Value: answer.Token, Issued: now, Expires: answer.Expires}
	if d := answer.Device; d.Token != "" && d.Expires.After(a.state.Token.Expires) {
		a.state.Token = token{Value: d.Token, Issued: now, Expires: d.Expires}
		a.cfg.Log.Info("device token renewed", "until", d.Expires)
	}
	a.cfg.Log.Info("session opened", "until", answer.Expires)
	return nil
}

// proofTime gives the time for a client token, which counts in seconds: each
// is later than the last, because no value may be used twice. A clock that
// was set back is believed.
func (a *Agent) proofTime() time.Time {
	now := a.cfg.Now().UTC().Truncate(time.Second)
	if !now.After(a.state.Proved) && a.state.Proved.Sub(now) < 5*time.Minute {
		now = a.state.Proved.Add(time.Second)
	}
	a.state.Proved = now
	return now
}
