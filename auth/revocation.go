package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/opencmg/cmg"
)

// Known is what a gateway knows of revoked certificates beside a publication.
// The zero value knows nothing.
type Known struct {
	// Lists are the documents that the publication's infos name. Where one is
	// not there yet, an older one of the same authority and place may stand
	// for it, with its own info.
	Lists []KnownList
	// Answers is what the site said about single certificates.
	Answers *Answers
}

// A KnownList is a list with what was said of it when it was published.
type KnownList struct {
	Info cmg.RevocationListInfo
	List *RevokedList
}

// An Unchecked error says that a certificate would be let in if it was known
// not to be revoked. Whoever can should ask the site about the chain, put the
// answer into the [Answers], and judge again.
type Unchecked struct{ Chain []*x509.Certificate }

func (u *Unchecked) Error() string {
	return fmt.Sprintf("nobody was asked whether %s or an authority above it is revoked", u.Chain[0].Subject)
}

// revocations judges chains by one publication.
type revocations struct {
	mode    cmg.RevocationMode
	grace   time.Duration
	issuers map[string]*issuerState
	answers *Answers
}

type issuerState struct {
	mode  cmg.RevocationMode
	named bool // an administrator said where to ask
	lists []KnownList
}

func newRevocations(r cmg.Revocation, k Known) *revocations {
	v := &revocations{mode: r.Mode, grace: time.Duration(r.Grace) * time.Second, issuers: map[string]*issuerState{}, answers: k.Answers}
	if v.mode == "" {
		v.mode = cmg.RevocationHard
	}
	of := func(issuer string) *issuerState {
		if v.issuers[issuer] == nil {
			v.issuers[issuer] = &issuerState{mode: v.mode}
		}
		return v.issuers[issuer]
	}
	for _, i := range r.Issuers {
		s := of(i.Issuer)
		if i.Mode != "" {
			s.mode = i.Mode
		}
		s.named = len(i.CRL)+len(i.OCSP) > 0
	}
	for _, l := range k.Lists {
		s := of(l.Info.Issuer)
		s.lists = append(s.lists, l)
	}
	return v
}

// forever is until when something holds that no clock changes.
var forever = time.Unix(1<<40, 0)

// verdict is what was found out about one certificate.
type verdict struct {
	state StatusState // StatusUnknown: the mode decides, and decided to refuse
	until time.Time   // how long a good one may be remembered
	why   string
	ask   bool // nobody was asked yet
}

// judge gives how long the best of the chains may be trusted, or why none is.
func (v *revocations) judge(chains [][]*x509.Certificate, at time.Time) (until time.Time, err error) {
	var refused error
	for _, chain := range chains {
		end, err := v.judgeChain(chain, at)
		if err == nil {
			if end.After(until) {
				until = end
			}
			continue
		}
		if refused == nil || known(err) {
			refused = err
		}
	}
	if !until.IsZero() {
		return until, nil
	}
	return until, refused
}

func known(err error) bool {
	r, ok := err.(*cmg.Refusal)
	return ok && r.Code == codeCertificate+"_Revoked"
}

func (v *revocations) judgeChain(chain []*x509.Certificate, at time.Time) (until time.Time, err error) {
	until = forever
	var unknown *verdict
	ask := false
	for i, c := range chain[:len(chain)-1] {
		d := v.status(c, chain[i+1], at)
		if d.until.Before(until) && d.state == StatusGood {
			until = d.until
		}
		switch {
		case d.state == StatusRevoked:
			return until, refuseCertificate("_Revoked", whose(i)+" was revoked by its authority", fmt.Errorf("%s, serial number %x: %s", c.Subject, c.SerialNumber, d.why))
		case d.state == StatusUnknown:
			unknown, ask = &d, ask || d.ask
		}
	}
	if unknown == nil {
		return until, nil
	}
	var cause error = fmt.Errorf("%s", unknown.why)
	if ask {
		cause = &Unchecked{chain}
	}
	return until, refuseCertificate("_Revocation_Unknown", "it cannot be found out whether the client certificate was revoked: neither its authority's list nor a responder could be had", cause)
}

func whose(place int) string {
	if place == 0 {
		return "the client certificate"
	}
	return "the certificate of an authority above the client's"
}

// status says what is known of c, which issuer issued.
func (v *revocations) status(c, issuer *x509.Certificate, at time.Time) verdict {
	mode, set := v.mode, v.issuers[IssuerID(issuer)]
	if set != nil {
		mode = set.mode
	} else {
		set = &issuerState{}
	}
	if mode == cmg.RevocationOff {
		return verdict{state: StatusGood, until: forever}
	}
	if d, ok := set.byLists(c, v.grace, at); ok {
		return d
	}
	if !set.named && len(c.CRLDistributionPoints) == 0 && len(c.OCSPServer) == 0 {
		// Neither the authority nor the administrator says where to look:
		// certificates of this authority cannot be revoked.
		return verdict{state: StatusGood, until: forever}
	}
	return v.byAnswer(c, mode, at)
}

// byLists says what the issuer's lists say of c; not ok: none speaks for it.
func (s *issuerState) byLists(c *x509.Certificate, grace time.Duration, at time.Time) (d verdict, ok bool) {
	for _, l := range s.lists {
		if l.List.Has(c.SerialNumber) {
			return verdict{state: StatusRevoked, why: "in the list of " + l.Info.URL}, true
		}
		end := l.Info.Next.Add(grace)
		if covers(l.Info, c) && at.Before(end) && end.After(d.until) {
			d, ok = verdict{state: StatusGood, until: end}, true
		}
	}
	return d, ok
}

// covers says whether a list would name c if it was revoked.
func covers(l cmg.RevocationListInfo, c *x509.Certificate) bool {
	switch {
	case l.Scope == "users" && c.IsCA, l.Scope == "authorities" && !c.IsCA:
		return false
	case l.Partial:
		return slices.Contains(c.CRLDistributionPoints, l.URL)
	}
	return true
}

func (v *revocations) byAnswer(c *x509.Certificate, mode cmg.RevocationMode, at time.Time) verdict {
	a, ok := v.answers.get(sha256.Sum256(c.Raw))
	switch {
	case !ok, a.State != StatusUnknown && !at.Before(a.Until) && at.Sub(a.asked) > askAgain:
		return verdict{state: StatusUnknown, ask: true, why: "nobody was asked yet"}
	case a.State == StatusRevoked:
		return verdict{state: StatusRevoked, why: a.Why}
	case a.State == StatusGood && at.Before(a.Until):
		return verdict{state: StatusGood, until: a.Until}
	case at.Sub(a.asked) > askAgain:
		return verdict{state: StatusUnknown, ask: true, why: "it was asked too long ago"}
	}
	if at.Before(a.good.Add(v.grace)) || mode == cmg.RevocationSoft {
		return verdict{state: StatusGood, until: a.asked.Add(askAgain + time.Second)}
	}
	return verdict{state: StatusUnknown, why: a.Why}
}

func refuseWeak(why string) error {
	return cmg.Refuse(http.StatusForbidden, codeCertificate+"_Weak", why, nil)
}
