package managementpoint

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

// formerKeySigned says whether a registration is one by which a device changes
// its key: the message around it is signed by the key that is registered, and
// what it holds by the new one. Nothing of a message says when it was sent, so
// that the registration's own time counts: it has to be near, and each such
// registration is good once. Otherwise an old one would bring an old key back.
func (p *Point) formerKeySigned(ctx context.Context, m *ccm.Message, r ccm.Registration, text string) (bool, error) {
	if !m.Signed() {
		return false, nil
	}
	d, err := p.signingKey(ctx, m.Source)
	if errors.Is(err, cmg.ErrNotFound) { // not known (any more): it registers as anybody does
		return false, nil
	} else if err != nil {
		return false, err
	}
	if err := m.VerifySender(d.key); err != nil {
		return false, cmg.Refuse(http.StatusUnauthorized, "CMGMP_Signature_Invalid", "the message's signature is not by the key this device registered", err)
	}
	if r.SMSID != "" && r.SMSID != m.Source {
		return false, errMismatch
	}
	if key, err := ccm.SigningKey(r.Signing); err == nil && key.Equal(d.key) {
		return false, nil // the same key: nothing to guard
	}
	now, allowance := p.cfg.Now(), p.live.Load().cfg.ClockAllowance
	if now.Sub(r.Time).Abs() > allowance {
		return false, cmg.Refuse(http.StatusUnauthorized, "CMGMP_Proof_Invalid", "the registration of a new key has a time too far from this clock", nil).
			With("device", string(m.Source), "signed time", stamp(r.Time), "clock here", stamp(now), "allowance", allowance.String())
	}
	sum := sha256.Sum256([]byte(text))
	err = p.cfg.Site.UseProof(ctx, "registration;"+hex.EncodeToString(sum[:]), now.Add(2*allowance))
	if errors.Is(err, site.ErrProofUsed) {
		return false, errReplayed(err).With("device", string(m.Source), "signed time", stamp(r.Time))
	}
	return err == nil, err
}
