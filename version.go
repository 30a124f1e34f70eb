package cmg

import (
	"runtime"
	"runtime/debug"
)

// Version is the release; the build may set it with
// -ldflags "-X github.com/opencmg/cmg.Version=…".
var Version = "0.1.0-dev"

// Build describes the running binary.
type Build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"` // commit, with "+dirty" where the tree had changes
	Time     string `json:"time,omitempty"`     // commit time, RFC 3339
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// BuildInfo reads what the linker left in the binary.
func BuildInfo() Build {
	b := Build{Version: Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	dirty := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if b.Revision != "" {
		b.Revision += dirty
	}
	return b
}
