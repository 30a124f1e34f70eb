package gateway

import (
	"time"

	"github.com/opencmg/cmg"
)

// keepSigned is how long a caller's header is used again without asking for
// it: the signer gives one that holds for a minute at least.
const keepSigned = 30 * time.Second

// A keptProof is what a connection's last request by token proved. It stands
// for the proof of the next one that shows the same token to the same
// publication and route: a new publication, which is what every block and
// every new key comes with, has another edge.
type keptProof struct {
	edge          *edge
	route         *published
	authorization string
	caller        cmg.Caller

	signedAt time.Time // zero: the header is another caller's
}

// provenBefore says that the request needs no new proof, and who calls.
func (x *exchange) provenBefore(e *edge) bool {
	k := &x.kept
	if k.edge != e || k.route != x.route || k.authorization != x.evidence.Authorization || !x.started.Before(k.caller.NotAfter) {
		k.signedAt = time.Time{}
		return false
	}
	x.caller = k.caller
	return true
}

// keepProof keeps a proof by token. One by certificate is judged anew each
// time: whether it is revoked can change without a publication.
func (x *exchange) keepProof(e *edge) {
	if x.caller.Proof == cmg.ProofToken && !x.caller.NotAfter.IsZero() {
		x.kept = keptProof{edge: e, route: x.route, authorization: x.evidence.Authorization, caller: x.caller}
		return
	}
	x.kept = keptProof{}
}

// sign gives the caller as the inside is told.
func (x *exchange) sign() error {
	x.caller.Gateway = x.g.cfg.Name
	if at := x.kept.signedAt; !at.IsZero() && x.told != nil && x.started.Sub(at) < keepSigned && !x.started.Before(at) {
		return nil
	}
	signed, err := x.g.live.Load().of(x.site).signer.Sign(x.caller, x.started)
	if err != nil {
		return err
	}
	if x.signed != signed { // one caller's stays the same for minutes
		x.signed, x.told = signed, []byte(signed)
	}
	if x.kept.edge != nil {
		x.kept.signedAt = x.started
	}
	return nil
}
