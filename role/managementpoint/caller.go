package managementpoint

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// The errors of callers, as the package comment lists them.
var (
	errCallerRequired = cmg.Refuse(http.StatusUnauthorized, "CMGMP_Caller_Required", "this has to come through a gateway that has proven the caller", nil)
	errDeviceBlocked  = cmg.Refuse(http.StatusForbidden, "CMGMP_Device_Blocked", "an administrator has blocked this device", nil)
	errMismatch       = cmg.Refuse(http.StatusForbidden, "CMGMP_Sender_Mismatch", "the message names another device than the proof does", nil)
)

// withCaller puts the caller that a gateway has proven into the request's
// context. A request without one stays as it is.
func (p *Point) withCaller(r *http.Request) (*http.Request, error) {
	header := r.Header.Values(auth.CallerHeader)
	if len(header) == 0 {
		return r, nil
	}
	if !p.fromConnectionPoint(r) || len(header) != 1 {
		return nil, cmg.Refuse(http.StatusForbidden, "CMGMP_Caller_Not_Trusted", "only a connection point may say who is calling, and once", nil)
	}
	ctx := r.Context()
	c, err := p.callers.Read(ctx, header[0], p.cfg.Now())
	if err != nil {
		return nil, err
	}
	if err := p.admit(ctx, c); err != nil {
		return nil, err
	}
	return r.WithContext(cmg.WithCaller(ctx, c)), nil
}

// fromConnectionPoint says whether the peer is a connection point of this site.
func (p *Point) fromConnectionPoint(r *http.Request) bool {
	peer, ok := auth.PeerRole(r.TLS)
	return ok && peer.Role == cmg.RoleConnectionPoint && peer.Site == p.live.Load().id.Name().Site
}

// gatewayCertificate finds the certificate with which a gateway signs
// callers: one that this site has issued and recorded.
func (p *Point) gatewayCertificate(ctx context.Context, thumbprint string) (*x509.Certificate, error) {
	c, err := p.cfg.Site.CertificateByThumbprint(ctx, thumbprint)
	if err != nil {
		return nil, err
	}
	name, ok := auth.RoleOf(c.Certificate)
	if !ok || name.Site != p.live.Load().id.Name().Site {
		return nil, fmt.Errorf("certificate %s is not of this site: %w", thumbprint, cmg.ErrNotFound)
	}
	_, err = c.Certificate.Verify(x509.VerifyOptions{
		Roots: p.live.Load().id.Roots(), CurrentTime: p.cfg.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("verify certificate %s: %w (%w)", thumbprint, err, cmg.ErrNotFound)
	}
	return c.Certificate, nil
}

// admit refuses a caller whose proof has ended, or whose device or token an
// administrator has blocked. A gateway's word is up to five minutes old.
func (p *Point) admit(ctx context.Context, c cmg.Caller) error {
	now := p.cfg.Now()
	if !c.NotAfter.IsZero() && !now.Before(c.NotAfter) {
		return cmg.Refuse(http.StatusUnauthorized, "CMGMP_Caller_Expired", "the caller's certificate or token has ended", nil)
	}
	if c.TokenID != "" {
		t, err := p.cfg.Site.Token(ctx, c.TokenID)
		switch {
		case err == nil && t.Blocked:
			return cmg.Refuse(http.StatusForbidden, "CMGMP_Token_Blocked", "an administrator has blocked this token", nil)
		case err != nil && !errors.Is(err, cmg.ErrNotFound):
			return err
		}
		// A token without a record passes here: its signature proves that the
		// site issued it. Registration, which counts uses, needs the record.
	}
	if c.Device == "" {
		return nil
	}
	_, err := p.device(ctx, c.Device)
	if errors.Is(err, cmg.ErrNotFound) {
		if c.Proof == cmg.ProofCertificate {
			return nil // issued ahead of the device's registration
		}
		return errDeviceUnknown(err)
	} else if err != nil {
		return err
	}
	p.seen.note(c.Device, now)
	return nil
}

func errDeviceUnknown(cause error) error {
	return cmg.Refuse(http.StatusUnauthorized, "CMGMP_Device_Unknown", "this device is not registered here: register again", cause)
}

// device gives a device that may talk: cmg.ErrNotFound for an unknown one, a
// refusal for a blocked one.
func (p *Point) device(ctx context.Context, id cmg.DeviceID) (cmg.Device, error) {
	d, err := p.cfg.Site.Device(ctx, id)
	if err == nil && d.Approval == cmg.Blocked {
		return cmg.Device{}, errDeviceBlocked
	}
	return d, err
}

// A use is what somebody wants to do here.
type use int

const (
	useRead     use = iota // lists and policy bodies
	useRegister            // registration
	useExchange            // a device token for a session token
	useTalk                // every other message
)

// mayUse says why the caller in ctx may not do u. Whether a request without a
// caller may is for the handler to say.
func mayUse(ctx context.Context, u use) error {
	c, ok := cmg.CallerFrom(ctx)
	if !ok || c.Proof == cmg.ProofCertificate {
		return nil
	}
	allowed := false
	switch auth.TokenKind(c.TokenKind) {
	case auth.TokenRegistration:
		allowed = u == useRegister
	case auth.TokenDevice:
		allowed = u == useExchange
	case auth.TokenSession:
		allowed = u != useExchange
	}
	if c.Proof != cmg.ProofToken || !allowed {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Token_Kind", "this kind of token is not for this", fmt.Errorf("token kind %.20q", c.TokenKind))
	}
	return nil
}
