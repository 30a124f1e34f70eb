package auth

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/opencmg/cmg"
)

// A RoleName is who a certificate of the site speaks for. It stands in the
// certificate as the URI cmg://<site>/<role>/<name>; a device's is
// cmg://<site>/agent/<GUID>.
type RoleName struct {
	Site string
	Role cmg.RoleKind
	Name string
}

var (
	siteCode = regexp.MustCompile(`^[A-Za-z0-9]{1,16}$`)
	roleKind = regexp.MustCompile(`^[a-z][a-z-]{0,31}$`)
	roleName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
)

func (n RoleName) String() string { return "cmg://" + n.Site + "/" + string(n.Role) + "/" + n.Name }

func (n RoleName) check() error {
	if !siteCode.MatchString(n.Site) || !roleKind.MatchString(string(n.Role)) || !roleName.MatchString(n.Name) {
		return fmt.Errorf("role name %.200q is not cmg://<site>/<role>/<name> in letters, digits, dots, dashes and underscores: %w", n, cmg.ErrInvalid)
	}
	return nil
}

// RoleOf reads the role name from a certificate. It says nothing about who
// issued the certificate. A certificate with two role names has none.
func RoleOf(c *x509.Certificate) (n RoleName, ok bool) {
	for _, u := range c.URIs {
		if !strings.EqualFold(u.Scheme, "cmg") {
			continue
		}
		if ok {
			return RoleName{}, false
		}
		if n, ok = readRole(u); !ok {
			return RoleName{}, false
		}
	}
	return n, ok
}

// readRole is strict: the name has to be the URI's only spelling.
func readRole(u *url.URL) (RoleName, bool) {
	role, name, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	n := RoleName{Site: u.Host, Role: cmg.RoleKind(role), Name: name}
	if !ok || n.check() != nil || n.String() != u.String() {
		return RoleName{}, false
	}
	return n, true
}

// Thumbprint is the SHA-256 of the whole certificate, 64 hex digits in lower
// case.
func Thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// PeerRole gives the role of the other end of a TLS connection. It is false
// unless this package's settings have verified the peer under the site's
// roots in the handshake.
func PeerRole(cs *tls.ConnectionState) (RoleName, bool) {
	if cs == nil || !cs.HandshakeComplete || len(cs.PeerCertificates) == 0 {
		return RoleName{}, false
	}
	// A channel's client verifies by role in place of a host name, which
	// leaves VerifiedChains empty. Only a channel speaks this protocol, and
	// a channel's handshake never completes unverified.
	if len(cs.VerifiedChains) == 0 && cs.NegotiatedProtocol != channelProtocol {
		return RoleName{}, false
	}
	return RoleOf(cs.PeerCertificates[0])
}

// deviceOf maps a client certificate of this site to its device: by the URI
// of a certificate the site issued, else by a common name "GUID:…".
func deviceOf(c *x509.Certificate, site string) cmg.DeviceID {
	if n, ok := RoleOf(c); ok {
		if n.Site != site || n.Role != cmg.RoleAgent {
			return ""
		}
		id, err := cmg.ParseDeviceID(n.Name)
		if err != nil || id.GUID() != strings.ToUpper(n.Name) {
			return ""
		}
		return id
	}
	cn := c.Subject.CommonName
	if len(cn) < 5 || !strings.EqualFold(cn[:5], "GUID:") {
		return ""
	}
	id, err := cmg.ParseDeviceID(cn)
	if err != nil {
		return ""
	}
	return id
}
