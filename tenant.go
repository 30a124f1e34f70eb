package cmg

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Tenant is a directory of Microsoft Entra ID whose tokens prove callers.
type Tenant struct {
	ID        string            `json:"id"`             // GUID in lower case
	Name      string            `json:"name,omitempty"` // for people
	Authority string            `json:"authority"`      // https://host[:port], without a closing slash
	Audiences []string          `json:"audiences"`      // values of aud that are for this site; at least one
	Client    string            `json:"client"`         // application that clients sign in with; what AADAuthInfo tells them
	Resource  string            `json:"resource"`       // what they ask a token for; what AADAuthInfo tells them
	Apps      []string          `json:"apps,omitempty"` // applications (appid, azp) whose tokens are taken; empty: any
	Issuers   []string          `json:"issuers"`        // values of iss
	Keys      []json.RawMessage `json:"keys"`           // public keys, JWK; the site fetched them
	Fetched   time.Time         `json:"fetched,omitzero"`
}

// The authorities of Entra ID's clouds, as they are named on a command line.
var EntraClouds = map[string]string{
	"public": "https://login.microsoftonline.com",
	"usgov":  "https://login.microsoftonline.us",
}

// The issuers of tokens of version 1.0 do not name their cloud.
const entraIssuer1 = "https://sts.windows.net/"

const maxAudiences = 16

// ParseTenantID reads a tenant's GUID in either case.
func ParseTenantID(s string) (string, error) {
	if !isGUID(s) {
		return "", fmt.Errorf("tenant id %.60q is not a GUID: %w", s, ErrInvalid)
	}
	return strings.ToLower(s), nil
}

// EntraIssuers gives the issuers of a tenant's tokens: of version 1.0, and of
// version 2.0 under an authority.
func EntraIssuers(authority, tenant string) []string {
	return []string{entraIssuer1 + tenant + "/", authority + "/" + tenant + "/v2.0"}
}

// Check says what is wrong with t.
func (t Tenant) Check() error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("tenant %.40q: "+format+": %w", append(append([]any{t.ID}, a...), ErrInvalid)...)
	}
	if id, err := ParseTenantID(t.ID); err != nil || id != t.ID {
		return bad("the id is not a GUID in lower case")
	}
	u, err := url.Parse(t.Authority)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return bad("authority %.100q is not https://host[:port]", t.Authority)
	case len(t.Audiences) == 0 || len(t.Audiences) > maxAudiences || slices.Contains(t.Audiences, ""):
		return bad("it needs between one and %d audiences", maxAudiences)
	case len(t.Issuers) == 0 || slices.Contains(t.Issuers, ""):
		return bad("it has no issuer")
	}
	for _, i := range t.Issuers {
		if !strings.Contains(i, t.ID) {
			return bad("issuer %.200q does not name the tenant", i) // else one tenant could speak for another
		}
	}
	return nil
}
