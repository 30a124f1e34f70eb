package managementpoint

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

// statusTime bounds how long a gateway waits for what has to be fetched first.
const statusTime = 8 * time.Second

// statusOf finds out about each certificate of a chain but the root. A list
// that was not known is followed from now on, so that it comes with the
// publications.
func (p *Point) statusOf(ctx context.Context, chain []*x509.Certificate) ([]auth.Status, error) {
	r, err := p.cfg.Site.Revocation(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	var all []auth.Status
	for i, c := range chain[:len(chain)-1] {
		s, err := p.statusOfOne(ctx, r, c, chain[i+1])
		if err != nil {
			return nil, err
		}
		s.Certificate = sha256.Sum256(c.Raw)
		if s.State != auth.StatusGood {
			p.cfg.Log.Info("a certificate that a gateway asked about", "subject", c.Subject.String(), "state", string(s.State), "why", s.Why)
		}
		all = append(all, s)
	}
	return all, nil
}

// statusOfOne asks the authority's list first, then its responders.
func (p *Point) statusOfOne(ctx context.Context, r cmg.Revocation, c, issuer *x509.Certificate) (auth.Status, error) {
	id := auth.IssuerID(issuer)
	set := cmg.IssuerRevocation{}
	if i := slices.IndexFunc(r.Issuers, func(i cmg.IssuerRevocation) bool { return i.Issuer == id }); i >= 0 {
		set = r.Issuers[i]
	}
	responders := overHTTP(set.OCSP)
	if len(responders) == 0 {
		responders = overHTTP(c.OCSPServer)
	}
	var problems []error
	for _, url := range responders {
		s, err := p.fetcher.OCSP(ctx, url, c, issuer, p.cfg.Now())
		if err == nil && s.State != auth.StatusUnknown {
			return s, nil
		}
		if err == nil {
			err = errors.New(url + ": " + s.Why)
		}
		problems = append(problems, err)
	}
	lists := slices.Concat(overHTTP(set.CRL), overHTTP(c.CRLDistributionPoints))
	if len(lists) == 0 && len(responders) == 0 {
		if len(c.CRLDistributionPoints)+len(c.OCSPServer) == 0 {
			return auth.Status{State: auth.StatusGood, Until: p.cfg.Now().Add(followLists)}, nil // nobody says where to ask
		}
		problems = append(problems, fmt.Errorf("it names no address of http or https: set one with cmg trust set: %w", cmg.ErrInvalid))
	}
	for _, url := range lists {
		s, err := p.byList(ctx, id, url, c, issuer)
		if err == nil {
			return s, nil
		}
		problems = append(problems, err)
	}
	why := errors.Join(problems...)
	return auth.Status{State: auth.StatusUnknown, Until: p.cfg.Now(), Why: brief(why)}, nil
}

// overHTTP keeps the addresses that can be asked by HTTP; authorities also name
// others (LDAP).
func overHTTP(urls []string) (kept []string) {
	for _, u := range urls {
		if (cmg.IssuerRevocation{CRL: []string{u}}).Check() == nil {
			kept = append(kept, u)
		}
	}
	return kept
}

// brief gives an error's text on one line, bounded, for a statement.
func brief(err error) string {
	s := strings.ReplaceAll(err.Error(), "\n", "; ")
	const most = 600
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// byList looks c up in a list, which is fetched first if it was never asked
// for, or ended.
func (p *Point) byList(ctx context.Context, issuer, url string, c, authority *x509.Certificate) (auth.Status, error) {
	s, err := p.listAt(ctx, issuer, url)
	if errors.Is(err, cmg.ErrNotFound) {
		if err = p.cfg.Site.FollowRevocation(ctx, issuer, url, authority); err == nil {
			s, err = p.listAt(ctx, issuer, url)
		}
	}
	if err != nil {
		return auth.Status{}, err
	}
	now := p.cfg.Now()
	if stale := s.Digest == (cmg.Digest{}) || !now.Before(s.Next); stale && !now.Before(due(s.Tried, min(s.Failures, 1), 0)) {
		if err := p.fetchLists(ctx, []site.RevocationSource{s}); err != nil {
			return auth.Status{}, err
		}
		if s, err = p.listAt(ctx, issuer, url); err != nil {
			return auth.Status{}, err
		}
	}
	switch {
	case s.Digest == (cmg.Digest{}):
		return auth.Status{}, fmt.Errorf("%s: %s: %w", url, s.Problem, cmg.ErrUnavailable)
	case s.Scope == "users" && c.IsCA, s.Scope == "authorities" && !c.IsCA:
		return auth.Status{}, fmt.Errorf("%s is for %s only: %w", url, s.Scope, cmg.ErrNotFound)
	}
	doc, err := p.cfg.Site.RevocationDocument(ctx, s.Digest)
	if err != nil {
		return auth.Status{}, err
	}
	list, err := auth.ReadRevokedList(doc)
	switch {
	case err != nil:
		return auth.Status{}, err
	case list.Has(c.SerialNumber):
		return auth.Status{State: auth.StatusRevoked, Until: s.Next, Why: "in the list of " + url}, nil
	case !now.Before(s.Next):
		return auth.Status{}, fmt.Errorf("%s: the list ended %s: %s: %w", url, s.Next.Format(time.RFC3339), s.Problem, cmg.ErrUnavailable)
	}
	return auth.Status{State: auth.StatusGood, Until: s.Next}, nil
}

func (p *Point) listAt(ctx context.Context, issuer, url string) (site.RevocationSource, error) {
	all, err := p.cfg.Site.RevocationSources(ctx)
	if err != nil {
		return site.RevocationSource{}, err
	}
	for _, s := range all {
		if s.Issuer == issuer && s.URL == url {
			return s, nil
		}
	}
	return site.RevocationSource{}, fmt.Errorf("revocation list %.200q: %w", url, cmg.ErrNotFound)
}
