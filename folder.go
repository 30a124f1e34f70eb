package cmg

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxFolder bounds a folder on a device, in characters: what is unpacked into
// it has to stay within the path of the strictest system.
const maxFolder = 200

// deviceNames open devices on Windows, whatever ending follows.
var deviceNames = []string{
	"con", "prn", "aux", "nul", "conin$", "conout$", "clock$",
	"com0", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8", "com9", "com¹", "com²", "com³",
	"lpt0", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9", "lpt¹", "lpt²", "lpt³",
}

// CheckFolder says why p may not be the folder on a device that a package is
// unpacked into: beside what CheckFilePath refuses, names that open devices
// on Windows, names that begin with .cmg, which the client keeps for itself,
// and more than 200 characters.
func CheckFolder(p string) error {
	if err := CheckFilePath(p); err != nil {
		return fmt.Errorf("folder: %w", err)
	}
	if n := utf8.RuneCountInString(p); n > maxFolder {
		return fmt.Errorf("folder %.60q… has %d characters, at most %d are allowed: %w", p, n, maxFolder, ErrInvalid)
	}
	for segment := range strings.SplitSeq(strings.ToLower(p), "/") {
		stem, _, _ := strings.Cut(segment, ".")
		switch {
		case strings.HasPrefix(segment, ".cmg"):
			return fmt.Errorf("folder %q: names that begin with .cmg are the client's own: %w", p, ErrInvalid)
		case slices.Contains(deviceNames, strings.TrimRight(stem, " ")):
			return fmt.Errorf("folder %q: %q is a device's name on Windows: %w", p, segment, ErrInvalid)
		}
	}
	return nil
}
