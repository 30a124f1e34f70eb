package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// An inquiry finds out from the site what no publication says by itself: the
// documents of lists of revoked certificates, whether a single certificate is
// revoked, and whether a tenant has new keys. What it was told outlives a
// publication.
type inquiry struct {
	g       *Gateway
	s       *served // whose site is asked
	folder  string  // in state_dir
	answers auth.Answers
	wake    chan struct{} // a publication was taken
	places  chan struct{} // requests to the site at once

	mu      sync.Mutex
	lists   map[cmg.Digest]*auth.RevokedList
	last    map[string]auth.KnownList // by authority and place: the newest that is there
	want    []cmg.RevocationListInfo  // of the publication in force
	problem string
	calls   map[cmg.Digest]chan struct{} // certificates that are being asked about
	tenants map[string]time.Time         // when new keys were asked for last
}

const (
	inquiries     = 16
	inquiryRetry  = 10 * time.Second
	inquiryFolder = "revoked"
	tenantRetry   = 15 * time.Second
)

func newInquiry(g *Gateway, s *served, folder string) *inquiry {
	return &inquiry{g: g, s: s, folder: folder, wake: make(chan struct{}, 1), places: make(chan struct{}, inquiries), lists: map[cmg.Digest]*auth.RevokedList{},
		last: map[string]auth.KnownList{}, calls: map[cmg.Digest]chan struct{}{}, tenants: map[string]time.Time{}}
}

// known gives what is known beside a publication. A list whose document is not
// there yet is stood for by the one before it.
func (q *inquiry) known(p cmg.Publication) auth.Known {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.want = p.Revocation.Lists
	k := auth.Known{Answers: &q.answers}
	for _, info := range q.want {
		place := info.Issuer + " " + info.URL
		list := q.lists[info.Digest]
		if list == nil {
			list = q.load(info.Digest)
		}
		if list != nil {
			q.last[place] = auth.KnownList{Info: info, List: list}
		}
		if held, ok := q.last[place]; ok {
			k.Lists = append(k.Lists, held)
		}
	}
	return k
}

// rouse has run look at a publication, once it is in force.
func (q *inquiry) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *inquiry) file(d cmg.Digest) string {
	return filepath.Join(q.g.cfg.StateDir, q.folder, strings.ToLower(d.String()))
}

// load takes a document that an earlier run kept. It is called with mu held.
func (q *inquiry) load(d cmg.Digest) *auth.RevokedList {
	b, err := os.ReadFile(q.file(d))
	if err != nil || sha256.Sum256(b) != d {
		return nil
	}
	list, err := auth.ReadRevokedList(b)
	if err != nil {
		return nil
	}
	q.lists[d] = list
	return list
}

// missing gives the documents that are not there, and forgets those that
// nobody wants any more.
func (q *inquiry) missing() (digests []cmg.Digest) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wanted, held := map[cmg.Digest]bool{}, map[cmg.Digest]bool{}
	for _, info := range q.want {
		if wanted[info.Digest] = true; q.lists[info.Digest] == nil {
			digests = append(digests, info.Digest)
		}
	}
	for place, l := range q.last {
		if held[l.Info.Digest] = true; !wanted[l.Info.Digest] && len(digests) == 0 {
			delete(q.last, place)
		}
	}
	for d := range q.lists {
		if !wanted[d] && (len(digests) == 0 || !held[d]) {
			delete(q.lists, d)
			os.Remove(q.file(d)) // where it cannot be, the next run overwrites it
		}
	}
	return digests
}

// run fetches documents as publications name them, until ctx ends. What a
// tunnel's caller rests on can also end without a publication: an answer about
// a certificate, an authority above it.
func (q *inquiry) run(ctx context.Context) {
	tick := time.NewTicker(q.g.limits.recheck)
	defer tick.Stop()
	for {
		var again <-chan time.Time
		if err := q.fetchMissing(ctx); err != nil && ctx.Err() == nil {
			q.g.log.Warn("a list of revoked certificates is not there yet; an older one, or the site itself, is asked meanwhile", "err", err)
			again = time.After(inquiryRetry)
		}
		q.g.recheck(ctx, q.s)
		select {
		case <-ctx.Done():
			return
		case <-q.wake:
		case <-tick.C:
		case <-again:
		}
	}
}

func (q *inquiry) fetchMissing(ctx context.Context) (err error) {
	got := 0
	for _, d := range q.missing() {
		if e := q.fetch(ctx, d); e != nil {
			err = errors.Join(err, e)
		} else {
			got++
		}
	}
	q.mu.Lock()
	q.problem = ""
	if err != nil {
		q.problem = err.Error()
	}
	q.mu.Unlock()
	if got > 0 {
		return errors.Join(err, q.g.again())
	}
	return err
}

// fetch fetches one document and keeps it for the next run.
func (q *inquiry) fetch(ctx context.Context, d cmg.Digest) error {
	b, err := q.g.ask(ctx, q.s, "GET", cmg.InsideRevoked+"?sha256="+strings.ToLower(d.String()), nil, auth.MaxRevokedList)
	if err != nil {
		return err
	}
	if sha256.Sum256(b) != d {
		return fmt.Errorf("list of revoked certificates: it is not the one with digest %s: %w", d, cmg.ErrInvalid)
	}
	list, err := auth.ReadRevokedList(b)
	if err != nil {
		return err
	}
	q.mu.Lock()
	q.lists[d] = list
	q.mu.Unlock()
	err = os.MkdirAll(filepath.Dir(q.file(d)), 0o700)
	if err == nil {
		err = writeWhole(q.file(d), b)
	}
	if err != nil {
		q.g.log.Warn("a list of revoked certificates could not be kept: a restart has to fetch it again", "err", err)
	}
	q.g.log.Info("list of revoked certificates taken", "revoked", list.Len(), "sha256", d.String())
	return nil
}

// writeWhole writes a file so that a crash leaves the old or the new one.
func writeWhole(file string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is none of that name
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// proveAgain is where a caller comes whose proof did not hold. What stood in
// the way may be that the site has to be asked first.
func (x *exchange) proveAgain(ctx context.Context, e *edge, proofs []cmg.Proof, refused error) (cmg.Caller, error) {
	var unchecked *auth.Unchecked
	var key *auth.UnknownKey
	switch {
	case errors.As(refused, &unchecked):
		x.site.inquiry.certificates(ctx, unchecked.Chain)
		return e.trust.Verify(x.evidence, proofs, x.g.now())
	case errors.As(refused, &key):
		x.site.inquiry.keys(ctx, key.Tenant)
	}
	return cmg.Caller{}, refused
}

// certificates asks the site about a chain, once however many requests wait
// for it. What came of it stands in the answers.
func (q *inquiry) certificates(ctx context.Context, chain []*x509.Certificate) {
	own := cmg.Digest(sha256.Sum256(chain[0].Raw))
	q.mu.Lock()
	if done, under := q.calls[own]; under {
		q.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
		}
		return
	}
	if q.answers.Recent(chain[:len(chain)-1], q.g.now()) { // it came after this request was judged
		q.mu.Unlock()
		return
	}
	done := make(chan struct{})
	q.calls[own] = done
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		delete(q.calls, own)
		q.mu.Unlock()
		close(done)
	}()
	select {
	case q.places <- struct{}{}:
		defer func() { <-q.places }()
	case <-time.After(askTime):
		q.answers.Failed(chain[:len(chain)-1], "too many certificates are being asked about", q.g.now())
		return
	}
	// Others wait for the answer too: it is not to end with this client.
	if err := q.askStatus(context.WithoutCancel(ctx), chain); err != nil {
		q.g.log.Warn("the site could not be asked whether a certificate is revoked", "subject", chain[0].Subject.String(), "err", err)
		q.answers.Failed(chain[:len(chain)-1], err.Error(), q.g.now())
	}
}

func (q *inquiry) askStatus(ctx context.Context, chain []*x509.Certificate) error {
	var body struct {
		Chain [][]byte `json:"chain"` // base64
	}
	for _, c := range chain {
		body.Chain = append(body.Chain, c.Raw)
	}
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	const maxStatement = 64 << 10
	text, err := q.g.ask(ctx, q.s, "POST", cmg.InsideCertificate, b, maxStatement)
	if err != nil {
		return err
	}
	return q.answers.Take(q.g.live.Load().of(q.s).identity, string(text), q.g.now())
}

// keys has the site look for new keys of a tenant, not too often: anybody can
// show a token that names a key. They come with the next publication.
func (q *inquiry) keys(ctx context.Context, tenant string) {
	now := q.g.now()
	q.mu.Lock()
	early := now.Sub(q.tenants[tenant]) < tenantRetry
	if !early {
		q.tenants[tenant] = now // tenants are known ones, so there are few
	}
	q.mu.Unlock()
	if early {
		return
	}
	if _, err := q.g.ask(context.WithoutCancel(ctx), q.s, "POST", cmg.InsideTenant+"?id="+url.QueryEscape(tenant), nil, 1<<10); err != nil {
		q.g.log.Warn("the site could not be asked for new keys of a tenant", "tenant", tenant, "err", err)
	}
}

// revocationRows tells the status page which lists are in use, of the first
// site or by site.
func (g *Gateway) revocationRows() any {
	if len(g.sites) == 1 {
		return g.served.inquiry.status()
	}
	rows := map[string]any{}
	for _, s := range g.sites {
		rows[s.code] = s.inquiry.status()
	}
	return rows
}

func (q *inquiry) status() any {
	q.mu.Lock()
	defer q.mu.Unlock()
	rows := []map[string]any{}
	for _, info := range q.want {
		held, ok := q.last[info.Issuer+" "+info.URL]
		row := map[string]any{"url": info.URL, "revoked": info.Revoked, "this": info.This, "next": info.Next, "in_use": ok && held.Info == info}
		rows = append(rows, row)
	}
	return map[string]any{"lists": rows, "problem": q.problem}
}
