package managementpoint

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

// exchange is the token service (PROTOCOL 4.6, our own in its details): a
// device that shows its device token or certificate, and proves by a signed
// time that it holds its key, gets a session token.
//
//	POST /CCM_STS
//	ClientToken: GUID:<guid>;<time>;2
//	ClientTokenSignature: <hex>
//
//	200 {"token": "…", "token_type": "Bearer", "expires": "2026-03-01T20:00:00Z",
//	     "device_token": {"token": "…", "expires": "2026-05-30T12:00:00Z"}}
//
// The device token is there where the one that was shown is to be replaced.
func (p *Point) exchange(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	if _, ok := cmg.CallerFrom(ctx); !ok {
		return errCallerRequired
	}
	if err := mayUse(ctx, useExchange); err != nil {
		return err
	}
	id, value, at, err := p.possession(r, p.live.Load().cfg.ProofAllowance)
	if err != nil {
		return err
	}
	now := p.cfg.Now()
	live := p.live.Load()
	answer := sessionAnswer{Type: "Bearer"}
	claims := auth.Claims{Kind: auth.TokenSession, Device: id, NotBefore: now, Expires: now.Add(live.cfg.SessionTokenLife)}
	token, record, err := p.issue(claims)
	if err != nil {
		return err
	}
	answer.Token, answer.Expires = token, record.Expires.UTC()
	var renewed []site.Token
	if due, err := p.renewalDue(ctx, now); err != nil {
		return err
	} else if due {
		token, record, err := p.issueDeviceToken(id, now)
		if err != nil {
			return err
		}
		renewed = append(renewed, record)
		answer.Device = &deviceTokenAnswer{token, record.Expires.UTC()}
	}
	err = p.cfg.Site.RecordTokenFor(ctx, record, value, at.Add(p.live.Load().cfg.ProofAllowance+time.Second), renewed...)
	if errors.Is(err, site.ErrProofUsed) {
		return errReplayed(err)
	} else if err != nil {
		return err
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("write session token: %w", err)
	}
	return write(w, r, "application/json", body)
}

// A sessionAnswer is what the token service gives.
type sessionAnswer struct {
	Token   string             `json:"token"`
	Type    string             `json:"token_type"`
	Expires time.Time          `json:"expires"`
	Device  *deviceTokenAnswer `json:"device_token,omitempty"`
}

type deviceTokenAnswer struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

func errReplayed(cause error) *cmg.Refusal {
	return cmg.Refuse(http.StatusForbidden, "CMGMP_Proof_Replayed", "this signed time was used before: sign a new one", cause)
}

// renewalDue says that the caller's device token has lived a third of its
// life, as the field renews one of ninety days after thirty, or is past its
// end: whoever has just proven the device's key gets a new one.
func (p *Point) renewalDue(ctx context.Context, now time.Time) (bool, error) {
	c, _ := cmg.CallerFrom(ctx)
	switch auth.TokenKind(c.TokenKind) {
	case auth.TokenGrace:
		return true, nil
	case auth.TokenDevice:
	default:
		return false, nil
	}
	t, err := p.cfg.Site.Token(ctx, c.TokenID)
	if errors.Is(err, cmg.ErrNotFound) {
		return false, nil // its signature let it in; when it began nobody knows
	}
	return err == nil && now.Sub(t.NotBefore) >= t.Expires.Sub(t.NotBefore)/3, err
}

// possession checks the ClientToken headers against the registered key, that
// their time is near enough, and that they are of the caller's device.
func (p *Point) possession(r *http.Request, allowance time.Duration) (id cmg.DeviceID, value string, at time.Time, err error) {
	invalid := func(why string, cause error) *cmg.Refusal {
		return cmg.Refuse(http.StatusUnauthorized, "CMGMP_Proof_Invalid", why, cause)
	}
	values, sigs := r.Header.Values(ccm.HeaderClientToken), r.Header.Values(ccm.HeaderClientTokenSignature)
	if len(values) != 1 || len(sigs) != 1 {
		return "", "", at, invalid("the headers ClientToken and ClientTokenSignature have to be there once", nil)
	}
	value = values[0]
	if id, at, err = ccm.ParseClientToken(value); err != nil {
		return "", "", at, invalid("ClientToken is not GUID:<guid>;<time>;2", err)
	}
	if c, _ := cmg.CallerFrom(r.Context()); c.Device != "" && c.Device != id {
		return "", "", at, errMismatch
	}
	key, err := p.signingKey(r.Context(), id)
	if err != nil {
		return "", "", at, err
	}
	if _, err = ccm.ReadClientToken(value, sigs[0], key.key, p.cfg.Now(), allowance); err != nil {
		return "", "", at, invalid("the signed time does not hold: another key, or too far from this clock", err).
			With("device", string(id), "signed time", stamp(at), "clock here", stamp(p.cfg.Now()), "allowance", allowance.String())
	}
	return id, value, at, nil
}

// issue signs a token of this site and gives the record to keep of it.
func (p *Point) issue(c auth.Claims) (string, site.Token, error) {
	c.ID, c.Site = cmg.NewGUID(), p.live.Load().id.Name().Site
	c.NotBefore, c.Expires = c.NotBefore.Truncate(time.Second), c.Expires.Truncate(time.Second)
	token, err := p.live.Load().keyring.Issue(c)
	if err != nil {
		return "", site.Token{}, err
	}
	return token, site.Token{
		ID: c.ID, Kind: string(c.Kind), Device: c.Device, Note: c.Note, NotBefore: c.NotBefore, Expires: c.Expires,
	}, nil
}

// signed is a device with the key its messages are signed with.
type signed struct {
	cmg.Device
	key *rsa.PublicKey
}

// signingKey finds a registered, unblocked device and its key.
func (p *Point) signingKey(ctx context.Context, id cmg.DeviceID) (signed, error) {
	d, err := p.device(ctx, id)
	if errors.Is(err, cmg.ErrNotFound) {
		return signed{}, errDeviceUnknown(err)
	} else if err != nil {
		return signed{}, err
	}
	key, err := ccm.SigningKey(d.Certificate)
	if err != nil {
		return signed{}, fmt.Errorf("read the certificate of %s: %w", id, err)
	}
	return signed{d, key}, nil
}
