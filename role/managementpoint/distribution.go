package managementpoint

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/distribution"
	"github.com/opencmg/cmg/site"
)

// DistributionConfig says how packages are shown as a distribution point
// shows them (PROTOCOL 7.1). Who may read is an approved device, or whoever
// has a client certificate that the gateway trusts.
type DistributionConfig struct {
	Dir       string `json:"dir"`       // folder of the content store; empty: no packages are shown
	Anonymous bool   `json:"anonymous"` // from the inside anybody may read, without proof
	Library   bool   `json:"library"`   // the list of packages and the content library may be browsed
	Listing   bool   `json:"listing"`   // a GET of a folder is answered with a list in HTML

	Store distribution.Store `json:"-"` // of Dir; nil: no packages are shown
}

func (p *Point) openDistribution() (err error) {
	c := p.cfg.Distribution
	if c.Store == nil {
		return nil
	}
	p.packages, err = distribution.New(distribution.Config{
		Library: c.Library, Listing: c.Listing, Store: c.Store,
		Package: func(ctx context.Context, id cmg.PackageID, version int) (distribution.Package, error) {
			pkg, err := p.cfg.Site.Package(ctx, id, version)
			return shown(pkg), err
		},
		Packages: func(ctx context.Context) (all []distribution.Package, err error) {
			pkgs, err := p.cfg.Site.Packages(ctx)
			for _, pkg := range pkgs {
				all = append(all, shown(pkg))
			}
			return all, err
		},
	})
	return err
}

func shown(p site.Package) distribution.Package {
	return distribution.Package{PackageGrant: p.Grant(), Added: p.Added}
}

// distributionBase finds the path in front of the packages' own: the field's
// name for them, behind the prefix under which a gateway publishes it.
var distributionBase = regexp.MustCompile(`(?i)^(/CCM_Proxy_(?:MutualAuth|ServerAuth)/[0-9]{1,20})?(/(?:NOCERT_|CCMTOKENAUTH_)?SMS_DP_SMSPKG\$)(?:/|$)`)

// isDistribution says whether a path is one of packages, also with a
// published prefix in front.
func isDistribution(path string) bool { return distributionBase.MatchString(path) }

// distribute answers for packages.
func (p *Point) distribute(w http.ResponseWriter, r *http.Request) error {
	if p.packages == nil {
		return cmg.Refuse(http.StatusNotFound, "CMGMP_Path_Unknown", "this management point shows no packages", nil)
	}
	m := distributionBase.FindStringSubmatch(r.URL.Path)
	if m == nil {
		return cmg.Refuse(http.StatusNotFound, "CMGMP_Path_Unknown", "the management point has no such path", nil)
	}
	if err := p.mayRead(r, strings.EqualFold(m[2], cmg.DistributionTokenPath)); err != nil {
		return err
	}
	at := distribution.Place{Base: m[1] + m[2], Host: r.Host}
	if _, called := cmg.CallerFrom(r.Context()); called && r.Header.Get("X-Forwarded-Host") != "" {
		at.Host = r.Header.Get("X-Forwarded-Host") // of the gateway: a connection point has passed it on
	}
	w.Header().Del("Cache-Control") // files may be kept, by whoever may have them
	return p.packages.Serve(w, r, at)
}

// mayRead says why a request may not read packages.
func (p *Point) mayRead(r *http.Request, token bool) error {
	ctx := r.Context()
	c, called := cmg.CallerFrom(ctx)
	switch {
	case token && c.Proof != cmg.ProofToken:
		return cmg.Refuse(http.StatusUnauthorized, "CMGMP_Proof_Required", "this path is for tokens", fmt.Errorf("proof %.20q", c.Proof))
	case c.Proof == cmg.ProofCertificate && c.Device == "":
		return mayUse(ctx, useRead)
	case !called && p.cfg.Distribution.Anonymous && r.Header.Get(ccm.HeaderClientID) == "":
		return nil
	}
	d, err := p.requester(r)
	if err == nil && d.Approval != cmg.Approved {
		err = cmg.Refuse(http.StatusForbidden, "CMGMP_Device_Not_Approved", "the device has to be approved before it gets content", nil)
	}
	return err
}
