package cmg_test

import (
	"bytes"
	"os"
	"path"
	"slices"
	"testing"
)

// realTime says which files may ask the machine for the time, and why. All
// others are given a clock by whoever makes their parts: what ends after
// hours or days has to be tested without waiting for it. Deadlines of sockets
// and how long something took are real time, whatever a test makes of the
// clock.
//
// What moves bytes is left out: nearly every file of it has deadlines, and
// what it judges by the hour it judges with auth, which is not.
var realTime = map[string]string{
	"auth/authority.go":              "certificates are made by hand, from the time of whoever makes them",
	"auth/front.go":                  "the certificate that clients see is judged at the start",
	"auth/identity.go":               "the default where no clock is given",
	"auth/keyring.go":                "the default of claims without a beginning",
	"bits/config.go":                 "the default where no clock is given",
	"bits/receive.go":                "a deadline",
	"blob/disk.go":                   "the default where no clock is given",
	"auth/frontcertificate.go":       "the default where no clock is given",
	"blob/linked.go":                 "the default where no clock is given",
	"blob/serve.go":                  "a deadline",
	"blob/blobtest/blobtest.go":      "tests",
	"cmd/cmg/clock.go":               "it is the clock",
	"cmd/cmg/content.go":             "how long adding took",
	"cmd/cmg/lab.go":                 "how long the pass took",
	"cmd/cmg/labfolder.go":           "when the folder was made",
	"cmd/cmg/labwalk.go":             "how long a step took",
	"content/locate.go":              "the default where no clock is given",
	"distribution/source.go":         "a deadline",
	"role/agent/config.go":           "the default where no clock is given",
	"role/agent/notify.go":           "how long a request took",
	"role/managementpoint/config.go": "the default where no clock is given",

	"role/managementpoint/notification.go": "a deadline",
	"role/managementpoint/notifyserver.go": "deadlines",
	"site/site.go":                         "the default where no clock is given",
}

var movesBytes = []string{"bench", "channel", "e2e", "gate", "h1", "meter", "role/connectionpoint", "role/gateway", "web"}

// TestOneClock finds files that ask the machine for the time and need not.
func TestOneClock(t *testing.T) {
	h := readHouse(t, os.DirFS("."))
	found := 0
	for dir, sources := range h.packages {
		if slices.Contains(movesBytes, dir) {
			continue
		}
		for _, s := range sources {
			if s.test {
				continue
			}
			b, err := os.ReadFile(s.path)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(b, []byte("time.Now")) || bytes.Count(b, []byte("time.Now")) == bytes.Count(b, []byte("nil: time.Now\n")) {
				continue
			}
			found++
			if realTime[path.Clean(s.path)] == "" {
				t.Errorf("%s asks for time.Now: give it a clock, or say in clock_test.go why it is real time", s.path)
			}
		}
	}
	if found < 10 {
		t.Errorf("found %d files: this test does not look at the tree", found)
	}
}
