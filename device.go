package cmg

import "time"

// Approval is whether a device may have secrets and content.
type Approval string

// What a device can be: it waits for an administrator, it may have what it
// asks for, or nothing at all.
const (
	Pending  Approval = "pending"
	Approved Approval = "approved"
	Blocked  Approval = "blocked"
)

// A Device is a registered client.
type Device struct {
	ID          DeviceID  `json:"id"`
	Name        string    `json:"name"`                 // NetBIOS name
	FQDN        string    `json:"fqdn"`                 // may be empty
	Agent       string    `json:"agent"`                // agent version, as registered
	Certificate []byte    `json:"certificate"`          // signing certificate, DER: its key signs messages
	Encryption  []byte    `json:"encryption,omitempty"` // certificate, DER, to whose key secrets are encrypted; empty: the signing certificate
	Hardware    string    `json:"hardware,omitempty"`   // what the device calls its hardware; a claim, nothing hangs on it
	Approval    Approval  `json:"approval"`
	Proof       Proof     `json:"proof"`                // how the device was proven when it registered
	Thumbprint  string    `json:"thumbprint,omitempty"` // of the TLS client certificate it registered with, SHA-256 in hex
	Registered  time.Time `json:"registered"`
	LastSeen    time.Time `json:"last_seen"`
}
