package cmg

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A DeviceID names a client for ever: "GUID:" and a GUID in upper case, as
// Configuration Manager's clients sign it (there called SMSID or client id).
type DeviceID string

// ParseDeviceID reads a device id strictly: 36 characters of GUID, with or
// without the "GUID:" in front, in either case and nothing else around it.
// Strict because this value once was a way into the original product's
// database (CVE-2024-43468).
func ParseDeviceID(s string) (DeviceID, error) {
	g := s
	if len(g) == 41 && strings.EqualFold(g[:5], "GUID:") {
		g = g[5:]
	}
	if !isGUID(g) {
		return "", fmt.Errorf("device id %.60q is not GUID:xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx: %w", s, ErrInvalid)
	}
	return DeviceID("GUID:" + strings.ToUpper(g)), nil
}

// NewDeviceID makes a random device id.
func NewDeviceID() DeviceID { return DeviceID("GUID:" + strings.ToUpper(NewGUID())) }

// NewGUID makes a random GUID in lower case without braces (RFC 9562, version 4).
func NewGUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return false
		}
	}
	return true
}

// GUID gives the id without its "GUID:".
func (d DeviceID) GUID() string { return strings.TrimPrefix(string(d), "GUID:") }

// A RoleID is the opaque unsigned 64-bit decimal in /CCM_Proxy_MutualAuth/<id>.
type RoleID uint64

// ParseRoleID reads a decimal without sign, blanks or leading zeros.
func ParseRoleID(s string) (RoleID, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("role id %.40q is not an unsigned 64-bit decimal: %w", s, ErrInvalid)
	}
	return RoleID(n), nil
}

func (r RoleID) String() string { return strconv.FormatUint(uint64(r), 10) }

// A Proof is a way in which a caller was proven.
type Proof string

const (
	ProofNone        Proof = ""
	ProofCertificate Proof = "certificate" // TLS client certificate
	ProofToken       Proof = "token"       // site-issued token
	ProofEntra       Proof = "entra"       // token of a known tenant of Microsoft Entra ID
)

// A Caller is who a gateway found to be calling. Only what was proven is set.
type Caller struct {
	Proof      Proof     `json:"proof"`
	Device     DeviceID  `json:"device,omitempty"`     // from the token, or from the certificate's name where it holds one
	Name       string    `json:"name,omitempty"`       // certificate subject, the token's note, or the Entra device
	Thumbprint string    `json:"thumbprint,omitempty"` // SHA-256 of the certificate, hex
	TokenID    string    `json:"token_id,omitempty"`
	TokenKind  string    `json:"token_kind,omitempty"`
	Tenant     string    `json:"tenant,omitempty"`  // GUID of the Entra tenant
	Account    string    `json:"account,omitempty"` // of an Entra token: <tenant>/<object id>
	Gateway    string    `json:"gateway,omitempty"` // the instance that checked the proof
	NotAfter   time.Time `json:"not_after,omitzero"`
}

type callerKey struct{}

// WithCaller puts c into the context, where a role's handlers find it.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom gives the caller that was proven, and whether there is one.
func CallerFrom(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}
