package gateway

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/content"
	"github.com/opencmg/cmg/web"
)

// A Site is a further site whose clients a gateway meets: with what that site
// issued to it, as Config.Identity is with the first.
type Site struct {
	auth.IdentityFiles
	Content ContentConfig `json:"content"` // what main makes Links of

	Links content.Links `json:"-"` // nil: this gateway serves no content of the site
}

// A served is one site whose clients this gateway meets: what it published
// and its connection points. Nothing of one site serves another. Who this
// gateway is to it stands in the snapshot.
type served struct {
	code   string
	place  int // in the configuration; 0: the first
	points *points
	file   string               // in state_dir, keeps the publication
	edge   atomic.Pointer[edge] // nil until a publication is known

	inquiry  *inquiry
	refusals *web.RefusalRing // to be reported to this site
}

// A party is who this gateway is to one site, as the site's files say.
type party struct {
	identity *auth.Identity
	signer   *auth.CallerSigner
	locator  *content.Locator // nil: no content
}

// of gives who this gateway is to a site.
func (s *snapshot) of(site *served) *party { return &s.parties[site.place] }

// loadParties reads the identities and makes the TLS settings of them.
func (s *snapshot) loadParties(c *Config) error {
	var ids []*auth.Identity
	for i, site := range append([]Site{{IdentityFiles: c.Identity, Links: c.Links}}, c.Sites...) {
		what := "identity"
		if i > 0 {
			what = fmt.Sprintf("sites: entry %d", i)
		}
		site.IdentityFiles.Now = c.Now
		id, err := auth.LoadIdentity(site.IdentityFiles)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if name := id.Name(); name.Role != cmg.RoleGateway {
			return fmt.Errorf("%s: the certificate %s is for the role %q, not %q: %w", what, site.Certificate, name.Role, cmg.RoleGateway, cmg.ErrInvalid)
		}
		p := party{identity: id, signer: auth.NewCallerSigner(id)}
		if site.Links != nil {
			if p.locator, err = content.NewLocator(content.LocatorConfig{Links: site.Links, Now: c.Now}); err != nil {
				return fmt.Errorf("%s: content: %w", what, err)
			}
		}
		s.parties, ids = append(s.parties, p), append(ids, id)
	}
	sites, err := auth.NewSites(ids...)
	if err != nil {
		return err
	}
	s.shown, err = auth.NewFront(auth.FrontConfig{Certificate: c.Certificate, Key: c.Key, PasswordFile: c.PasswordFile, ACME: c.ACME, Log: c.Log, Now: c.Now})
	if err != nil {
		return err
	}
	s.channel, s.front = sites.ChannelServer(), sites.WithChannel(s.shown.Settings())
	return nil
}

// addSites makes what is kept of each site for as long as the gateway runs.
func (g *Gateway) addSites(s *snapshot) {
	for i := range s.parties {
		code := s.parties[i].identity.Name().Site
		site, label, folder := &served{code: code, place: i, file: publicationFile, refusals: web.NewRefusalRing(true)}, "", inquiryFolder
		if i > 0 {
			site.file, label, folder = "publication."+code+".jws", code+"/", inquiryFolder+"."+code
		}
		site.points = g.newPoints(label)
		site.inquiry = newInquiry(g, site, folder)
		g.sites = append(g.sites, site)
	}
	g.served = g.sites[0]
}

func (g *Gateway) siteNamed(code string) *served {
	for _, s := range g.sites {
		if s.code == code {
			return s
		}
	}
	return nil
}

// version is that of the publication in force; 0: none.
func (s *served) version() uint64 {
	if e := s.edge.Load(); e != nil {
		return e.publication.Version
	}
	return 0
}

func (s *served) publishes(path []byte) bool {
	e := s.edge.Load()
	return e != nil && e.match(path) != nil
}

// A shownSite is the site that a connection's last evidence named.
type shownSite struct {
	authorization string
	known         bool
	site          *served // nil: none that is served here
}

// judge finds whose request it is, by which route it goes, and who calls. On
// a gateway of one site there is nothing to find. Else the site that the
// caller's token or certificate names judges it, if it publishes the path;
// where the evidence names none, the first of those that publish the path and
// can prove the caller. A caller that none of them can prove is told what the
// site that knows it best has to say.
func (x *exchange) judge(ctx context.Context) error {
	if len(x.g.sites) == 1 {
		return x.judgeBy(ctx, x.g.served)
	}
	if s := x.shownSite(); s != nil && s.publishes(x.req.Path) {
		return x.judgeBy(ctx, s)
	}
	var best error
	var by *served
	for _, s := range x.g.sites {
		if !s.publishes(x.req.Path) {
			continue
		}
		err := x.judgeBy(ctx, s)
		if err == nil {
			return nil
		}
		if best == nil || auth.Foreign(best) && !auth.Foreign(err) {
			best, by = err, s
		}
	}
	if best == nil {
		by = x.firstReady()
	}
	if by != x.site || best == nil {
		return x.judgeBy(ctx, by) // says again what it said, and whose refusal it is
	}
	return best
}

// firstReady is the site that says that nothing is published at a path.
func (x *exchange) firstReady() *served {
	for _, s := range x.g.sites {
		if s.edge.Load() != nil {
			return s
		}
	}
	return x.g.served
}

func (x *exchange) shownSite() *served {
	if !x.shown.known || x.shown.authorization != x.evidence.Authorization {
		x.shown = shownSite{x.evidence.Authorization, true, x.g.siteNamed(auth.SiteShown(x.evidence))}
	}
	return x.shown.site
}

func errNotReady() error {
	return cmg.Refuse(503, "CMGService_Not_Ready", "this instance has not heard from its site yet", nil)
}

// judgeBy judges the request by the publication of one site.
func (x *exchange) judgeBy(ctx context.Context, s *served) error {
	x.site, x.route = s, nil
	e := s.edge.Load()
	if e == nil {
		return errNotReady()
	}
	if x.route = e.match(x.req.Path); x.route == nil {
		if isChannelPath(x.req.Path) {
			return errNoWebSocket()
		}
		return cmg.Refuse(403, "CMGService_Not_Published", "nothing is published at this path", nil)
	}
	x.bill.endpoint = x.route.endpoint
	if err := x.g.budget.refuse(x.route.exempt); err != nil {
		return err
	}
	if !allowed(x.route.Methods, x.method) {
		return cmg.Refuse(405, "CMGService_Method_Not_Allowed", "this path does not take the method "+x.method, nil)
	}
	if x.req.Length > x.route.MaxBody {
		return x.tooLong(nil)
	}
	var err error
	x.judged = e
	if x.provenBefore(e) {
		return nil
	}
	if x.caller, err = e.trust.Verify(x.evidence, x.route.Proofs, x.started); err != nil {
		if x.caller, err = x.proveAgain(ctx, e, x.route.Proofs, err); err != nil {
			return err
		}
	}
	if x.caller.Proof == cmg.ProofToken && !x.route.PassToken {
		if err := suits(auth.TokenKind(x.caller.TokenKind)); err != nil {
			return err
		}
	}
	x.keepProof(e)
	return nil
}

// suits says why a kind of token opens no route whose server is not told of
// it. A device token proves nothing until its device's key does, and a
// registration token is in many hands: both are for the management point,
// which asks for what is missing.
func suits(kind auth.TokenKind) error {
	switch kind {
	case auth.TokenSession:
		return nil
	case auth.TokenGrace:
		return cmg.Refuse(401, "CMGService_Invalid_Token_Expired", "the device token has expired: only its renewal is left", nil)
	}
	return cmg.Refuse(401, "CMGService_Invalid_Token_Wrong_Kind", "a "+string(kind)+" token does not serve here: a session token does", nil)
}
