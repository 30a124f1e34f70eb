package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"github.com/opencmg/cmg"
)

// A StatusState is whether a certificate is revoked.
type StatusState string

// What is known of a certificate.
const (
	StatusGood    StatusState = "good"
	StatusRevoked StatusState = "revoked"
	StatusUnknown StatusState = "unknown" // nobody could be asked, or nobody knew
)

// A Status is what the site found out about one certificate.
type Status struct {
	Certificate cmg.Digest  `json:"certificate"` // SHA-256
	State       StatusState `json:"state"`
	Until       time.Time   `json:"until"`         // when it has to be asked again
	Why         string      `json:"why,omitempty"` // for logs: when it was revoked, or what stood in the way
}

const (
	statusType = "cmg-certificate-status+jws"
	maxAnswers = 64 << 10 // certificates remembered
	askAgain   = 30 * time.Second
)

// statement is what a site signs about certificates.
type statement struct {
	Issued   time.Time `json:"issued"`
	Statuses []Status  `json:"statuses"`
}

// SignStatuses makes the signed statement that an [Answers] takes.
func SignStatuses(id *Identity, at time.Time, ss []Status) (string, error) {
	return SignStatement(id, statusType, statement{at.UTC(), ss})
}

// Answers remembers what the site said about single certificates, for as long
// as a gateway lives. It is bounded, and may be used by many goroutines at
// once.
type Answers struct {
	mu       sync.RWMutex
	new, old map[cmg.Digest]answer // two generations, as in cache
}

type answer struct {
	Status
	good  time.Time // until when it was last known to be good
	asked time.Time

	issued time.Time // of the newest statement about it
}

// Take remembers a statement that the site of id has just signed. Whoever
// carries statements could keep one and show it again once the certificate is
// revoked: so an old one is cmg.ErrInvalid, and one from before a revocation
// does not take that back. The clocks of site and
// gateway may be five minutes apart.
func (a *Answers) Take(id *Identity, jws string, at time.Time) error {
	var s statement
	if err := ReadStatement(id, statusType, jws, at, &s); err != nil {
		return err
	}
	if d := at.Sub(s.Issued).Abs(); d > clockSkew {
		return fmt.Errorf("read %s: it was signed %s, %s off this clock: %w", statusType, s.Issued.Format(time.RFC3339), d.Round(time.Second), cmg.ErrInvalid)
	}
	for _, st := range s.Statuses {
		a.put(st, s.Issued, at)
	}
	return nil
}

// Failed remembers that nobody could be asked about the certificates, so that
// not every request waits for it again.
func (a *Answers) Failed(certs []*x509.Certificate, why string, at time.Time) {
	for _, c := range certs {
		a.put(Status{Certificate: sha256.Sum256(c.Raw), State: StatusUnknown, Why: why}, time.Time{}, at)
	}
}

// put keeps what a statement of issued says; zero: nobody said anything.
func (a *Answers) put(s Status, issued, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, ok := a.new[s.Certificate]
	if !ok {
		before = a.old[s.Certificate]
	}
	e := answer{Status: s, asked: at, issued: issued}
	switch {
	case issued.IsZero():
		e.issued = before.issued
	case before.State == StatusRevoked && issued.Before(before.issued):
		return
	}
	switch s.State {
	case StatusGood:
		e.good = s.Until
	case StatusUnknown:
		if before.State == StatusRevoked { // whoever was revoked does not come back by silence
			e.State, e.Why = StatusRevoked, before.Why
		}
		e.good = before.good
	}
	if a.new == nil || len(a.new) >= maxAnswers/2 {
		a.old, a.new = a.new, make(map[cmg.Digest]answer)
	}
	a.new[s.Certificate] = e
}

func (a *Answers) get(d cmg.Digest) (answer, bool) {
	if a == nil {
		return answer{}, false
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	e, ok := a.new[d]
	if !ok {
		e, ok = a.old[d]
	}
	return e, ok
}

// Recent says that the certificates were asked about a moment ago, whatever
// came of it: to ask again would be too early.
func (a *Answers) Recent(certs []*x509.Certificate, at time.Time) bool {
	for _, c := range certs {
		if e, ok := a.get(sha256.Sum256(c.Raw)); !ok || at.Sub(e.asked) > askAgain {
			return false
		}
	}
	return true
}
