package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strings"
)

// hardwareFiles name the machine, the best first: the firmware's id, which
// stays when the system is installed anew, and the installation's. Other
// systems have neither and say nothing.
var hardwareFiles = []string{"/sys/class/dmi/id/product_uuid", "/etc/machine-id"}

// hardware gives what the site may compare registrations of one machine by:
// a hash with the site's code, so that the id itself is not told and two sites
// cannot compare theirs. Empty where the machine has no id that can be read.
func hardware(site string, files ...string) string {
	for _, f := range files {
		b, err := os.ReadFile(f)
		id := strings.ToLower(strings.TrimSpace(string(b)))
		if err != nil || len(id) < 32 || len(id) > 64 || strings.Trim(id, id[:1]+"-") == "" { // all F is no id
			continue
		}
		sum := sha256.Sum256([]byte("cmg hardware\n" + site + "\n" + id))
		return hex.EncodeToString(sum[:])
	}
	return ""
}
