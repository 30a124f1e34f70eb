package ccm

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/opencmg/cmg"
)

// The types of properties in policies: numbers of CIM types.
const (
	TypeString = 8
	TypeUint32 = 19
)

// A Property is one value of an Instance.
type Property struct {
	Name   string
	Type   int // TypeString or TypeUint32; 0 where it is not said
	Value  string
	Secret bool // obfuscated in the field's policies
}

// An Instance is an object of a class with its properties: what policies
// bring and what inventories report.
type Instance struct {
	Class      string
	Properties []Property
}

// Value gives the value of a property, found without case, or "".
func (i Instance) Value(name string) string {
	for _, p := range i.Properties {
		if strings.EqualFold(p.Name, name) {
			return p.Value
		}
	}
	return ""
}

// A PolicyBody is what a policy tells the client to hold or do (PROTOCOL 6.3).
type PolicyBody struct {
	ID        string
	Version   string
	Source    string // "SMS:" and the site code
	Instances []Instance
}

// Encode writes the body as it is stored, hashed and sent: UTF-16LE with byte
// order mark.
func (p PolicyBody) Encode() []byte {
	action := el("PolicyAction", "PolicyActionType", "WMI-XML")
	for _, i := range p.Instances {
		instance := el("instance", "class", i.Class)
		for _, v := range i.Properties {
			property := el("property", "name", v.Name, "type", strconv.Itoa(v.Type))
			if v.Secret {
				property.attrs = append(property.attrs, attr{"secret", "1"})
			}
			instance.add(property.add(&element{name: "value", text: v.Value, cdata: true}))
		}
		action.add(instance)
	}
	root := el("Policy", "PolicyType", "Machine", "SchemaVersion", "1.00", "PolicyID", p.ID, "PolicyVersion", p.Version, "PolicySource", p.Source)
	root.add(el("PolicyRule", "PolicyRuleID", p.ID).add(el("Condition"), action))
	return EncodeUTF16(root.String(), true)
}

// ReadPolicyBody reads a body that is not encrypted. The caller has compared
// its digest with the assignment's before.
func ReadPolicyBody(b []byte) (PolicyBody, error) {
	text, err := DecodeUTF16(b)
	if err != nil {
		return PolicyBody{}, fmt.Errorf("read policy: %w", err)
	}
	root, err := parseRoot(text, "Policy")
	if err != nil {
		return PolicyBody{}, fmt.Errorf("read policy: %w", err)
	}
	p := PolicyBody{ID: root.attr("PolicyID"), Version: root.attr("PolicyVersion"), Source: root.attr("PolicySource")}
	for _, rule := range root.all("PolicyRule") {
		for _, action := range rule.all("PolicyAction") {
			if kind := action.attr("PolicyActionType"); kind != "WMI-XML" {
				return PolicyBody{}, fmt.Errorf("read policy %.60s: action type %.60q: %w", p.ID, kind, cmg.ErrInvalid)
			}
			for _, e := range action.all("instance") {
				i, err := readInstance(e)
				if err != nil {
					return PolicyBody{}, fmt.Errorf("read policy %.60s: %w", p.ID, err)
				}
				p.Instances = append(p.Instances, i)
			}
		}
	}
	return p, nil
}

func readInstance(e *element) (Instance, error) {
	i := Instance{Class: e.attr("class")}
	for _, p := range e.all("property") {
		kind, err := p.attrInt("type")
		if err != nil {
			return i, err
		}
		i.Properties = append(i.Properties, Property{Name: p.attr("name"), Type: kind, Value: p.find("value").value(), Secret: p.attr("secret") == "1"})
	}
	return i, nil
}

// ClassContentDeployment is our own class: "have this package's files in
// that folder".
const ClassContentDeployment = "CMG_ContentDeployment"

// A ContentDeployment tells a device to have one version of a package.
type ContentDeployment struct {
	PackageID      cmg.PackageID
	PackageVersion int
	Folder         string // relative to the agent's content folder, with forward slashes
}

// Instance gives the deployment as it stands in a policy.
func (d ContentDeployment) Instance() Instance {
	return Instance{Class: ClassContentDeployment, Properties: []Property{
		{Name: "PackageID", Type: TypeString, Value: string(d.PackageID)},
		{Name: "PackageVersion", Type: TypeUint32, Value: strconv.Itoa(d.PackageVersion)},
		{Name: "Folder", Type: TypeString, Value: d.Folder},
	}}
}

// ContentDeployments gives the deployments a policy holds.
func (p PolicyBody) ContentDeployments() ([]ContentDeployment, error) {
	var all []ContentDeployment
	for _, i := range p.Instances {
		if !strings.EqualFold(i.Class, ClassContentDeployment) {
			continue
		}
		id, err := cmg.ParsePackageID(i.Value("PackageID"))
		if err != nil {
			return nil, fmt.Errorf("read deployment of policy %.60s: %w", p.ID, err)
		}
		version, err := strconv.Atoi(i.Value("PackageVersion"))
		if err != nil || version < 1 {
			return nil, fmt.Errorf("read deployment of policy %.60s: package version %.40q: %w", p.ID, i.Value("PackageVersion"), cmg.ErrInvalid)
		}
		all = append(all, ContentDeployment{PackageID: id, PackageVersion: version, Folder: i.Value("Folder")})
	}
	return all, nil
}
