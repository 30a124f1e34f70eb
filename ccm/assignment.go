package ccm

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencmg/cmg"
)

// An AssignmentRequest asks which policies apply to a device (PROTOCOL 6.1).
type AssignmentRequest struct {
	Client       cmg.DeviceID
	FQDN         string
	NetBIOSName  string
	PolicySource string // "SMS:" and the site code
	ServerCookie string // from the last reply; empty: everything
}

// XML writes the request.
func (r AssignmentRequest) XML() string {
	root := el("RequestAssignments", "SchemaVersion", "1.00", "ACK", "false", "RequestType", "Always")
	root.add(el("Identification").add(
		el("Machine").addText("ClientID", string(r.Client)).addText("FQDN", r.FQDN).addText("NetBIOSName", r.NetBIOSName).addText("SID", ""),
		el("User")))
	return root.addText("PolicySource", r.PolicySource).
		add(el("Resource", "ResourceType", "Machine")).
		addText("ServerCookie", r.ServerCookie).String()
}

// ReadAssignmentRequest reads an assignment request. Client is what the body
// says and may be empty; who asks is told by the message around it.
func ReadAssignmentRequest(text string) (AssignmentRequest, error) {
	e, err := parseRoot(text, "RequestAssignments")
	if err != nil {
		return AssignmentRequest{}, fmt.Errorf("read assignment request: %w", err)
	}
	machine := e.find("Identification", "Machine")
	r := AssignmentRequest{
		FQDN:         machine.find("FQDN").value(),
		NetBIOSName:  machine.find("NetBIOSName").value(),
		PolicySource: e.find("PolicySource").value(),
		ServerCookie: e.find("ServerCookie").value(),
	}
	if id := machine.find("ClientID").value(); id != "" {
		if r.Client, err = cmg.ParseDeviceID(id); err != nil {
			return AssignmentRequest{}, fmt.Errorf("read assignment request: %w", err)
		}
	}
	return r, nil
}

// An Assignment names one policy and where its body is.
type Assignment struct {
	ID       string // braced GUID of the assignment
	PolicyID string // braced GUID, or in the package style of the field
	Version  string
	Category string
	Flags    uint32
	Digest   cmg.Digest // of the policy's body
	Location string     // URL with "<mp>" for the management point

	Signature string // of the site, see Sign; empty: none
}

// AssignmentOf gives the assignment of a policy; both have the same id.
func AssignmentOf(p cmg.Policy) Assignment {
	return NewAssignment(p.ID, p.Version, p.Category, p.Flags, p.SHA256())
}

// NewAssignment is AssignmentOf where the body is not at hand, but its digest.
func NewAssignment(id, version, category string, flags uint32, d cmg.Digest) Assignment {
	return Assignment{ID: id, PolicyID: id, Version: version, Category: category, Flags: flags,
		Digest: d, Location: "http://<mp>/SMS_MP/.sms_pol?" + PolicyQuery(id, d)}
}

// PolicyQuery is the query under which /SMS_MP/.sms_pol gives a policy's body.
func PolicyQuery(policyID string, d cmg.Digest) string { return policyID + ".SHA256:" + d.String() }

// ReadPolicyQuery reads a raw query, percent-encoded or not: the policy's id,
// and its digest, or the zero digest where the query names a version as old
// clients do.
func ReadPolicyQuery(raw string) (policyID string, d cmg.Digest, err error) {
	q, err := url.PathUnescape(raw) // a plus sign means itself here
	if err != nil || len(q) > 512 || strings.ContainsFunc(q, func(r rune) bool { return r > 0x7e }) {
		return "", d, fmt.Errorf("read policy query %.100q: %w", raw, cmg.ErrInvalid)
	}
	id, suffix, ok := cutLast(q, ".SHA256:")
	if ok {
		if d, err = cmg.ParseDigest(suffix); err != nil {
			return "", d, fmt.Errorf("read policy query: %w", err)
		}
	} else if id, _, ok = strings.Cut(q, "."); !ok {
		id = q
	}
	if id == "" || strings.ContainsFunc(id, func(r rune) bool { return !isIDRune(r) }) {
		return "", cmg.Digest{}, fmt.Errorf("read policy query %.100q: no policy id: %w", q, cmg.ErrInvalid)
	}
	return id, d, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(strings.ToUpper(s), sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func isIDRune(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("{}-_/", r)
}

// An AssignmentReply lists the policies of a device (PROTOCOL 6.2).
type AssignmentReply struct {
	ServerCookie string
	Assignments  []Assignment
}

// XML writes the reply. PolicyLocation is the first child of Policy, because
// readers take it by its place.
func (r AssignmentReply) XML() string {
	root := el("ReplyAssignments", "SchemaVersion", "1.00", "ReplyType", "Full")
	for _, a := range r.Assignments {
		e := a.element()
		if a.Signature != "" {
			e.attrs = append(e.attrs, attr{"BodySignature", a.Signature}, attr{"HashAlgOID", HashAlgorithm})
		}
		root.add(e)
	}
	return root.addText("ServerCookie", r.ServerCookie).String()
}

func (a Assignment) element() *element {
	location := el("PolicyLocation", "PolicyHash", "SHA256:"+a.Digest.String(), "PolicyHashEx", "SHA256:"+a.Digest.String())
	location.text, location.cdata = a.Location, true
	return el("PolicyAssignment", "PolicyAssignmentID", a.ID).add(
		el("Policy", "PolicyID", a.PolicyID, "PolicyVersion", a.Version, "PolicyType", "Machine",
			"PolicyCategory", a.Category, "PolicyFlags", strconv.FormatUint(uint64(a.Flags), 10)).add(location))
}

// ReadAssignmentReply reads what XML writes.
func ReadAssignmentReply(text string) (AssignmentReply, error) {
	root, err := parseRoot(text, "ReplyAssignments")
	if err != nil {
		return AssignmentReply{}, fmt.Errorf("read assignment reply: %w", err)
	}
	r := AssignmentReply{ServerCookie: root.find("ServerCookie").value()}
	for _, e := range root.all("PolicyAssignment") {
		a, err := readAssignment(e)
		if err != nil {
			return AssignmentReply{}, fmt.Errorf("read assignment reply: %w", err)
		}
		r.Assignments = append(r.Assignments, a)
	}
	return r, nil
}

func readAssignment(e *element) (a Assignment, err error) {
	policy, err := e.one("Policy")
	if err != nil {
		return a, err
	}
	location, err := policy.one("PolicyLocation")
	if err != nil {
		return a, err
	}
	a = Assignment{ID: e.attr("PolicyAssignmentID"), PolicyID: policy.attr("PolicyID"), Version: policy.attr("PolicyVersion"),
		Category: policy.attr("PolicyCategory"), Location: location.value(), Signature: e.attr("BodySignature")}
	if alg := e.attr("HashAlgOID"); alg != "" && alg != HashAlgorithm {
		return a, fmt.Errorf("assignment of %.60s: hash algorithm %.60q: %w", a.PolicyID, alg, cmg.ErrInvalid)
	}
	if a.PolicyID == "" {
		return a, fmt.Errorf("an assignment without PolicyID: %w", cmg.ErrInvalid)
	}
	flags, err := policy.attrInt("PolicyFlags")
	if err != nil {
		return a, err
	}
	a.Flags = uint32(flags)
	hash, ok := strings.CutPrefix(location.attr("PolicyHash"), "SHA256:")
	if !ok {
		return a, fmt.Errorf("policy %.60s: hash %.80q is not SHA256:<hex>: %w", a.PolicyID, location.attr("PolicyHash"), cmg.ErrInvalid)
	}
	a.Digest, err = cmg.ParseDigest(hash)
	return a, err
}
