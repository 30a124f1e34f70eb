package managementpoint

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

// When the lists of revoked certificates and the keys of tenants are asked
// for: looked at every followTick. A failure is tried again after a minute,
// then after twice as long each time, up to followLate.
const (
	followTick   = 5 * time.Second
	followFirst  = time.Minute
	followLate   = 30 * time.Minute
	followLists  = time.Hour // a list is asked for at least so often, and at four fifths of its life
	followKeys   = time.Hour
	followAtOnce = 4 // fetches at the same time
)

// due says when to ask again for what was asked for at tried and, where it
// went well, lives for so long.
func due(tried time.Time, failures int, life time.Duration) time.Time {
	if failures == 0 {
		return tried.Add(life)
	}
	return tried.Add(min(followFirst<<min(failures-1, 10), followLate, max(life, followFirst)))
}

// follow keeps lists and keys fresh until ctx ends.
func (p *Point) follow(ctx context.Context) error {
	defer p.fetcher.Close()
	tick := time.NewTicker(followTick)
	defer tick.Stop()
	for {
		p.report("revocation lists", ignoreEnd(ctx, p.followRevocation(ctx)))
		p.report("tenants' keys", ignoreEnd(ctx, p.followTenants(ctx)))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// followRevocation fetches the lists whose time has come, those too that an
// administrator has named since.
func (p *Point) followRevocation(ctx context.Context) error {
	named := p.followNamed(ctx) // if it cannot be, the others are fetched all the same
	sources, err := p.cfg.Site.RevocationSources(ctx)
	if err != nil {
		return errors.Join(named, err)
	}
	now := p.cfg.Now()
	late := slices.DeleteFunc(slices.Clone(sources), func(s site.RevocationSource) bool {
		life := followLists
		if s.Digest != (cmg.Digest{}) {
			life = min(life, s.Next.Sub(s.This)*4/5)
		}
		return now.Before(due(s.Tried, s.Failures, max(life, followFirst)))
	})
	if len(late) == 0 {
		return named
	}
	return errors.Join(named, p.fetchLists(ctx, late))
}

// followNamed follows the lists that an administrator named for an authority.
func (p *Point) followNamed(ctx context.Context) error {
	r, err := p.cfg.Site.Revocation(ctx)
	if err != nil {
		return err
	}
	var anchors []*x509.Certificate
	for _, i := range r.Issuers {
		if len(i.CRL) == 0 {
			continue
		}
		if anchors == nil {
			if anchors, err = p.anchors(ctx); err != nil {
				return err
			}
		}
		for _, a := range anchors {
			if auth.IssuerID(a) != i.Issuer {
				continue
			}
			for _, url := range i.CRL {
				if err := p.cfg.Site.FollowRevocation(ctx, i.Issuer, url, a); err != nil {
					return err
				}
			}
			break
		}
	}
	return nil
}

func (p *Point) anchors(ctx context.Context) ([]*x509.Certificate, error) {
	texts, err := p.cfg.Site.Anchors(ctx)
	if err != nil {
		return nil, err
	}
	return auth.ParseCertificates([]byte(strings.Join(texts, "\n")))
}

// fetchLists fetches and keeps lists; which of them failed is kept with them.
func (p *Point) fetchLists(ctx context.Context, sources []site.RevocationSource) error {
	results := make([]site.RevocationResult, len(sources))
	var wg sync.WaitGroup
	places := make(chan struct{}, followAtOnce)
	for i, s := range sources {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			results[i] = p.fetchList(ctx, s)
		})
	}
	wg.Wait()
	if errors.Is(ctx.Err(), context.Canceled) { // what failed for that is no failure of theirs
		return ctx.Err()
	}
	for i, r := range results {
		switch {
		case r.Problem != nil:
			p.cfg.Log.Warn("a list of revoked certificates cannot be had; the last one goes on", "authority", sources[i].Authority, "url", r.Info.URL, "next", sources[i].Next, "err", r.Problem)
		case r.Document != nil:
			p.cfg.Log.Info("new list of revoked certificates", "authority", sources[i].Authority, "url", r.Info.URL, "revoked", r.Info.Revoked, "next", r.Info.Next)
		}
	}
	return p.cfg.Site.PutRevocation(context.WithoutCancel(ctx), results)
}

func (p *Point) fetchList(ctx context.Context, s site.RevocationSource) site.RevocationResult {
	r := site.RevocationResult{Info: s.RevocationListInfo, ETag: s.ETag}
	c, tag, err := p.fetcher.CRL(ctx, s.URL, s.ETag, s.Certificate, p.cfg.Now())
	if err != nil || c == nil {
		r.Problem = err
		return r
	}
	if len(c.Points) > 0 && !slices.Contains(c.Points, s.URL) {
		r.Problem = fmt.Errorf("the list at %s says it is the one of %s: %w", s.URL, c.Points[0], cmg.ErrInvalid)
		return r
	}
	doc := c.Revoked.Document()
	info := cmg.RevocationListInfo{
		Issuer: s.Issuer, URL: s.URL, Scope: c.Scope, Partial: len(c.Points) > 0,
		This: c.This, Next: c.Next, Revoked: c.Revoked.Len(), Digest: sha256.Sum256(doc),
	}
	if info == s.RevocationListInfo {
		return r
	}
	r.Info, r.ETag, r.Document = info, tag, doc
	return r
}

// fromInside refuses what does not come from a gateway itself: a connection
// point brings it, and no caller stands behind it.
func (p *Point) fromInside(r *http.Request) error {
	if _, called := cmg.CallerFrom(r.Context()); called || !p.fromConnectionPoint(r) {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Connection_Point_Required", "only a gateway of this site may ask this, by a connection point", nil)
	}
	return nil
}

// revokedList answers a gateway that wants the document of a list.
func (p *Point) revokedList(w http.ResponseWriter, r *http.Request) error {
	if err := p.fromInside(r); err != nil {
		return err
	}
	digest, err := cmg.ParseDigest(r.URL.Query().Get("sha256"))
	if err != nil {
		return badRequest("sha256 is not a digest", err)
	}
	doc, err := p.cfg.Site.RevocationDocument(r.Context(), digest)
	if errors.Is(err, cmg.ErrNotFound) {
		return cmg.Refuse(http.StatusNotFound, "CMGMP_Revocation_List_Unknown", "there is no such list any more", err)
	} else if err != nil {
		return err
	}
	return write(w, r, "application/octet-stream", doc)
}

const maxAsked = 256 << 10 // bytes of a request about a chain

// certificateStatus answers a gateway that met certificates of which it does
// not know whether they are revoked:
//
//	POST /cmg/v1/inside/certificate   {"chain": ["<DER, base64>", …]}   own first, root last
//	200 a statement that the site has signed (auth.SignStatuses)
func (p *Point) certificateStatus(w http.ResponseWriter, r *http.Request) error {
	if err := p.fromInside(r); err != nil {
		return err
	}
	chain, err := p.readChain(r)
	if err != nil {
		return err
	}
	statuses, err := p.statusOf(r.Context(), chain)
	if err != nil {
		return err
	}
	text, err := auth.SignStatuses(p.live.Load().signing, p.cfg.Now(), statuses)
	if err != nil {
		return err
	}
	return write(w, r, "application/jose", []byte(text))
}

// readChain reads a chain and holds it against the anchors: what a gateway
// says it met could be anything, and the addresses in it are going to be asked.
func (p *Point) readChain(r *http.Request) (chain []*x509.Certificate, err error) {
	var asked struct{ Chain []string }
	b, err := io.ReadAll(io.LimitReader(r.Body, maxAsked+1))
	if err != nil {
		return nil, fmt.Errorf("read chain: %w: %w", err, cmg.ErrInvalid)
	}
	if err := json.Unmarshal(b, &asked); err != nil || len(b) > maxAsked || len(asked.Chain) < 2 || len(asked.Chain) > 12 {
		return nil, badRequest("no chain of 2 to 12 certificates", fmt.Errorf("read chain: %w", cmg.ErrInvalid))
	}
	for _, text := range asked.Chain {
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, badRequest("a certificate is not base64", fmt.Errorf("read chain: %w: %w", err, cmg.ErrInvalid))
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, badRequest("a certificate cannot be read", fmt.Errorf("read chain: %w: %w", err, cmg.ErrInvalid))
		}
		chain = append(chain, c)
	}
	anchors, err := p.anchors(r.Context())
	if err != nil {
		return nil, err
	}
	if err := auth.CheckChain(chain, anchors, p.cfg.Now()); err != nil {
		return nil, cmg.Refuse(http.StatusForbidden, "CMGMP_Chain_Not_Trusted", "the chain does not end in an authority of this site", err)
	}
	return chain, nil
}
