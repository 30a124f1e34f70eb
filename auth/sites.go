package auth

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencmg/cmg"
)

// siteHint begins an ALPN name that a connection point offers behind the
// channel's own, followed by its site's code. It is never chosen: it tells a
// gateway that serves several sites whose certificate to show.
const siteHint = "cmg-site/"

// Sites are the identities of one gateway, one from each site it serves. Each
// site issued its own, and no site's authority vouches for anybody of another
// site: what joins them is the process alone.
type Sites struct {
	first    *Identity
	channels map[string]*tls.Config // by site code
}

// NewSites joins identities of the role gateway, each of another site. A
// connection point that names no site meets the first.
func NewSites(ids ...*Identity) (*Sites, error) {
	if len(ids) == 0 {
		return nil, fmt.Errorf("sites: no identity: %w", cmg.ErrInvalid)
	}
	s := &Sites{first: ids[0], channels: make(map[string]*tls.Config, len(ids))}
	for _, id := range ids {
		n := id.Name()
		if n.Role != cmg.RoleGateway {
			return nil, fmt.Errorf("sites: %s is not of the role %s: %w", n, cmg.RoleGateway, cmg.ErrInvalid)
		}
		if s.channels[n.Site] != nil {
			return nil, fmt.Errorf("sites: site %s stands twice: %w", n.Site, cmg.ErrInvalid)
		}
		s.channels[n.Site] = id.ChannelServer()
	}
	return s, nil
}

// ChannelServer makes the gateway's settings for its channel listener: those
// of [Identity.ChannelServer] of the site that the peer says it is of. That
// site's roots then have to vouch for it.
func (s *Sites) ChannelServer() *tls.Config {
	c := s.first.ChannelServer()
	if len(s.channels) > 1 {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return s.channel(hello), nil }
	}
	return c
}

// channel gives the settings for the site that hello names, else the first's.
func (s *Sites) channel(hello *tls.ClientHelloInfo) *tls.Config {
	for _, p := range hello.SupportedProtos {
		if code, ok := strings.CutPrefix(p, siteHint); ok && s.channels[code] != nil {
			return s.channels[code]
		}
	}
	return s.channels[s.first.name.Site]
}

// WithChannel makes of the settings of a gateway's listener for clients (see
// [Front.Settings]) ones that also take channels: a peer that asks for the
// protocol "cmg/1", and beside it for nothing but its site, meets the
// settings of ChannelServer in full. After the handshake NegotiatedProtocol
// tells which it is.
func (s *Sites) WithChannel(front *tls.Config) *tls.Config {
	both := front.Clone()
	both.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if isChannelHello(hello.SupportedProtos) {
			return s.channel(hello), nil
		}
		return nil, nil
	}
	return both
}

func isChannelHello(protos []string) bool {
	if len(protos) == 0 || protos[0] != channelProtocol {
		return false
	}
	for _, p := range protos[1:] {
		if !strings.HasPrefix(p, siteHint) {
			return false
		}
	}
	return true
}

// SiteShown gives the code of the site that e says it is of: the issuer of a
// site token, else the role name in the client's certificate. It believes
// nothing: it says who is to judge first. Empty: e names none.
func SiteShown(e Evidence) string {
	if token, ok := bearer(e.Authorization); ok && len(token) <= maxToken {
		if site := issuerShown(token); site != "" {
			return site
		}
	}
	if len(e.Certificates) > 0 {
		if n, ok := RoleOf(e.Certificates[0]); ok {
			return n.Site
		}
	}
	return ""
}

func issuerShown(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, ok := strings.Cut(rest, ".")
	if !ok {
		return ""
	}
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return ""
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(text, &c) != nil {
		return ""
	}
	site, ok := strings.CutPrefix(c.Issuer, issuerPrefix)
	if !ok || !siteCode.MatchString(site) {
		return ""
	}
	return site
}

// Foreign says of a refusal that the caller is not known to the site at all:
// another one may know it better.
func Foreign(err error) bool {
	var r *cmg.Refusal
	if !errors.As(err, &r) {
		return false
	}
	switch r.Code {
	case codeRequired, codeCertificateRequired, codeToken + "_Unknown_Key", codeToken + "_Wrong_Site", codeToken + "_Unknown_Tenant", codeCertificate + "_Unknown_Issuer", codeCertificate + "_Unknown_Root":
		return true
	}
	return false
}
