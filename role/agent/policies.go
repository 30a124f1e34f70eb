package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

// maxPolicy bounds a policy's body, in bytes.
const maxPolicy = 4 << 20

// applyPolicies asks what applies and obeys what is not obeyed yet.
func (a *Agent) applyPolicies(ctx context.Context) error {
	assigned, err := a.assignments(ctx)
	if err != nil {
		return fmt.Errorf("get policy assignments: %w", err)
	}
	a.forgetOthers(assigned)
	var errs []error
	for _, p := range assigned { // in the order they were made: what is younger wins
		done := a.state.Policies[p.PolicyID]
		if done != nil && done.Digest == p.Digest && done.State == succeeded {
			continue
		}
		if err := a.applyPolicy(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("policy %s: %w", p.PolicyID, err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(append(errs, a.save())...)
}

// forgetOthers drops what is known of policies that are not assigned any
// more. It comes before the others are obeyed: what was taken back has no say
// in what may be installed.
func (a *Agent) forgetOthers(assigned []ccm.Assignment) {
	for id := range a.state.Policies {
		if !slices.ContainsFunc(assigned, func(p ccm.Assignment) bool { return p.PolicyID == id }) {
			a.cfg.Log.Info("policy does not apply any more", "policy", id)
			delete(a.state.Policies, id)
		}
	}
}

func (a *Agent) assignments(ctx context.Context) ([]ccm.Assignment, error) {
	text, err := a.askInSession(ctx, ccm.Sending{
		TargetEndpoint: ccm.EndpointPolicy, ReplyEndpoint: "PolicyAgent_ReplyAssignments",
		Body: ccm.AssignmentRequest{Client: a.state.Device, FQDN: a.cfg.Name, NetBIOSName: a.cfg.Name, PolicySource: "SMS:" + a.cfg.SiteCode}.XML(),
	})
	if err != nil {
		return nil, err
	}
	r, err := ccm.ReadAssignmentReply(text)
	if err != nil {
		return nil, err
	}
	return r.Assignments, a.verifySite(ctx, r.Assignments)
}

// applyPolicy fetches one policy, obeys it, keeps and reports how that went.
func (a *Agent) applyPolicy(ctx context.Context, p ccm.Assignment) error {
	outcome := &obedience{Digest: p.Digest, State: succeeded}
	deployments, err := a.fetchPolicy(ctx, p)
	if err == nil {
		outcome.Content, err = a.deploy(ctx, p.PolicyID, deployments)
	}
	if ctx.Err() != nil {
		return ctx.Err() // cut short, not failed
	}
	if err != nil {
		outcome.State, outcome.Detail = failed, short(err.Error(), 500)
	}
	outcome.At = a.cfg.Now()
	before := a.state.Policies[p.PolicyID]
	a.state.Policies[p.PolicyID] = outcome
	if before == nil || before.Digest != outcome.Digest || before.State != outcome.State || before.Detail != outcome.Detail {
		a.queueState(p.PolicyID, outcome)
	}
	if saved := a.save(); saved != nil {
		return errors.Join(err, saved)
	}
	a.cfg.Log.Info("policy applied", "policy", p.PolicyID, "category", p.Category, "state", outcome.State)
	return err
}

// fetchPolicy gets a policy's body, decrypts it where it is secret, compares
// its digest with the assignment's, and gives what it deploys.
func (a *Agent) fetchPolicy(ctx context.Context, p ccm.Assignment) ([]ccm.ContentDeployment, error) {
	path, err := policyPath(p.Location)
	if err != nil {
		return nil, err
	}
	secret := p.Flags&cmg.PolicySecret != 0
	var prepare func(http.Header) error
	if secret {
		prepare = func(h http.Header) error {
			h.Set("Accept", ccm.EnvelopeType)
			return ccm.SignClientHeader(h, a.identity.key, a.state.Device, a.cfg.Now())
		}
	}
	b, err := a.get(ctx, path, prepare, maxPolicy)
	if err == nil && secret {
		b, err = ccm.Open(b, a.identity.key)
	}
	if err != nil {
		return nil, err
	}
	want := p.Digest
	if got := cmg.Digest(sha256.Sum256(b)); !bytes.Equal(got[:], want[:]) {
		return nil, fmt.Errorf("the body's SHA-256 is %s, assigned was %s: %w", got, want, cmg.ErrInvalid)
	}
	body, err := ccm.ReadPolicyBody(b)
	if err != nil {
		return nil, err
	}
	return body.ContentDeployments()
}

// policyPath gives the path and query of a policy's location, whose host is
// only a placeholder: policies come from our management point alone.
func policyPath(location string) (string, error) {
	for _, start := range []string{"http://<mp>", "https://<mp>"} {
		rest, ok := strings.CutPrefix(location, start)
		if !ok {
			continue
		}
		path, query, _ := strings.Cut(rest, "?")
		if strings.EqualFold(path, "/SMS_MP/.sms_pol") && len(query) < 512 {
			return path + "?" + url.QueryEscape(query), nil // braces are not allowed in a URL
		}
	}
	return "", fmt.Errorf("policy location %.200q is not http://<mp>/SMS_MP/.sms_pol?…: %w", location, cmg.ErrInvalid)
}

// short cuts s to at most n bytes.
func short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
