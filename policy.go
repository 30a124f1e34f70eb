package cmg

import "crypto/sha256"

// A Policy is one instruction for devices: an XML document that is named in
// the policy assignments and fetched by its id and digest.
type Policy struct {
	ID         string `json:"id"`      // braced GUID, upper case
	Version    string `json:"version"` // such as 1.00
	Category   string `json:"category"`
	Flags      uint32 `json:"flags"`                // PolicySecret, or 0
	Collection string `json:"collection,omitempty"` // whose devices it is for; empty: all devices
	Body       []byte `json:"body"`                 // as sent: UTF-16LE with byte order mark
}

// PolicySecret is the flag of a policy whose body only its approved device may
// read, encrypted to it on the way.
const PolicySecret = 4

// SHA256 is the digest that the assignment names and the client compares.
func (p Policy) SHA256() Digest { return sha256.Sum256(p.Body) }
