package managementpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

// location answers requests to the location manager (PROTOCOL 6.4): which site
// this is, and where the content of a package is.
func (p *Point) location(ctx context.Context, m *ccm.Message, text string) (string, error) {
	root, err := ccm.Root(text)
	if err != nil {
		return "", err
	}
	if root == ccm.RootSiteInformation {
		return p.siteInformation(ctx, text)
	}
	d, err := p.sender(ctx, m, false)
	if err != nil {
		return "", err
	}
	if root != ccm.RootContentLocation {
		return "", cmg.Refuse(http.StatusNotFound, "CMGMP_Endpoint_Unknown", "this location request is not answered here", fmt.Errorf("request %.60q", root))
	}
	if d.Approval != cmg.Approved {
		return "", cmg.Refuse(http.StatusForbidden, "CMGMP_Device_Not_Approved", "the device has to be approved before it gets content", nil)
	}
	r, err := ccm.ReadContentLocationRequest(text)
	if err != nil {
		return "", contentUnknown(err)
	}
	pkg, err := p.cfg.Site.Package(ctx, r.Package, r.Version)
	if err != nil {
		return "", contentUnknown(err)
	}
	return p.contentLocation(ctx, d.ID, pkg)
}

// siteInformation tells whoever may read lists which site this is: what
// MPLIST says too.
func (p *Point) siteInformation(ctx context.Context, text string) (string, error) {
	if err := mayUse(ctx, useRead); err != nil {
		return "", err
	}
	asked, err := ccm.ReadSiteInformationRequest(text)
	if err != nil {
		return "", err
	}
	info := ccm.SiteInformation{}
	if code := p.live.Load().id.Name().Site; asked == "" || strings.EqualFold(asked, code) {
		info = ccm.SiteInformation{SiteCode: code, Version: "5.00." + mpVersion + ".1000", Build: mpVersion}
	}
	return info.XML(), nil
}

func contentUnknown(err error) error {
	if errors.Is(err, cmg.ErrNotFound) {
		return cmg.Refuse(http.StatusNotFound, "CMGMP_Content_Unknown", "the site has no such version of a package", err)
	}
	return err
}

// contentLocation names the manifest at every gateway service, with a token
// that opens it for this device and this version of the package.
func (p *Point) contentLocation(ctx context.Context, d cmg.DeviceID, pkg site.Package) (string, error) {
	gateways, err := p.cfg.Site.Gateways(ctx)
	if err != nil {
		return "", err
	}
	if len(gateways) == 0 {
		return "", cmg.Refuse(http.StatusServiceUnavailable, "CMGMP_No_Gateway", "the site knows no gateway service that serves content", nil)
	}
	now := p.cfg.Now()
	token, record, err := p.issue(auth.Claims{
		Kind: auth.TokenContent, Device: d, Packages: []cmg.PackageGrant{pkg.Grant()},
		Note: fmt.Sprintf("%s.%d", pkg.ID, pkg.Version), NotBefore: now, Expires: now.Add(p.live.Load().cfg.ContentTokenLife),
	})
	if err != nil {
		return "", err
	}
	if err := p.cfg.Site.RecordToken(ctx, record); err != nil {
		return "", err
	}
	reply := ccm.ContentLocationReply{
		Package: pkg.ID, Version: pkg.Version, Manifest: pkg.Manifest, SiteCode: p.live.Load().id.Name().Site,
		Token: token, Expires: record.Expires,
	}
	for _, g := range gateways {
		host := g.Host
		if g.Port != 443 {
			host = net.JoinHostPort(g.Host, strconv.Itoa(g.Port))
		}
		reply.Locations = append(reply.Locations, ccm.ContentLocation{
			URL: ccm.ManifestURL(host, p.cfg.Name, d, pkg.ID, record.NotBefore, record.Expires), Server: g.Host,
		})
	}
	return reply.XML(), nil
}
