package cmg

import (
	"fmt"
	"net/url"
	"slices"
	"time"
)

// A RevocationMode says what a gateway makes of a client certificate of which
// it cannot find out whether it was revoked.
type RevocationMode string

// The modes. In all but the last a certificate that is known to be revoked is
// refused.
const (
	RevocationHard RevocationMode = "hard" // refuse it, once the grace is over; an empty mode is this one
	RevocationSoft RevocationMode = "soft" // let it in
	RevocationOff  RevocationMode = "off"  // do not look
)

// Check says what is wrong with m.
func (m RevocationMode) Check() error {
	if m != "" && !slices.Contains([]RevocationMode{RevocationHard, RevocationSoft, RevocationOff}, m) {
		return fmt.Errorf("revocation mode %.40q is not hard, soft or off: %w", string(m), ErrInvalid)
	}
	return nil
}

// MaxAnchors is how many authorities a site can trust.
const MaxAnchors = 256

// MaxGrace bounds the grace of a Revocation.
const MaxGrace = 30 * 24 * time.Hour

// A Revocation is what gateways have to know of revoked client certificates.
// An authority is named by the hex SHA-256 of its subject and public key, so
// that its cross-signed certificates count as one.
type Revocation struct {
	Mode    RevocationMode       `json:"mode,omitempty"`
	Grace   int64                `json:"grace,omitempty"` // seconds for which an answer is believed after it has ended
	Issuers []IssuerRevocation   `json:"issuers,omitempty"`
	Lists   []RevocationListInfo `json:"lists,omitempty"`
}

// An IssuerRevocation is what an administrator set for one authority.
type IssuerRevocation struct {
	Issuer string         `json:"issuer"`
	Mode   RevocationMode `json:"mode,omitempty"` // empty: that of all
	CRL    []string       `json:"crl,omitempty"`  // where its list is, beside what its certificates name
	OCSP   []string       `json:"ocsp,omitempty"` // its responders, in place of those that its certificates name
}

// A RevocationListInfo stands for one authority's list of revoked
// certificates (CRL, RFC 5280 section 5). The serial numbers lie in a document
// of their own, which gateways fetch from inside by its digest: so a large
// list crosses a channel once, and not with every publication.
type RevocationListInfo struct {
	Issuer  string    `json:"issuer"`
	URL     string    `json:"url"`             // where the site fetched it
	Scope   string    `json:"scope,omitempty"` // "users" or "authorities" if it holds only those
	Partial bool      `json:"partial,omitempty"`
	This    time.Time `json:"this"`    // when it was made
	Next    time.Time `json:"next"`    // when there will be a newer one
	Revoked int       `json:"revoked"` // how many it names
	Digest  Digest    `json:"sha256"`  // of the document
}

// Check says what is wrong with r.
func (r Revocation) Check() error {
	if err := r.Mode.Check(); err != nil {
		return err
	}
	if r.Grace < 0 || r.Grace > int64(MaxGrace/time.Second) {
		return fmt.Errorf("revocation: grace of %d seconds is not between 0 and %s: %w", r.Grace, MaxGrace, ErrInvalid)
	}
	for _, i := range r.Issuers {
		if err := i.Check(); err != nil {
			return err
		}
	}
	return nil
}

// Check says what is wrong with i.
func (i IssuerRevocation) Check() error {
	if err := i.Mode.Check(); err != nil {
		return err
	}
	for _, s := range slices.Concat(i.CRL, i.OCSP) {
		u, err := url.Parse(s)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || len(s) > 2048 {
			return fmt.Errorf("revocation: %.200q is not http(s)://host/…: %w", s, ErrInvalid)
		}
	}
	return nil
}
