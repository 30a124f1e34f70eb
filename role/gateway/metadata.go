package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/web"
)

// bootstrap answers what clients ask before they know a management point, at
// the two paths without a role's id (PROTOCOL 1.1). The bodies are our own:
// the original's are not public. ok: the path is one of them.
//
//	GET /CCM_Proxy_ServerAuth/AADAuthInfo?TenantID=<guid>
//	200 {"TenantID": …, "AADCLIENTAPPID": …, "AADRESOURCEURI": …, "Authority": …}
//
//	GET /CCM_Proxy_MutualAuth/ServiceMetadata
//	200 {"Service": "<host>"} for anybody; with a proof that holds also what
//	    this site is and how its management points are reached
//
// A gateway of several sites answers for the one that knows the tenant, or
// that the proof names. refused is why the path leads nowhere else.
func (x *exchange) bootstrap(ctx context.Context, refused error) (ok bool, err error) {
	path := x.req.Path
	if x.route != nil || x.site.edge.Load() == nil {
		return false, refused
	}
	if bytes.EqualFold(path, authInfoPath) {
		return true, x.authInfo()
	}
	for i, p := range metadataPaths {
		if bytes.EqualFold(path, p) {
			proofs := []cmg.Proof{cmg.ProofCertificate}
			if i > 0 {
				proofs = []cmg.Proof{cmg.ProofToken, cmg.ProofEntra}
			}
			if s := x.shownSite(); s != nil && s.edge.Load() != nil {
				x.site = s
			}
			x.judged = x.site.edge.Load()
			return true, x.metadata(ctx, x.judged, proofs)
		}
	}
	return false, nil
}

var (
	authInfoPath  = []byte(cmg.AuthInfoPath)
	metadataPaths = [][]byte{[]byte(cmg.PrefixMutualAuth + cmg.MetadataPath), []byte(cmg.PrefixServerAuth + cmg.MetadataPath)}
)

// authInfo tells a client of a known tenant what to ask its directory for.
// Nothing of it is secret: it is what the client's sign-in shows.
func (x *exchange) authInfo() error {
	if err := x.mayAsk(); err != nil {
		return err
	}
	_, raw, _ := strings.Cut(string(x.req.Target), "?")
	query, err := url.ParseQuery(raw)
	var asked []string
	for name, values := range query {
		if strings.EqualFold(name, "TenantID") {
			asked = append(asked, values...)
		}
	}
	if err != nil || len(asked) != 1 {
		return cmg.Refuse(400, "CMGService_Bad_Request", "the query has to name one tenant (TenantID)", err)
	}
	id, err := cmg.ParseTenantID(asked[0])
	for _, s := range x.g.sites {
		e := s.edge.Load()
		if e == nil || err != nil {
			continue
		}
		if i := slices.IndexFunc(e.publication.Tenants, func(t cmg.Tenant) bool { return t.ID == id }); i >= 0 {
			t := e.publication.Tenants[i]
			return x.give200(map[string]string{"TenantID": t.ID, "AADCLIENTAPPID": t.Client, "AADRESOURCEURI": t.Resource, "Authority": t.Authority})
		}
	}
	return cmg.Refuse(404, "CMGService_Unknown_Tenant", "this site does not know the tenant", err)
}

func (x *exchange) mayAsk() error {
	switch {
	case x.method != "GET" && x.method != "HEAD":
		return cmg.Refuse(405, "CMGService_Method_Not_Allowed", "this path takes GET and HEAD", nil)
	case x.body != nil:
		return cmg.Refuse(413, "CMGService_Content_Too_Large", "this path takes no body", nil)
	}
	return x.g.budget.refuse(false)
}

// A serviceMetadata is what a client that has proven itself needs to begin.
type serviceMetadata struct {
	Service string
	// The rest is for callers that were proven.
	SiteCode         string            `json:",omitempty"`
	Proof            cmg.Proof         `json:",omitempty"` // how this caller was proven
	ManagementPoints []metadataPoint   `json:",omitempty"`
	Endpoints        []metadataService `json:",omitempty"` // what this caller's kind of proof opens
	ContentPath      string            `json:",omitempty"`
}

type metadataPoint struct {
	ID             string
	MutualAuthPath string
	ServerAuthPath string
}

type metadataService struct {
	Name, Prefix string
}

// metadata answers anybody that the gateway is there; to whoever shows a proof
// it says more, or why the proof does not hold.
func (x *exchange) metadata(ctx context.Context, e *edge, proofs []cmg.Proof) error {
	if err := x.mayAsk(); err != nil {
		return err
	}
	m := serviceMetadata{Service: string(x.req.Host)}
	shown := x.evidence.Authorization != ""
	if proofs[0] == cmg.ProofCertificate {
		shown = len(x.evidence.Certificates) > 0
	}
	if !shown {
		return x.give200(m)
	}
	c, err := e.trust.Verify(x.evidence, proofs, x.started)
	if err != nil {
		if c, err = x.proveAgain(ctx, e, proofs, err); err != nil {
			return err
		}
	}
	x.prove(&c)
	if err := x.limit(); err != nil {
		return err
	}
	m.SiteCode, m.Proof, m.ContentPath = e.publication.Site, c.Proof, cmg.ManifestPath
	for _, r := range e.publication.Routes {
		if slices.Contains(r.Proofs, c.Proof) {
			m.Endpoints = append(m.Endpoints, metadataService{r.Name, r.Prefix})
		}
		id, ok := roleOf(r.Prefix)
		if ok && !slices.ContainsFunc(m.ManagementPoints, func(p metadataPoint) bool { return p.ID == id }) {
			m.ManagementPoints = append(m.ManagementPoints, metadataPoint{id, cmg.PrefixMutualAuth + id, cmg.PrefixServerAuth + id})
		}
	}
	return x.give200(m)
}

// roleOf gives the role id of a management point's token service.
func roleOf(prefix string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(prefix, cmg.PrefixServerAuth)
	if !ok {
		return "", false
	}
	id, rest, _ = strings.Cut(rest, "/")
	return id, strings.EqualFold(rest, "CCM_STS")
}

// give200 answers with a JSON document.
func (x *exchange) give200(v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return err
	}
	x.res.Reset()
	x.res.Status, x.res.Reason, x.res.Length = 200, []byte("OK"), int64(len(doc))
	x.res.Add("Content-Type", []byte("application/json"))
	x.res.Add("Cache-Control", []byte("no-store"))
	x.res.Add(web.RequestIDHeader, []byte(x.id))
	if x.method == "HEAD" {
		doc = nil
	}
	x.begun = true
	x.g.counts.bootstraps.Add(1)
	return x.out.answer(&x.res, doc, true)
}
