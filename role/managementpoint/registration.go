package managementpoint

import (
	"context"
	"errors"
	"net/http"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

// register answers a registration (PROTOCOL 4.1, 4.2). The caller has to be
// proven. A device whose proof names it keeps that name; any other gets the
// one its signing key has, or a new one. The id that a sender wishes for
// counts for nothing.
func (p *Point) register(ctx context.Context, m *ccm.Message, text string) (string, error) {
	c, ok := cmg.CallerFrom(ctx)
	if !ok {
		return "", errCallerRequired
	}
	if err := mayUse(ctx, useRegister); err != nil {
		return "", err
	}
	if m.Source != "" && c.Device != "" && m.Source != c.Device {
		return "", errMismatch
	}
	r, err := ccm.ReadRegistration(text)
	if errors.Is(err, cmg.ErrUnauthenticated) {
		return "", cmg.Refuse(http.StatusUnauthorized, "CMGMP_Signature_Invalid", "the registration's signature is not by the key of its signing certificate", err)
	} else if err != nil {
		return "", err
	}
	if r.SMSID != "" && c.Device != "" && r.SMSID != c.Device {
		return "", errMismatch
	}
	token := ""
	if c.TokenKind == string(auth.TokenRegistration) {
		token = c.TokenID
		if token == "" { // an id to count uses by is the least it needs
			return "", registrationFault(site.ErrTokenUnknown)
		}
	}
	d, err := p.cfg.Site.Register(ctx, cmg.Device{
		ID: c.Device, Name: r.NetBIOSName, FQDN: r.FQDN, Agent: r.AgentVersion, Certificate: r.Signing,
		Approval: p.approval(c), Proof: c.Proof,
	}, token)
	if err != nil {
		return "", registrationFault(err)
	}
	p.cfg.Log.Info("device registered", "device", string(d.ID), "proof", string(d.Proof), "approval", string(d.Approval), "gateway", c.Gateway)
	return p.registered(ctx, d)
}

// registered writes the reply, with a new device token.
func (p *Point) registered(ctx context.Context, d cmg.Device) (string, error) {
	now := p.cfg.Now()
	token, record, err := p.issue(auth.Claims{
		Kind: auth.TokenDevice, Device: d.ID, NotBefore: now, Expires: now.Add(p.live.Load().cfg.DeviceTokenLife),
	})
	if err != nil {
		return "", err
	}
	if err := p.cfg.Site.RecordToken(ctx, record); err != nil {
		return "", err
	}
	return ccm.RegistrationReply{
		SMSID: d.ID, Approval: d.Approval, Time: now, DeviceToken: token, Expires: record.Expires,
	}.XML(), nil
}

// approval is the rule in the package comment.
func (p *Point) approval(c cmg.Caller) cmg.Approval {
	switch {
	case c.Proof == cmg.ProofCertificate,
		c.Proof == cmg.ProofToken && c.TokenKind == string(auth.TokenRegistration),
		c.Proof == cmg.ProofToken && p.live.Load().cfg.Approval == "automatic":
		return cmg.Approved
	}
	return cmg.Pending
}

// registrationFault gives the site's reasons their codes.
func registrationFault(err error) error {
	for _, f := range []struct {
		reason error
		code   string
		why    string
	}{
		{site.ErrTokenUnknown, "Unknown", "this registration token is not known here"},
		{site.ErrTokenBlocked, "Blocked", "an administrator has blocked this registration token"},
		{site.ErrTokenNotYetValid, "Not_Yet_Valid", "this registration token is not valid yet"},
		{site.ErrTokenExpired, "Expired", "this registration token has expired"},
		{site.ErrTokenSpent, "Used_Up", "this registration token has no use left"},
	} {
		if errors.Is(err, f.reason) {
			return cmg.Refuse(http.StatusForbidden, "CMGMP_Registration_Token_"+f.code, f.why, err)
		}
	}
	switch {
	case errors.Is(err, site.ErrDeviceBlocked):
		return errDeviceBlocked
	case errors.Is(err, cmg.ErrConflict):
		return cmg.Refuse(http.StatusConflict, "CMGMP_Device_Conflict", "the id or the signing key belongs to another device", err)
	}
	return err
}
