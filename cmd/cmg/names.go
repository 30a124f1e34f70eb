package main

import (
	"net"
	"regexp"
	"strings"
)

var (
	plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`) // as auth's role names
	hostLabel = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)
)

// checkName says what is wrong with the name of a role or of a certificate:
// it stands in certificates and names files.
func checkName(name string) error {
	if !plainName.MatchString(name) {
		return usage("--name %.60q is not at most 128 letters, digits, dots, dashes and underscores, the first a letter or digit", name)
	}
	return nil
}

// checkHost says what is wrong with a host name or an address.
func checkHost(flag, host string) error {
	if net.ParseIP(host) != nil {
		return nil
	}
	name, _ := strings.CutPrefix(host, "*.") // a certificate may be for all names of a domain
	bad := len(host) > 253
	for label := range strings.SplitSeq(name, ".") {
		bad = bad || !hostLabel.MatchString(label)
	}
	if bad {
		return usage("%s %.60q is neither a host name nor an address", flag, host)
	}
	return nil
}
