package managementpoint

import (
	"errors"
	"net/http"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// secretPage is what somebody gets who asks for a secret policy and says
// nothing of who that is: readers of the field tell it by how it begins
// (PROTOCOL 2.3).
const secretPage = "<HTML><HEAD><TITLE>Policy</TITLE></HEAD><BODY>This policy is secret.</BODY></HTML>"

// secretBody gives a secret policy to an approved device, encrypted to it.
// Nobody else can read the answer, so that a signed time may be shown for it
// again: the field's clients send theirs with every policy they fetch.
func (p *Point) secretBody(w http.ResponseWriter, r *http.Request, policy cmg.Policy) error {
	id, err := p.secretReader(r)
	if err != nil {
		return err
	}
	if id == "" {
		return write(w, r, "text/html", []byte(secretPage))
	}
	d, err := p.device(r.Context(), id)
	if errors.Is(err, cmg.ErrNotFound) {
		return errDeviceUnknown(err)
	} else if err != nil {
		return err
	}
	if d.Approval != cmg.Approved {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Device_Not_Approved", "the device has to be approved before it gets secrets", nil)
	}
	if yes, err := p.cfg.Site.Applies(r.Context(), policy, d.ID); err != nil {
		return err
	} else if !yes {
		return cmg.Refuse(http.StatusNotFound, "CMGMP_Policy_Unknown", "no policy in force for this device has this id: ask for the assignments again", nil)
	}
	certificate := d.Encryption
	if len(certificate) == 0 {
		certificate = d.Certificate
	}
	strong := strings.Contains(r.Header.Get("Accept"), ccm.EnvelopeType)
	sealed, err := ccm.Seal(certificate, policy.Body, p.live.Load().cfg.Compatibility.LegacyEncryption && !strong)
	if err != nil {
		return err
	}
	kind := "text/xml" // what readers of the field expect
	if strong {
		kind = ccm.EnvelopeType
	}
	return write(w, r, kind, sealed)
}

// secretReader gives the device that asks: the one that signed, or else the
// one that the caller's proof names; empty where nothing says. A signature
// that is there has to hold.
func (p *Point) secretReader(r *http.Request) (cmg.DeviceID, error) {
	c, _ := cmg.CallerFrom(r.Context())
	if h, err := ccm.ReadClientHeader(r.Header); err != nil || h != nil {
		if err != nil {
			return "", err
		}
		return h.Device, nil // checkSignature has verified it
	}
	if len(r.Header.Values(ccm.HeaderClientToken)) == 0 {
		return c.Device, nil
	}
	id, _, _, err := p.possession(r, p.live.Load().cfg.ClockAllowance)
	return id, err
}
