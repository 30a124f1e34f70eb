package cmg

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The prefixes under which a role behind a gateway is reached, followed by
// the role's id.
const (
	PrefixMutualAuth = "/CCM_Proxy_MutualAuth/" // callers with a client certificate
	PrefixServerAuth = "/CCM_Proxy_ServerAuth/" // callers with a token
)

// ManifestPath is where a gateway answers with the signed locations of a
// package's files.
const ManifestPath = "/downloadrestservice.svc/getcontentxmlsecure"

// ChannelPath is where a gateway takes a connection point's channel over
// HTTPS. A segment behind it names the instance that is wanted.
const ChannelPath = "/cmg/v1/channel"

// ownPaths are what gateways and connection points say to one another.
const ownPaths = "/cmg/"

// InsidePath is under what a gateway itself asks its site, down a channel: for
// the state of certificates, for lists of revoked ones, for fresh keys of
// tenants. No client reaches it.
const (
	InsidePath        = "/cmg/v1/inside"
	InsideRevoked     = InsidePath + "/revoked" // GET ?sha256=: a list's document
	InsideCertificate = InsidePath + "/certificate"
	InsideTenant      = InsidePath + "/tenant" // POST ?id=: look for new keys
)

// What a gateway answers itself under the prefixes: see PROTOCOL 1.1.
const (
	AuthInfoPath = PrefixServerAuth + "AADAuthInfo"
	MetadataPath = "ServiceMetadata" // behind either prefix
)

// Where a management point shows packages as a distribution point does. Its
// answers name whole paths, so it is reached with the published prefix in
// front, as the client wrote it.
const (
	DistributionPath      = "/SMS_DP_SMSPKG$"
	DistributionTokenPath = "/CCMTOKENAUTH_SMS_DP_SMSPKG$"
)

// MaxFragment is how many bytes of an upload a management point's route takes
// at once; a BITS client that sends more is told to send less.
const MaxFragment = 16 << 20

// A Route is what a gateway may pass inward: everything else is refused at
// the edge.
type Route struct {
	Prefix        string   `json:"prefix"`                   // path prefix, whole segments, compared without case
	Methods       []string `json:"methods"`                  // at least one
	Proofs        []Proof  `json:"proofs"`                   // any of these lets a caller in; at least one
	MaxBody       int64    `json:"max_body"`                 // bytes of request body; more is 413
	Idempotent    bool     `json:"idempotent,omitempty"`     // every method here may be sent twice
	PassToken     bool     `json:"pass_token,omitempty"`     // the site token that proved the caller goes on to the server; else it stays at the gateway
	Class         Class    `json:"class,omitempty"`          // what matters more when there is not room for all; empty: policy
	Waits         bool     `json:"waits,omitempty"`          // requests may wait long for their answer, as notifications do: see MayWait
	MaxConcurrent int64    `json:"max_concurrent,omitempty"` // requests inward at once, at each gateway instance; 0: no limit
	Name          string   `json:"name"`                     // for logs and reports, such as "SMS_MP"
}

// Check says what is wrong with r.
func (r Route) Check() error {
	bad := func(why string) error { return fmt.Errorf("route %q: %s: %w", r.Prefix, why, ErrInvalid) }
	switch {
	case !strings.HasPrefix(r.Prefix, "/") || r.Prefix == "/":
		return bad("the prefix has to begin with / and name at least one segment")
	case strings.HasSuffix(r.Prefix, "/") || strings.ContainsAny(r.Prefix, "?#%\\ ") || strings.Contains(r.Prefix, "//") || strings.Contains(r.Prefix+"/", "/../") || strings.Contains(r.Prefix+"/", "/./"):
		return bad("the prefix has to be plain segments without a closing slash")
	case strings.EqualFold(r.Prefix, ManifestPath), strings.HasPrefix(strings.ToLower(r.Prefix)+"/", ownPaths):
		return bad("the gateway answers this path itself")
	case len(r.Methods) == 0:
		return bad("no method is allowed")
	case len(r.Proofs) == 0 || slices.Contains(r.Proofs, ProofNone):
		return bad("it asks for no proof of the caller")
	case r.MaxBody < 0:
		return bad("max_body is negative")
	case r.MaxConcurrent < 0:
		return bad("max_concurrent is negative")
	}
	if err := r.Class.Check(); err != nil {
		return fmt.Errorf("route %q: %w", r.Prefix, err)
	}
	return nil
}

// MayWait says that requests on r may wait long for their answer, so that
// many should share one connection to the server. Clients' notification
// channel (…/bgb, …/bgb/handler.ashx) does without being marked.
func (r Route) MayWait() bool {
	p := strings.ToLower(r.Prefix)
	return r.Waits || strings.HasSuffix(p, "/bgb") || strings.HasSuffix(p, "/bgb/handler.ashx")
}

// A Publication is all a gateway has to know. The site signs it, a connection
// point carries it, a gateway keeps the last good one across a restart.
type Publication struct {
	Version uint64            `json:"version"` // grows with every change; a gateway never goes back
	Site    string            `json:"site"`    // site code
	Issued  time.Time         `json:"issued"`
	Routes  []Route           `json:"routes"`
	Anchors []string          `json:"anchors"` // client trust anchors and intermediates, PEM, one each
	Keys    []json.RawMessage `json:"keys"`    // public keys of site tokens, JWK (RFC 7517)

	Hierarchy  string     `json:"hierarchy,omitempty"` // GUID in lower case; bulk registration tokens name it
	Blocks     Blocks     `json:"blocks,omitzero"`     // who is refused whatever is shown
	Revocation Revocation `json:"revocation,omitzero"` // of client certificates
	Tenants    []Tenant   `json:"tenants,omitempty"`   // whose Entra tokens prove callers
}

// Check says what is wrong with p.
func (p Publication) Check() error {
	if p.Version == 0 || p.Site == "" {
		return fmt.Errorf("publication: version and site have to be set: %w", ErrInvalid)
	}
	seen := map[string]bool{}
	for _, r := range p.Routes {
		if err := r.Check(); err != nil {
			return err
		}
		if k := strings.ToLower(r.Prefix); seen[k] {
			return fmt.Errorf("route %q stands twice: %w", r.Prefix, ErrInvalid)
		} else {
			seen[k] = true
		}
	}
	for _, t := range p.Tenants {
		if err := t.Check(); err != nil {
			return err
		}
		if seen[t.ID] {
			return fmt.Errorf("tenant %s stands twice: %w", t.ID, ErrInvalid)
		}
		seen[t.ID] = true
	}
	if err := p.Revocation.Check(); err != nil {
		return err
	}
	return p.Blocks.Check()
}

// A Mapping tells a connection point where a published prefix leads.
type Mapping struct {
	Prefix string `json:"prefix"` // external path prefix, whole segments
	Target string `json:"target"` // http(s)://host[:port][/base]; base takes the prefix's place
}

// Check says what is wrong with m.
func (m Mapping) Check() error {
	u, err := url.Parse(m.Target)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return fmt.Errorf("mapping %q: target %.200q is not http(s)://host[:port][/base]: %w", m.Prefix, m.Target, ErrInvalid)
	}
	if !strings.HasPrefix(m.Prefix, "/") || len(m.Prefix) < 2 || strings.HasSuffix(m.Prefix, "/") {
		return fmt.Errorf("mapping %q: the prefix has to begin with /, name a segment and end without a slash: %w", m.Prefix, ErrInvalid)
	}
	return nil
}

// A Map is what a connection point fetches from its site: what to publish to
// every gateway and where each prefix leads.
type Map struct {
	Publication string    `json:"publication"` // the signed Publication, JWS compact form
	Mappings    []Mapping `json:"mappings"`
}

// ManagementPointRoutes gives the routes under which a management point is
// published: each endpoint once for certificates and once for tokens.
func ManagementPointRoutes(id RoleID) []Route {
	var rs []Route
	for _, e := range []Route{
		{Prefix: "/SMS_MP", Methods: []string{"GET", "HEAD"}, Name: "SMS_MP"},
		{Prefix: "/SMS_MP_TokenAuth", Methods: []string{"GET", "HEAD"}, Name: "SMS_MP_TokenAuth"},
		{Prefix: "/ccm_system", Methods: []string{"CCM_POST", "GET", "HEAD"}, MaxBody: 8 << 20, Name: "ccm_system"},
		{Prefix: "/ccm_system_tokenauth", Methods: []string{"CCM_POST", "GET", "HEAD"}, MaxBody: 8 << 20, Name: "ccm_system_tokenauth", Class: ClassRegistration},
		{Prefix: "/CCM_STS", Methods: []string{"GET", "POST"}, MaxBody: 64 << 10, Name: "CCM_STS", Class: ClassRegistration},
		{Prefix: "/CCM_Incoming", Methods: []string{"BITS_POST"}, MaxBody: MaxFragment, Name: "CCM_Incoming", Class: ClassBulk},
		{Prefix: DistributionPath, Methods: []string{"GET", "HEAD", "OPTIONS", "PROPFIND"}, MaxBody: 64 << 10, Name: "SMS_DP_SMSPKG$", Class: ClassBulk},
		{Prefix: DistributionTokenPath, Methods: []string{"GET", "HEAD", "OPTIONS", "PROPFIND"}, MaxBody: 64 << 10, Name: "CCMTOKENAUTH_SMS_DP_SMSPKG$", Class: ClassBulk},
		// A poll says what was taken, so the same again changes nothing.
		{Prefix: "/BGB", Methods: []string{"POST"}, MaxBody: 16 << 10, Name: "BGB", Waits: true, Idempotent: true},
	} {
		path := e.Prefix
		e.PassToken = true
		e.Prefix, e.Proofs = PrefixMutualAuth+id.String()+path, []Proof{ProofCertificate}
		rs = append(rs, e)
		e.Prefix, e.Proofs = PrefixServerAuth+id.String()+path, []Proof{ProofToken}
		if e.Class == ClassRegistration { // an Entra token opens these two, and is exchanged there
			e.Proofs = append(e.Proofs, ProofEntra)
		}
		rs = append(rs, e)
	}
	return rs
}
