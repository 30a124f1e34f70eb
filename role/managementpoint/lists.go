package managementpoint

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
)

const (
	mpVersion = "9128" // the build of the field that our messages are like
	mpHTTP    = 0      // SSLState of a management point that is spoken to in the clear
	mpHTTPS   = 63     // SSLState of a management point that speaks HTTPS
)

// lists answers /SMS_MP/.sms_aut?<verb> (PROTOCOL 2.2), verbs without case:
//
//	MPLIST, MPLIST1&<site>, MPLIST2&<site>   the management points of the site
//	MPKEYINFORMATION, MPKEYINFORMATIONEX     site code and certificates
//	MPCERT, MPCERTIFICATE                    <MPCertificate>, DER in hex (ours)
//	SITESIGNCERT                             <SiteSigningCertificate>, DER in hex (ours)
//	GETCLIENTAFFINITY&<device id>            <ClientAffinity>; no site records a device's user
func (p *Point) lists(w http.ResponseWriter, r *http.Request) error {
	if err := mayUse(r.Context(), useRead); err != nil {
		return err
	}
	query, err := url.PathUnescape(r.URL.RawQuery)
	if err != nil || len(query) > 256 {
		return cmg.Refuse(http.StatusBadRequest, "CMGMP_Bad_Request", "the query cannot be read", err)
	}
	verb, argument, _ := strings.Cut(strings.ToUpper(query), "&")
	site := p.live.Load().id.Name().Site
	var body string
	switch verb {
	case "MPLIST", "MPLIST1", "MPLIST2":
		var list ccm.MPList
		if argument == "" || argument == site {
			list = ccm.MPList{{Name: p.cfg.Name, FQDN: p.cfg.Name, SiteCode: site, Version: mpVersion, SSLState: sslState(r)}}
		}
		body = list.XML()
	case "MPKEYINFORMATION", "MPKEYINFORMATIONEX":
		body = ccm.MPKeyInformation{
			SiteCode: site, Certificate: p.live.Load().id.Certificate().Raw, Signing: p.live.Load().signing.Certificate().Raw,
		}.XML()
	case "MPCERT", "MPCERTIFICATE":
		body = ccm.MPCertificate(p.live.Load().id.Certificate().Raw)
	case "SITESIGNCERT":
		body = ccm.SiteSigningCertificate(p.live.Load().signing.Certificate().Raw)
	case "GETCLIENTAFFINITY":
		if _, err := cmg.ParseDeviceID(argument); err != nil {
			return badRequest("the query names no device", err)
		}
		body = ccm.ClientAffinity{}.XML() // the same for every device: it tells nobody which ones there are
	default:
		return cmg.Refuse(http.StatusNotFound, "CMGMP_Path_Unknown", ".sms_aut has no such verb", nil)
	}
	return write(w, r, "text/xml; charset=utf-8", []byte(body))
}

// sslState tells a client how it has reached the management point.
func sslState(r *http.Request) int {
	if r.TLS == nil {
		return mpHTTP
	}
	return mpHTTPS
}
