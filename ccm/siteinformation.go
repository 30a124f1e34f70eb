package ccm

import "fmt"

// RootSiteInformation is the root of a SiteInformationRequest.
const RootSiteInformation = "SiteInformationRequest"

// ReadSiteInformationRequest gives the code of the site that is asked about;
// empty: whichever site answers.
func ReadSiteInformationRequest(text string) (siteCode string, err error) {
	root, err := parseRoot(text, RootSiteInformation)
	if err != nil {
		return "", fmt.Errorf("read site information request: %w", err)
	}
	if siteCode, err = short("site code", root.find("SiteCode").attr("Name"), 16); err != nil {
		return "", fmt.Errorf("read site information request: %w", err)
	}
	return siteCode, nil
}

// SiteInformation answers a SiteInformationRequest (PROTOCOL 6.4): readers
// look for an element Site with three children. The name of the root is ours.
type SiteInformation struct {
	SiteCode string // empty: the site that was asked about is not known, and no Site is written
	Version  string // such as 5.00.9128.1000
	Build    string // such as 9128
}

// XML writes the answer.
func (s SiteInformation) XML() string {
	root := el("SiteInformationReply", "SchemaVersion", "1.00")
	if s.SiteCode != "" {
		root.add(el("Site").addText("SiteCode", s.SiteCode).addText("Version", s.Version).addText("BuildNumber", s.Build))
	}
	return root.String()
}
