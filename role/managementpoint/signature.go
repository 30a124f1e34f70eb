package managementpoint

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/bits"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

// checkSignature checks the CCMClient… headers of a request, if it has any
// (PROTOCOL 5): what is signed has to hold whatever else proves the caller.
//
// The field's downloads send the same signed time with every range they ask
// for, its uploads with every fragment, so a time may be shown again while it
// holds with the methods in repeated. With any other it is good for one use on
// a path.
func (p *Point) checkSignature(r *http.Request) error {
	h, err := ccm.ReadClientHeader(r.Header)
	if err != nil {
		return cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "the CCMClient headers are not id, time and a signature of each", err)
	}
	if h == nil {
		return nil
	}
	ctx, now := r.Context(), p.cfg.Now()
	if c, _ := cmg.CallerFrom(ctx); c.Device != "" && c.Device != h.Device {
		return errMismatch
	}
	d, err := p.signingKey(ctx, h.Device)
	if err != nil {
		return err
	}
	if err := h.Verify(d.key, now, p.live.Load().cfg.ClockAllowance); err != nil {
		return cmg.Refuse(http.StatusUnauthorized, "CMGMP_Proof_Invalid", "the CCMClient headers do not hold: another key, or a time too far from this clock", err).
			With("device", string(h.Device), "signed time", stamp(h.Time), "clock here", stamp(now), "allowance", p.live.Load().cfg.ClockAllowance.String())
	}
	if !repeated[r.Method] {
		proof := strings.Join([]string{"header", string(h.Device), stamp(h.Time), r.Method, strings.ToLower(r.URL.Path)}, ";")
		err := p.cfg.Site.UseProof(ctx, proof, h.Time.Add(p.live.Load().cfg.ClockAllowance+time.Second))
		if errors.Is(err, site.ErrProofUsed) {
			return errReplayed(err).With("device", string(h.Device), "signed time", stamp(h.Time))
		} else if err != nil {
			return err
		}
	}
	p.seen.note(d.ID, now)
	return nil
}

// repeated are the methods of downloads and uploads. Of the latter a session
// has an id that nobody can guess, and is one device's.
var repeated = map[string]bool{http.MethodGet: true, http.MethodHead: true, http.MethodOptions: true, "PROPFIND": true, bits.Method: true}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
