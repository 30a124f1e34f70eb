package managementpoint

import (
	"errors"
	"net/http"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// requester gives who makes a request that holds no message: the device that
// the gateway's proof names, or the one whose key signed the CCMClient headers
// (PROTOCOL 5), which checkSignature has checked where they are.
func (p *Point) requester(r *http.Request) (cmg.Device, error) {
	ctx := r.Context()
	if err := mayUse(ctx, useTalk); err != nil {
		return cmg.Device{}, err
	}
	c, _ := cmg.CallerFrom(ctx)
	id := c.Device
	if h, err := ccm.ReadClientHeader(r.Header); err != nil {
		return cmg.Device{}, badRequest("the CCMClient headers cannot be read", err)
	} else if h != nil {
		id = h.Device
	}
	if id == "" {
		return cmg.Device{}, cmg.Refuse(http.StatusUnauthorized, "CMGMP_Proof_Required", "nothing says which device this is: come with a token, or sign the CCMClient headers", nil)
	}
	d, err := p.device(ctx, id)
	if errors.Is(err, cmg.ErrNotFound) {
		return cmg.Device{}, errDeviceUnknown(err)
	}
	return d, err
}
