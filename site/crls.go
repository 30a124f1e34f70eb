package site

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// A RevocationSource is a place where an authority's list of revoked
// certificates (CRL) is, and how fetching it went.
type RevocationSource struct {
	cmg.RevocationListInfo                   // as of the last good list; Digest is zero until there is one
	Certificate            *x509.Certificate `json:"-"` // of the authority: its key signs the list
	Authority              string            `json:"authority"`
	ETag                   string            `json:"-"`
	Fetched                time.Time         `json:"fetched,omitzero"` // when the last good list came
	Tried                  time.Time         `json:"tried,omitzero"`   // when it was asked for last
	Failures               int               `json:"failures"`         // since the last good answer
	Problem                string            `json:"problem,omitempty"`
}

// maxSources bounds how many lists a site follows.
const maxSources = 1024

var (
	qRevocation = query(`SELECT issuer, mode, grace, crl, ocsp FROM revocation ORDER BY issuer`)
	qSet        = query(`INSERT INTO revocation (issuer, mode, grace, crl, ocsp) VALUES (?, ?, ?, ?, ?)
	ON CONFLICT (issuer) DO UPDATE SET mode = excluded.mode, grace = excluded.grace, crl = excluded.crl, ocsp = excluded.ocsp`)
	qUnset        = query(`DELETE FROM revocation WHERE issuer = ?`)
	qLists        = query(`SELECT issuer, url, scope, partial, this_update, next_update, revoked, sha256 FROM crls WHERE sha256 > '' ORDER BY sha256, issuer, url`)
	qSources      = query(`SELECT issuer, url, scope, partial, this_update, next_update, revoked, sha256, certificate, etag, fetched, tried, failures, problem FROM crls ORDER BY issuer, url`)
	qCountSources = query(`SELECT count(*) FROM crls`)
	qFollowed     = query(`SELECT count(*) FROM crls WHERE issuer = ? AND url = ?`)
	qAddSource    = query(`INSERT INTO crls (issuer, url, certificate, etag, tried, failures, problem, fetched, scope, partial, this_update, next_update, revoked, sha256, document)
	VALUES (?, ?, ?, '', 0, 0, '', 0, '', 0, 0, 0, 0, '', ?) ON CONFLICT (issuer, url) DO NOTHING`)
	qRemoveSources = query(`DELETE FROM crls WHERE issuer = ?`)
	qPutList       = query(`UPDATE crls SET etag = ?, tried = ?, failures = 0, problem = '', fetched = ?, scope = ?, partial = ?, this_update = ?, next_update = ?,
	revoked = ?, sha256 = ?, document = ? WHERE issuer = ? AND url = ? AND this_update <= ?`)
	qTriedSource = query(`UPDATE crls SET tried = ?, failures = 0, problem = '' WHERE issuer = ? AND url = ?`)
	qFailSource  = query(`UPDATE crls SET tried = ?, failures = failures + 1, problem = ? WHERE issuer = ? AND url = ?`)
	qRefresh     = query(`UPDATE crls SET tried = 0, failures = 0 WHERE issuer > ''`)
	qDocument    = query(`SELECT document FROM crls WHERE sha256 = ? LIMIT 1`)
)

// SetRevocation sets what holds for all authorities: the mode, and how long an
// answer is believed after it has ended.
func (s *Site) SetRevocation(ctx context.Context, mode cmg.RevocationMode, grace time.Duration) error {
	r := cmg.Revocation{Mode: mode, Grace: int64(grace / time.Second)}
	if err := r.Check(); err != nil {
		return err
	}
	return s.publish(ctx, func(tx *tx) (int64, error) {
		n, err := tx.changed(qSet, "", string(mode), r.Grace, "[]", "[]")
		return n, errors.Join(err, tx.audit("revocation.set", "", fmt.Sprintf("mode=%s grace=%s", mode, grace)))
	})
}

// SetIssuerRevocation sets what holds for one authority. All fields empty
// takes it back.
func (s *Site) SetIssuerRevocation(ctx context.Context, i cmg.IssuerRevocation) error {
	if err := i.Check(); err != nil {
		return err
	}
	if i.Issuer == "" {
		return fmt.Errorf("set revocation: no authority is named: %w", cmg.ErrInvalid)
	}
	return s.publish(ctx, func(tx *tx) (int64, error) {
		if i.Mode == "" && len(i.CRL) == 0 && len(i.OCSP) == 0 {
			n, err := tx.changed(qUnset, i.Issuer)
			return n, errors.Join(err, tx.audit("revocation.unset", i.Issuer, ""))
		}
		crl, ocsp, err := asJSON(i.CRL, i.OCSP)
		if err != nil {
			return 0, err
		}
		n, err := tx.changed(qSet, i.Issuer, string(i.Mode), 0, crl, ocsp)
		return n, errors.Join(err, tx.audit("revocation.set", i.Issuer, fmt.Sprintf("mode=%s crl=%s ocsp=%s", i.Mode, crl, ocsp)))
	})
}

func asJSON(a, b []string) (string, string, error) {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return string(x), string(y), errors.Join(err, err2)
}

// Revocation reads what is set, and the lists that were fetched.
func (s *Site) Revocation(ctx context.Context) (cmg.Revocation, error) {
	return revocationOf(ctx, s.read)
}

func revocationOf(ctx context.Context, db querier) (r cmg.Revocation, err error) {
	r.Grace = int64(DefaultGrace / time.Second)
	set, err := list(ctx, db, scanRevocation, qRevocation)
	if err != nil {
		return r, err
	}
	for _, i := range set {
		if i.Issuer == "" {
			r.Mode, r.Grace = i.Mode, i.grace
			continue
		}
		r.Issuers = append(r.Issuers, i.IssuerRevocation)
	}
	r.Lists, err = list(ctx, db, scanListInfo, qLists)
	return r, err
}

// DefaultGrace is how long an answer is believed after it has ended, unless
// SetRevocation says otherwise.
const DefaultGrace = 24 * time.Hour

type revocationRow struct {
	cmg.IssuerRevocation
	grace int64
}

func scanRevocation(scan func(...any) error) (r revocationRow, err error) {
	var crl, ocsp string
	if err = scan(&r.Issuer, &r.Mode, &r.grace, &crl, &ocsp); err != nil {
		return r, err
	}
	return r, errors.Join(json.Unmarshal([]byte(crl), &r.CRL), json.Unmarshal([]byte(ocsp), &r.OCSP))
}

func scanListInfo(scan func(...any) error) (l cmg.RevocationListInfo, err error) {
	var this, next int64
	var digest string
	if err = scan(&l.Issuer, &l.URL, &l.Scope, &l.Partial, &this, &next, &l.Revoked, &digest); err != nil {
		return l, err
	}
	l.This, l.Next = fromMicros(this), fromMicros(next)
	if digest != "" {
		l.Digest, err = cmg.ParseDigest(digest)
	}
	return l, err
}

func scanSource(scan func(...any) error) (r RevocationSource, err error) {
	var der []byte
	var fetched, tried int64
	r.RevocationListInfo, err = scanListInfo(func(into ...any) error {
		return scan(append(into, &der, &r.ETag, &fetched, &tried, &r.Failures, &r.Problem)...)
	})
	if err != nil {
		return r, err
	}
	r.Fetched, r.Tried = fromMicros(fetched), fromMicros(tried)
	if r.Certificate, err = x509.ParseCertificate(der); err == nil {
		r.Authority = r.Certificate.Subject.String()
	}
	return r, err
}

// FollowRevocation has the list of an authority at url followed from now on.
// One that is followed already stays as it is.
func (s *Site) FollowRevocation(ctx context.Context, issuer, url string, authority *x509.Certificate) error {
	if err := (cmg.IssuerRevocation{CRL: []string{url}}).Check(); err != nil {
		return err
	}
	var there int
	if err := s.row(ctx, qFollowed, issuer, url).Scan(&there); err != nil || there > 0 {
		return fault("read revocation list", err) // nil where it is followed
	}
	return s.update(ctx, func(tx *tx) error {
		var n int
		if err := tx.row(qCountSources).Scan(&n); err != nil {
			return fault("count revocation lists", err)
		}
		if n >= maxSources {
			return fmt.Errorf("follow %.100q: %d lists are followed already: %w", url, n, cmg.ErrTooLarge)
		}
		return tx.exec(qAddSource, issuer, url, authority.Raw, []byte{})
	})
}

// ForgetRevocation ends the following of an authority's lists.
func (s *Site) ForgetRevocation(ctx context.Context, issuer string) error {
	return s.publish(ctx, func(tx *tx) (int64, error) { return tx.changed(qRemoveSources, issuer) })
}

// RefreshRevocation has every list fetched soon, as if its time had come.
func (s *Site) RefreshRevocation(ctx context.Context) error {
	return s.update(ctx, func(tx *tx) error { return tx.exec(qRefresh) })
}

// RevocationSources lists what is followed.
func (s *Site) RevocationSources(ctx context.Context) ([]RevocationSource, error) {
	return list(ctx, s.read, scanSource, qSources)
}

// A RevocationResult is what came of fetching one list.
type RevocationResult struct {
	Info     cmg.RevocationListInfo // issuer and URL always; the rest where a new list came
	ETag     string
	Document []byte // nil: there is no new list
	Problem  error  // nil: it was fetched, or is unchanged
}

// ErrOlderList says that a list was fetched that is older than the one that is
// known: somebody on the way may be showing an old one on purpose.
var ErrOlderList = fmt.Errorf("the list is older than the one known: %w", cmg.ErrConflict)

// PutRevocation keeps what came of fetching lists, as one new version of the
// publication if any of them is new.
func (s *Site) PutRevocation(ctx context.Context, results []RevocationResult) error {
	return s.publish(ctx, func(tx *tx) (changed int64, err error) {
		now := micros(tx.now)
		for _, r := range results {
			i := r.Info
			switch {
			case r.Problem != nil:
				err = tx.exec(qFailSource, now, cutText(r.Problem.Error()), i.Issuer, i.URL)
			case r.Document == nil:
				err = tx.exec(qTriedSource, now, i.Issuer, i.URL)
			default:
				var n int64
				n, err = tx.changed(qPutList, r.ETag, now, now, i.Scope, i.Partial, micros(i.This), micros(i.Next), i.Revoked, i.Digest.String(), r.Document, i.Issuer, i.URL, micros(i.This))
				if changed += n; err == nil && n == 0 {
					err = tx.exec(qFailSource, now, ErrOlderList.Error(), i.Issuer, i.URL)
				}
			}
			if err != nil {
				return 0, err
			}
		}
		return changed, nil
	})
}

// cutText bounds what is kept of an error's text.
func cutText(s string) string {
	const most = 500
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// RevocationDocument gives a list's document by its digest.
func (s *Site) RevocationDocument(ctx context.Context, d cmg.Digest) (b []byte, err error) {
	err = s.row(ctx, qDocument, d.String()).Scan(&b)
	return b, missing("revocation list", d.String(), err)
}
