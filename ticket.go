package cmg

import (
	"fmt"
	"log/slog"
	"time"
)

// A Secret prints as a placeholder. In JSON it stands as base64.
type Secret []byte

// String keeps the value out of texts.
func (Secret) String() string { return "[secret]" }

// GoString keeps the value out of texts.
func (Secret) GoString() string { return "[secret]" }

// LogValue keeps the value out of logs.
func (Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// A TicketSecret is what the gateways of a site make the keys of TLS session
// tickets of, so that a client resumes at any instance.
type TicketSecret struct {
	ID     string    `json:"id"`
	Secret Secret    `json:"secret"` // 32 random bytes
	From   time.Time `json:"from"`   // tickets are made with it from then on, until a younger one's time comes
	Until  time.Time `json:"until"`  // tickets made with it are taken until then
}

// TicketSecrets are those in use: at most MaxTicketSecrets.
type TicketSecrets struct {
	Secrets []TicketSecret `json:"secrets"`
}

// MaxTicketSecrets bounds how many there are at once.
const MaxTicketSecrets = 8

// Check says what is wrong with t.
func (t TicketSecrets) Check() error {
	if len(t.Secrets) > MaxTicketSecrets {
		return fmt.Errorf("%d ticket secrets, at most %d: %w", len(t.Secrets), MaxTicketSecrets, ErrInvalid)
	}
	for _, s := range t.Secrets {
		if s.ID == "" || len(s.ID) > 64 || len(s.Secret) != 32 || !s.From.Before(s.Until) {
			return fmt.Errorf("ticket secret %.64q: wants an id, 32 bytes and from before until: %w", s.ID, ErrInvalid)
		}
	}
	return nil
}
