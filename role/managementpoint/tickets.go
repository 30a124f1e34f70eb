package managementpoint

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/opencmg/cmg"
)

// ticketSecrets answers a connection point with a cmg.TicketSecrets in JSON:
// what the gateways make the keys of TLS session tickets of.
func (p *Point) ticketSecrets(w http.ResponseWriter, r *http.Request) error {
	if _, called := cmg.CallerFrom(r.Context()); called || !p.fromConnectionPoint(r) {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Connection_Point_Required", "only a connection point of this site may have the secrets of session tickets", nil)
	}
	t, err := p.cfg.Site.TicketSecrets(r.Context())
	if err != nil {
		return err
	}
	body, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("write ticket secrets: %w", cmg.ErrInvalid) // the cause could quote one
	}
	return write(w, r, "application/json", body)
}
