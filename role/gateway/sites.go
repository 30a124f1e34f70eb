package gateway

import (
	"fmt"
	"sync/atomic"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/content"
)

// A Site is a further site whose clients a gateway meets: with what that site
// issued to it, as Config.Identity is with the first.
type Site struct {
	auth.IdentityFiles
	Content ContentConfig `json:"content"` // what main makes Links of

	Links content.Links `json:"-"` // nil: this gateway serves no content of the site
}

// A served is one site whose clients this gateway meets: what it published,
// its connection points, and who this gateway is to it. Nothing of one site
// serves another.
type served struct {
	code     string
	identity *auth.Identity
	signer   *auth.CallerSigner
	points   *points
	locator  *content.Locator     // nil: no content
	file     string               // in state_dir, keeps the publication
	edge     atomic.Pointer[edge] // nil until a publication is known
}

// loadSites reads the identities and makes the TLS settings of them.
func (g *Gateway) loadSites() error {
	var ids []*auth.Identity
	for i, site := range append([]Site{{IdentityFiles: g.cfg.Identity, Links: g.cfg.Links}}, g.cfg.Sites...) {
		what := "identity"
		if i > 0 {
			what = fmt.Sprintf("sites: entry %d", i)
		}
		id, err := auth.LoadIdentity(site.IdentityFiles)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		name := id.Name()
		if name.Role != cmg.RoleGateway {
			return fmt.Errorf("%s: the certificate %s is for the role %q, not %q: %w", what, site.Certificate, name.Role, cmg.RoleGateway, cmg.ErrInvalid)
		}
		s := &served{code: name.Site, identity: id, signer: auth.NewCallerSigner(id), file: publicationFile}
		label := ""
		if i > 0 {
			s.file, label = "publication."+name.Site+".jws", name.Site+"/"
		}
		s.points = g.newPoints(label)
		if site.Links != nil {
			if s.locator, err = content.NewLocator(content.LocatorConfig{Links: site.Links, Now: g.cfg.Now}); err != nil {
				return fmt.Errorf("%s: content: %w", what, err)
			}
		}
		g.sites, ids = append(g.sites, s), append(ids, id)
	}
	sites, err := auth.NewSites(ids...)
	if err != nil {
		return err
	}
	front, err := auth.GatewayFront(g.cfg.Certificate, g.cfg.Key)
	if err != nil {
		return err
	}
	g.served, g.channel, g.front = g.sites[0], sites.ChannelServer(), sites.WithChannel(front)
	return nil
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
func (x *exchange) judge() error {
	if len(x.g.sites) == 1 {
		return x.judgeBy(x.g.served)
	}
	if s := x.shownSite(); s != nil && s.publishes(x.req.Path) {
		return x.judgeBy(s)
	}
	var best error
	var by *served
	for _, s := range x.g.sites {
		if !s.publishes(x.req.Path) {
			continue
		}
		err := x.judgeBy(s)
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
		return x.judgeBy(by) // says again what it said, and whose refusal it is
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
func (x *exchange) judgeBy(s *served) error {
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
	x.caller, err = e.trust.Verify(x.evidence, x.route.Proofs, x.started)
	return err
}
