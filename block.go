package cmg

import (
	"fmt"
	"strings"
)

// Blocks are those whom an administrator has shut out, whatever they show and
// however long it would still hold.
type Blocks struct {
	Devices      []DeviceID `json:"devices,omitempty"`
	Tokens       []string   `json:"tokens,omitempty"`       // ids
	Certificates []string   `json:"certificates,omitempty"` // see ParseCertificateName
	Tenants      []string   `json:"tenants,omitempty"`      // ids of directory tenants: GUIDs in lower case
}

// MaxBlocks bounds all of them together: so many fit into a publication.
const MaxBlocks = 32768

// Len is how many there are.
func (b Blocks) Len() int {
	return len(b.Devices) + len(b.Tokens) + len(b.Certificates) + len(b.Tenants)
}

// Check says what is wrong with b.
func (b Blocks) Check() error {
	if n := b.Len(); n > MaxBlocks {
		return fmt.Errorf("%d blocks, at most %d: %w", n, MaxBlocks, ErrTooLarge)
	}
	for _, c := range b.Certificates {
		if name, err := ParseCertificateName(c); err != nil || name != c {
			return fmt.Errorf("blocked certificate %.80q is not in its usual form: %w", c, ErrInvalid)
		}
	}
	return nil
}

// ThumbprintLength is how many hex digits a certificate's SHA-256 has. A
// serial number has fewer (RFC 5280 section 4.1.2.2: at most 20 octets).
const ThumbprintLength = 64

// ParseCertificateName reads how an administrator names a certificate: by its
// serial number in hex, as certificate tools print it, with or without colons
// and blanks, or by the SHA-256 of the whole. A serial number names one
// certificate of each authority that gave it. The usual form has lower-case
// digits without leading zeros.
func ParseCertificateName(s string) (string, error) {
	name := strings.ToLower(strings.NewReplacer(":", "", " ", "").Replace(s))
	bad := len(name) == 0 || strings.Trim(name, "0123456789abcdef") != ""
	if len(name) != ThumbprintLength {
		if name = strings.TrimLeft(name, "0"); name == "" {
			name = "0"
		}
		bad = bad || len(name) > 40
	}
	if bad {
		return "", fmt.Errorf("certificate %.80q is neither a serial number nor a SHA-256, in hex: %w", s, ErrInvalid)
	}
	return name, nil
}
