package gateway

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// manifestTime bounds how long a manifest may take to be read from the store.
const manifestTime = 30 * time.Second

// manifest answers with the signed locations of a package's files. The
// content token is checked here, without asking inside: the bytes then come
// straight from the store.
//
// Of the query's parameters pid (package) has to be one that the token
// grants, and tid (device), if it is there, the token's device. The others
// of the field's clients (cid, iss, alg, st, et) say nothing that the token
// does not say under its signature.
//
// The site that the token names judges it, and its content it is about.
func (x *exchange) manifest(ctx context.Context) error {
	x.site = x.g.served
	if len(x.g.sites) > 1 {
		if s := x.shownSite(); s != nil {
			x.site = s
		}
	}
	e := x.site.edge.Load()
	if e == nil {
		return errNotReady()
	}
	x.bill.endpoint = x.g.accounts.manifest
	if err := x.g.budget.refuse(false); err != nil {
		return err
	}
	if x.method != "GET" && x.method != "HEAD" {
		return cmg.Refuse(405, "CMGService_Method_Not_Allowed", "this path takes GET and HEAD", nil)
	}
	if x.body != nil {
		return cmg.Refuse(413, "CMGService_Content_Too_Large", "this path takes no body", nil)
	}
	locator := x.g.live.Load().of(x.site).locator
	if locator == nil {
		return cmg.Refuse(404, "CMGService_No_Content", "this gateway serves no content", nil)
	}
	claims, err := e.trust.Content(x.evidence.Authorization, x.started)
	if err != nil {
		return err
	}
	x.prove(&cmg.Caller{Proof: cmg.ProofToken, Device: claims.Device, TokenID: claims.ID})
	if err := x.limit(); err != nil {
		return err
	}
	_, raw, _ := strings.Cut(string(x.req.Target), "?")
	query, err := url.ParseQuery(raw)
	if err != nil {
		return cmg.Refuse(400, "CMGService_Bad_Request", "the query cannot be read", err)
	}
	grant, err := granted(claims, query)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, manifestTime)
	defer cancel()
	doc, err := locator.Locate(ctx, grant, claims.Expires)
	var refused *cmg.Refusal
	if errors.As(err, &refused) {
		return refused
	}
	if err != nil {
		return cmg.Refuse(502, "CMGService_Content_Unavailable", "the content store did not give the package's manifest", err)
	}
	x.res.Reset()
	x.res.Status, x.res.Reason, x.res.Length = 200, []byte("OK"), int64(len(doc))
	x.res.Add("Content-Type", []byte("text/xml; charset=utf-8"))
	x.res.Add("Cache-Control", []byte("no-store"))
	x.res.Add(web.RequestIDHeader, []byte(x.id))
	if x.method == "HEAD" {
		doc = nil
	}
	x.begun = true
	x.g.counts.manifests.Add(1)
	return x.out.answer(&x.res, doc, true)
}

// granted finds the grant for the package the query names.
func granted(c auth.Claims, query url.Values) (cmg.PackageGrant, error) {
	no := func(status int, code, why string, err error) (cmg.PackageGrant, error) {
		return cmg.PackageGrant{}, cmg.Refuse(status, code, why, err)
	}
	if len(query["pid"]) != 1 || len(query["tid"]) > 1 {
		return no(400, "CMGService_Bad_Request", "the query has to name one package (pid) and at most one device (tid)", nil)
	}
	if len(query["tid"]) == 1 {
		device, err := cmg.ParseDeviceID(query.Get("tid"))
		if err != nil || device != c.Device {
			return no(403, "CMGService_Content_Other_Device", "the content token is for another device than the query names", err)
		}
	}
	for _, g := range c.Packages {
		if !strings.EqualFold(string(g.Package), query.Get("pid")) {
			continue
		}
		if v := query.Get("ver"); v != "" && v != strconv.Itoa(g.Version) {
			continue
		}
		return g, nil
	}
	return no(403, "CMGService_Content_Not_Granted", "the content token does not grant this package", nil)
}
