package ccm

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/opencmg/cmg"
)

// A ManagementPoint is one entry of an MPList.
type ManagementPoint struct {
	Name     string
	FQDN     string
	SiteCode string
	Version  string // build number, such as 9128
	SSLState int    // 0: HTTP; 63: HTTPS
}

// An MPList answers GET /SMS_MP/.sms_aut?MPLIST (PROTOCOL 2.2), as UTF-8.
type MPList []ManagementPoint

// XML writes the list.
func (l MPList) XML() string {
	root := el("MPList")
	for _, m := range l {
		e := el("MP", "Name", m.Name, "FQDN", m.FQDN)
		if m.SiteCode != "" {
			e.attrs = append(e.attrs, attr{"SiteCode", m.SiteCode})
		}
		root.add(e.addText("Version", m.Version).add(
			el("Capabilities", "SchemaVersion", "1.0").add(el("Property", "Name", "SSLState", "Value", strconv.Itoa(m.SSLState)))))
	}
	return root.String()
}

// ReadMPList reads an MPList.
func ReadMPList(text string) (MPList, error) {
	root, err := parseRoot(text, "MPList")
	if err != nil {
		return nil, fmt.Errorf("read MPList: %w", err)
	}
	var l MPList
	for _, e := range root.all("MP") {
		m := ManagementPoint{Name: e.attr("Name"), FQDN: e.attr("FQDN"), SiteCode: e.attr("SiteCode"), Version: e.find("Version").value()}
		for _, p := range e.find("Capabilities").all("Property") {
			if p.attr("Name") != "SSLState" {
				continue
			}
			if m.SSLState, err = p.attrInt("Value"); err != nil {
				return nil, fmt.Errorf("read MPList: %w", err)
			}
		}
		l = append(l, m)
	}
	return l, nil
}

// MPKeyInformation answers GET /SMS_MP/.sms_aut?MPKEYINFORMATION (PROTOCOL
// 2.2), as UTF-8. The names of its elements beside SITECODE are ours.
type MPKeyInformation struct {
	SiteCode    string
	Certificate []byte // of the management point, DER
	Signing     []byte // site signing certificate, DER
}

// XML writes the key information.
func (k MPKeyInformation) XML() string {
	return el("MPKEYINFORMATION").addText("SITECODE", k.SiteCode).
		add(certElement("MPCERT", k.Certificate), certElement("SITESIGNCERT", k.Signing)).String()
}

// ReadMPKeyInformation reads what XML writes.
func ReadMPKeyInformation(text string) (k MPKeyInformation, err error) {
	root, err := parseRoot(text, "MPKEYINFORMATION")
	if err != nil {
		return k, fmt.Errorf("read MPKEYINFORMATION: %w", err)
	}
	if k.SiteCode = root.find("SITECODE").value(); k.SiteCode == "" {
		return k, fmt.Errorf("read MPKEYINFORMATION: no site code: %w", cmg.ErrInvalid)
	}
	if k.Certificate, err = hexValue(root.find("MPCERT")); err != nil {
		return k, fmt.Errorf("read MPKEYINFORMATION: %w", err)
	}
	if k.Signing, err = hexValue(root.find("SITESIGNCERT")); err != nil {
		return k, fmt.Errorf("read MPKEYINFORMATION: %w", err)
	}
	return k, nil
}

func hexElement(name string, der []byte) string {
	e := el(name)
	e.text = strings.ToUpper(hex.EncodeToString(der))
	return e.String()
}

// A ClientAffinity answers GET /SMS_MP/.sms_aut?GETCLIENTAFFINITY&<device id>
// (PROTOCOL 2.2), as UTF-8: readers look for an element User. The name of the
// root is ours.
type ClientAffinity struct {
	User string // who mostly uses the device; empty where that is not known
}

// XML writes the affinity.
func (a ClientAffinity) XML() string { return el("ClientAffinity").addText("User", a.User).String() }
