package ccm

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// The roots of location requests that are answered (PROTOCOL 6.4); Root tells
// which one a body is.
const (
	RootContentLocation = "ContentLocationRequest"
)

// A ContentLocationRequest asks where a version of a package can be fetched
// (PROTOCOL 6.4).
type ContentLocationRequest struct {
	Package  cmg.PackageID
	Version  int
	SiteCode string
	Internet bool // the device is outside: sources inside are of no use to it
}

// XML writes the request.
func (r ContentLocationRequest) XML() string {
	outside := "0"
	if r.Internet {
		outside = "1"
	}
	return el(RootContentLocation, "SchemaVersion", "1.00", "BGRVersion", "1", "ExcludeFileList", "").add(
		el("Package", "ID", string(r.Package), "Version", strconv.Itoa(r.Version), "DeploymentFlags", "0"),
		el("AssignedSite", "SiteCode", r.SiteCode),
		el("ClientLocationInfo", "LocationType", "SMSPackage", "DistributeOnDemand", "0", "UseAzure", "1", "AllowWUMU", "0",
			"UseProtected", "0", "AllowCaching", "0", "BranchDPFlags", "0", "UseInternetDP", outside, "AllowHTTP", "1",
			"AllowSMB", "0", "AllowMulticast", "0", "AllowSuperPeer", "0", "DPTokenAuth", "1").
			add(el("ADSite", "Name", ""), el("Forest", "Name", ""), el("Domain", "Name", ""), el("IPAddresses"))).String()
}

// ReadContentLocationRequest reads a request for a package; one for an update
// or for the client's own package wraps cmg.ErrNotFound, for we have none.
func ReadContentLocationRequest(text string) (ContentLocationRequest, error) {
	r, err := readContentLocationRequest(text)
	if err != nil {
		return ContentLocationRequest{}, fmt.Errorf("read content location request: %w", err)
	}
	return r, nil
}

func readContentLocationRequest(text string) (r ContentLocationRequest, err error) {
	root, err := parseRoot(text, RootContentLocation)
	if err != nil {
		return r, err
	}
	if len(root.all("Package")) == 0 && len(root.all("ClientPackage")) > 0 {
		return r, fmt.Errorf("the client's own package is asked for: %w", cmg.ErrNotFound)
	}
	p, err := root.one("Package")
	if err != nil {
		return r, err
	}
	if id := p.attr("ID"); strings.HasPrefix(id, "Content_") || strings.HasPrefix(id, "UID:") {
		return r, fmt.Errorf("content %.80q is not a package: %w", id, cmg.ErrNotFound)
	}
	if r.Package, err = cmg.ParsePackageID(p.attr("ID")); err != nil {
		return r, err
	}
	if r.Version, err = p.attrInt("Version"); err != nil {
		return r, err
	}
	r.SiteCode = root.find("AssignedSite").attr("SiteCode")
	r.Internet = root.find("ClientLocationInfo").attr("UseInternetDP") == "1"
	return r, nil
}

// A ContentLocation is one place where content is.
type ContentLocation struct {
	URL    string // of the manifest, see ManifestURL
	Server string // name of the server the client meets
}

// A ContentLocationReply says where a version of a package is, and holds the
// token that opens it. Where the token stands is ours; the rest follows the
// field.
type ContentLocationReply struct {
	Package   cmg.PackageID
	Version   int
	Manifest  cmg.Digest // SHA-256 of the stored manifest document
	SiteCode  string
	Locations []ContentLocation // best first
	Token     string            // for Authorization: Bearer at the manifest's URL
	Expires   time.Time         // of Token
}

// sha256Algorithm is CALG_SHA_256, as the field writes it.
const sha256Algorithm = "32780"

// XML writes the reply.
func (r ContentLocationReply) XML() string {
	root := el("ContentLocationReply", "SchemaVersion", "1.00", "ContentFlags", "0", "HashAlgorithm", sha256Algorithm,
		"AlgorithmPreference", "4", "Hash", r.Manifest.String(), "ExcludeFileListHash", "", "RelatedContentID", "")
	root.add(el("BoundaryGroups"), el("ContentInfo", "PackageFlags", "0", "PackageID", string(r.Package), "PackageVersion", strconv.Itoa(r.Version)).add(
		el("ContentHashValues").add(el("Hash", "Algorithm", sha256Algorithm, "HashString", r.Manifest.String(), "HashPreference", "4"))))
	records := el("LocationRecords")
	for i, l := range r.Locations {
		records.add(el("LocationRecord").
			add(el("URL", "Name", l.URL, "Signature", ""), el("ADSite", "Name", ""), el("IPSubnets"), el("Metric", "Value", strconv.Itoa(i))).
			addText("Version", "9128").addText("ServerRemoteName", l.Server).addText("DPType", "SERVER").
			add(el("Windows", "Trust", "0")).addText("Locality", "REMOTE").
			add(el("Capabilities", "SchemaVersion", "1.0").add(
				el("Property", "Name", "SSLState", "Value", "63"), el("Property", "Name", "AuthMethod", "Value", "1024"))))
	}
	root.add(el("Sites").add(el("Site").add(
		el("MPSite", "SiteCode", r.SiteCode, "MasterSiteCode", r.SiteCode, "SiteLocality", "REMOTE", "IISPreferedPort", "80", "IISSSLPreferedPort", "443"),
		records)), el("RelatedContentIDs"))
	if r.Token != "" {
		t := el("ContentAccessToken", "Expires", r.Expires.UTC().Format(TimeLayout))
		t.text = r.Token
		root.add(t)
	}
	return root.String()
}

// ReadContentLocationReply reads what XML writes.
func ReadContentLocationReply(text string) (ContentLocationReply, error) {
	r, err := readContentLocationReply(text)
	if err != nil {
		return ContentLocationReply{}, fmt.Errorf("read content location reply: %w", err)
	}
	return r, nil
}

func readContentLocationReply(text string) (r ContentLocationReply, err error) {
	root, err := parseRoot(text, "ContentLocationReply")
	if err != nil {
		return r, err
	}
	if r.Manifest, err = cmg.ParseDigest(root.attr("Hash")); err != nil {
		return r, err
	}
	info := root.find("ContentInfo")
	if r.Package, err = cmg.ParsePackageID(info.attr("PackageID")); err != nil {
		return r, err
	}
	if r.Version, err = info.attrInt("PackageVersion"); err != nil {
		return r, err
	}
	site := root.find("Sites", "Site")
	r.SiteCode = site.find("MPSite").attr("SiteCode")
	for _, l := range site.find("LocationRecords").all("LocationRecord") {
		r.Locations = append(r.Locations, ContentLocation{URL: l.find("URL").attr("Name"), Server: l.find("ServerRemoteName").value()})
	}
	if t := root.find("ContentAccessToken"); t.value() != "" {
		r.Token = t.value()
		if r.Expires, err = time.Parse(TimeLayout, t.attr("Expires")); err != nil {
			return r, fmt.Errorf("expiry of the content token %.40q: %w", t.attr("Expires"), cmg.ErrInvalid)
		}
	}
	return r, nil
}

// ManifestURL gives the URL at which a gateway answers with the signed
// locations of a package's files (PROTOCOL 7.4), at host or host:port. The
// query only tells people and logs what is asked for: the content token alone
// decides.
func ManifestURL(host, issuer string, device cmg.DeviceID, p cmg.PackageID, from, until time.Time) string {
	const layout = "2006-01-02T15:04:05"
	q := url.Values{
		"pid": {string(p)}, "cid": {string(p)}, "tid": {string(device)}, "iss": {issuer}, "alg": {"ES256"},
		"st": {from.UTC().Format(layout)}, "et": {until.UTC().Format(layout)},
	}
	u := url.URL{Scheme: "https", Host: host, Path: cmg.ManifestPath, RawQuery: q.Encode()}
	return u.String()
}
