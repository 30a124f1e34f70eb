package managementpoint

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

// register answers a registration (PROTOCOL 4.1, 4.2). The caller has to be
// proven, unless Compatibility.AnonymousRegistration is set. A device whose proof names it keeps that name; any other gets the
// one its signing key has, or a new one. The id that a sender wishes for
// counts for nothing.
func (p *Point) register(ctx context.Context, m *ccm.Message, text string) (string, error) {
	c, ok := cmg.CallerFrom(ctx)
	if !ok && !p.live.Load().cfg.Compatibility.AnonymousRegistration {
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
		if err := p.mayRegisterFrom(ctx, token); err != nil {
			return "", err
		}
	}
	keep, id := p.cfg.Site.Register, c.Device
	if signed, err := p.formerKeySigned(ctx, m, r, text); err != nil {
		return "", err
	} else if signed {
		keep, id = p.cfg.Site.RegisterNewKey, m.Source
	}
	d, err := keep(ctx, cmg.Device{
		ID: id, Name: r.NetBIOSName, FQDN: r.FQDN, Agent: r.AgentVersion, Certificate: r.Signing, Encryption: r.Encryption, Hardware: r.Hardware,
		Approval: p.approval(ctx, c), Proof: c.Proof, Thumbprint: c.Thumbprint,
	}, token)
	if err != nil {
		return "", registrationFault(err)
	}
	p.cfg.Log.Info("device registered", "device", string(d.ID), "proof", string(d.Proof), "approval", string(d.Approval), "gateway", c.Gateway)
	return p.registered(ctx, d)
}

// registered writes the reply, with a new device token for whoever was proven:
// a token opens gateways, and nobody gets that by asking.
func (p *Point) registered(ctx context.Context, d cmg.Device) (string, error) {
	now := p.cfg.Now()
	if c, _ := cmg.CallerFrom(ctx); c.Proof == cmg.ProofNone {
		return ccm.RegistrationReply{SMSID: d.ID, Approval: d.Approval, Time: now}.XML(), nil
	}
	token, record, err := p.issueDeviceToken(d.ID, now)
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

// issueDeviceToken signs a device token and gives the record to keep of it.
func (p *Point) issueDeviceToken(id cmg.DeviceID, now time.Time) (string, site.Token, error) {
	return p.issue(auth.Claims{
		Kind: auth.TokenDevice, Device: id, NotBefore: now, Expires: now.Add(p.live.Load().cfg.DeviceTokenLife), Grace: p.live.Load().cfg.DeviceTokenGrace,
	})
}

// mayRegisterFrom refuses a registration token that is shown from an address
// it is not for, as the gateway saw it.
func (p *Point) mayRegisterFrom(ctx context.Context, token string) error {
	t, err := p.cfg.Site.Token(ctx, token)
	if errors.Is(err, cmg.ErrNotFound) || err == nil && len(t.Sources) == 0 {
		return nil // one without a record is refused when it is spent
	} else if err != nil {
		return err
	}
	from, _ := ctx.Value(clientAddress{}).(string)
	ip, err := netip.ParseAddr(from)
	if err == nil {
		for _, s := range t.Sources {
			prefix, err := netip.ParsePrefix(s)
			if err == nil && prefix.Contains(ip.Unmap().WithZone("")) {
				return nil
			}
		}
	}
	return cmg.Refuse(http.StatusForbidden, "CMGMP_Registration_Token_Wrong_Address", "this registration token is not for this address", err).
		With("address", from, "token id", token, "allowed from", strings.Join(t.Sources, " "))
}

// approval is the rule in the package comment.
func (p *Point) approval(ctx context.Context, c cmg.Caller) cmg.Approval {
	switch {
	case isAlternate(ctx):
		return cmg.Pending
	case c.Proof == cmg.ProofCertificate, c.Proof == cmg.ProofEntra,
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
	case errors.Is(err, site.ErrTooManyWaiting):
		return cmg.Refuse(http.StatusServiceUnavailable, "CMGMP_Too_Many_Pending", "too many devices that nothing proves wait for an administrator", err)
	case errors.Is(err, cmg.ErrConflict):
		return cmg.Refuse(http.StatusConflict, "CMGMP_Device_Conflict", "the id or the signing key belongs to another device", err)
	}
	return err
}
