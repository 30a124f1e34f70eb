package bits

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/opencmg/cmg"
)

// Config says what a Server needs. Fields with a JSON name come from the
// config file; main sets the rest.
type Config struct {
	Dir            string        `json:"dir"`              // folder of the server's own; empty: no uploads are taken
	MaxSize        int64         `json:"max_size"`         // bytes of one file; 0: 4 GiB
	MaxFragment    int64         `json:"max_fragment"`     // bytes of one fragment; 0: 16 MiB, what the published route takes
	MaxSessions    int           `json:"max_sessions"`     // under way at once; 0: 10,000
	MaxBytes       int64         `json:"max_bytes"`        // of all files under way, as announced; 0: 64 GiB
	DeviceSessions int           `json:"device_sessions"`  // under way at once from one device; 0: 16
	DeviceBytes    int64         `json:"device_bytes"`     // of all files under way from one device, as announced; 0: 8 GiB
	Idle           time.Duration `json:"idle"`             // an upload may rest; 0: 168h
	HostID         string        `json:"host_id"`          // host name for the rest of an upload that came straight from the inside; empty: the one it came to
	HostIDFallback time.Duration `json:"host_id_fallback"` // when a client may go back to the first host; 0: 10m

	// Deliver takes a whole file: moves it from Upload.Path and records it, so
	// that it stays whatever happens, before it returns nil. It is called
	// again with the same id where the process ended before the answer; then
	// the file may be gone from Path already. Required.
	Deliver func(context.Context, Upload) error `json:"-"`

	Log *slog.Logger     `json:"-"` // nil is silent
	Now func() time.Time `json:"-"` // nil: time.Now
}

// stall is how long a client may send nothing of a fragment.
const stall = time.Minute

// complete checks c and fills in what is left out.
func (c *Config) complete() error {
	if c.Dir == "" || c.Deliver == nil {
		return fmt.Errorf("uploads: no folder, or nobody who takes them: %w", cmg.ErrInvalid)
	}
	for _, n := range []struct {
		name  string
		value *int64
		usual int64
	}{
		{"max_size", &c.MaxSize, 4 << 30}, {"max_fragment", &c.MaxFragment, cmg.MaxFragment},
		{"max_bytes", &c.MaxBytes, 64 << 30}, {"device_bytes", &c.DeviceBytes, 8 << 30},
	} {
		if *n.value == 0 {
			*n.value = n.usual
		}
		if *n.value < 0 {
			return fmt.Errorf("uploads: %s is negative: %w", n.name, cmg.ErrInvalid)
		}
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = 10_000
	}
	if c.DeviceSessions == 0 {
		c.DeviceSessions = 16
	}
	if c.Idle == 0 {
		c.Idle = 7 * 24 * time.Hour
	}
	if c.HostIDFallback == 0 {
		c.HostIDFallback = 10 * time.Minute
	}
	if c.MaxSessions < 0 || c.DeviceSessions < 0 || c.Idle < time.Second || c.HostIDFallback < time.Second {
		return fmt.Errorf("uploads: max_sessions, device_sessions, idle or host_id_fallback is less than one: %w", cmg.ErrInvalid)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// An Upload is a file that is whole.
type Upload struct {
	ID     string     // a GUID in upper case, of the session: another one for every upload
	Owner  string     // as it was given to Serve
	Name   string     // as it was given to Serve
	Size   int64      // bytes
	SHA256 cmg.Digest // of the bytes, as they were received
	Path   string     // where the bytes are, durable, until Deliver takes them away
}
