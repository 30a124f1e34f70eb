package managementpoint

import (
	"context"
	"fmt"
	"net/http"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// limits bounds a message: what the published routes let through, and as much
// again of text when it is decompressed.
var limits = ccm.Limits{Message: 8 << 20, Payload: 8 << 20}

// A talk answers the messages to one endpoint: the reply's XML, which may be
// empty.
type talk func(p *Point, ctx context.Context, m *ccm.Message, text string) (string, error)

var talks = map[string]talk{
	ccm.EndpointRegistration: (*Point).register,
	ccm.EndpointPolicy:       (*Point).assignments,
	ccm.EndpointLocation:     (*Point).location,
	ccm.EndpointDiscovery:    (*Point).takeReport,
	ccm.EndpointState:        (*Point).takeReport,
}

// message answers CCM_POST (PROTOCOL 3). Messages that expect no useful reply
// get a small one all the same: some senders repeat for ever without.
func (p *Point) message(w http.ResponseWriter, r *http.Request) error {
	m, err := ccm.ReadMessage(r.Header.Get("Content-Type"), r.Body, limits)
	if err != nil {
		return badRequest("the message cannot be read", err)
	}
	text, err := m.Text()
	if err != nil {
		return badRequest("the message's body cannot be read", err)
	}
	answer, ok := talks[m.TargetEndpoint]
	if !ok {
		p.count.request("message to an unknown endpoint")
		return cmg.Refuse(http.StatusNotFound, "CMGMP_Endpoint_Unknown", "no endpoint of the management point has this name", fmt.Errorf("endpoint %.60q", m.TargetEndpoint))
	}
	p.count.request(m.TargetEndpoint)
	reply, err := answer(p, r.Context(), m, text)
	if err != nil {
		return badRequest("the message's content is not as it should be", err)
	}
	contentType, body, err := ccm.Reply(m, reply, p.cfg.Now())
	if err != nil {
		return err
	}
	return write(w, r, contentType, body)
}

// sender proves that a message is of the device it names, and gives that
// device. The signature of the registered key proves it; where it need not be
// there, so does a caller whose proof names the device. A signature that is
// there has to hold in any case.
func (p *Point) sender(ctx context.Context, m *ccm.Message, needSignature bool) (cmg.Device, error) {
	if err := mayUse(ctx, useTalk); err != nil {
		return cmg.Device{}, err
	}
	c, _ := cmg.CallerFrom(ctx)
	switch {
	case m.Source == "":
		return cmg.Device{}, cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "the message names no sender", nil)
	case c.Device != "" && c.Device != m.Source:
		return cmg.Device{}, errMismatch
	}
	d, err := p.signingKey(ctx, m.Source)
	if err != nil {
		return cmg.Device{}, err
	}
	switch {
	case m.Signed():
		if err := m.VerifySender(d.key); err != nil {
			return cmg.Device{}, cmg.Refuse(http.StatusUnauthorized, "CMGMP_Signature_Invalid", "the message's signature is not by the key this device registered", err)
		}
		if err := m.VerifyHookTime(d.key, p.cfg.Now(), p.live.Load().cfg.ClockAllowance); err != nil {
			return cmg.Device{}, cmg.Refuse(http.StatusUnauthorized, "CMGMP_Proof_Invalid", "the signed time in the message's hook does not hold: another key, or too far from this clock", err).
				With("device", string(m.Source), "clock here", stamp(p.cfg.Now()), "allowance", p.live.Load().cfg.ClockAllowance.String())
		}
	case needSignature || c.Device == "":
		return cmg.Device{}, cmg.Refuse(http.StatusUnauthorized, "CMGMP_Signature_Required", "the message has to be signed by the key this device registered", nil)
	}
	p.seen.note(d.ID, p.cfg.Now())
	return d.Device, nil
}
