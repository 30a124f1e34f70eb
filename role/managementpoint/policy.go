package managementpoint

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// assignments answers a policy request (PROTOCOL 6.1, 6.2): every policy that
// is in force for the device. Secret ones are named to approved devices only.
func (p *Point) assignments(ctx context.Context, m *ccm.Message, text string) (string, error) {
	d, err := p.sender(ctx, m, true)
	if err != nil {
		return "", err
	}
	r, err := ccm.ReadAssignmentRequest(text)
	if err != nil {
		return "", err
	}
	if r.Client != "" && r.Client != d.ID {
		return "", errMismatch
	}
	policies, err := p.cfg.Site.Policies(ctx, d.ID)
	if err != nil {
		return "", err
	}
	live := p.live.Load()
	var reply ccm.AssignmentReply
	for _, a := range policies {
		if a.Flags&cmg.PolicySecret != 0 && d.Approval != cmg.Approved {
			continue
		}
		assignment := ccm.NewAssignment(a.ID, a.Version, a.Category, a.Flags, a.SHA256)
		if err := live.signed.sign(&assignment, live.signing.Signer()); err != nil {
			return "", err
		}
		reply.Assignments = append(reply.Assignments, assignment)
	}
	return reply.XML(), nil
}

// policyBody gives a policy's body by its id and digest, or by its id alone
// where the query names a version. A body that is not secret needs no
// signature: whoever knows the digest has had the assignment.
func (p *Point) policyBody(w http.ResponseWriter, r *http.Request) error {
	if err := mayUse(r.Context(), useRead); err != nil {
		return err
	}
	id, digest, err := ccm.ReadPolicyQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("the query names no policy", err)
	}
	policy, err := p.cfg.Site.Policy(r.Context(), strings.ToUpper(id))
	if err == nil && digest != (cmg.Digest{}) && digest != policy.SHA256() {
		err = cmg.ErrNotFound
	}
	if errors.Is(err, cmg.ErrNotFound) {
		return cmg.Refuse(http.StatusNotFound, "CMGMP_Policy_Unknown", "no policy in force has this id and digest: ask for the assignments again", err)
	} else if err != nil {
		return err
	}
	if policy.Flags&cmg.PolicySecret != 0 {
		return p.secretBody(w, r, policy)
	}
	return write(w, r, "text/xml", policy.Body)
}
