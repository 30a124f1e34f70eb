package h1

import "bytes"

// maxUpgrade bounds what an Upgrade field may hold, in bytes.
const maxUpgrade = 256

// offered reads the protocols that an Upgrade field names (RFC 9110, section
// 7.8) and gives those that may pass; nil if there are none. Not one that is
// HTTP again: behind it requests would go on that nobody has checked.
func offered(v []byte) ([]byte, error) {
	if len(v) > maxUpgrade {
		return nil, bad("Upgrade is longer than %d bytes", maxUpgrade)
	}
	var kept []byte
	dropped, n := false, 0
	for rest := v; len(rest) > 0; {
		var p []byte
		p, rest, _ = bytes.Cut(rest, []byte(","))
		if p = bytes.Trim(p, " \t"); len(p) == 0 {
			continue
		}
		name, version, versioned := bytes.Cut(p, []byte("/"))
		if len(name) == 0 || !all(name, isToken) || versioned && len(version) == 0 || !all(version, isToken) {
			return nil, bad("Upgrade is not a list of protocols")
		}
		if carriesHTTP(name) {
			dropped = true
			continue
		}
		if n++; n > 1 {
			kept = append(kept, ", "...)
		}
		kept = append(kept, p...)
	}
	switch {
	case n == 0:
		return nil, nil
	case dropped:
		return kept, nil
	}
	return v, nil
}

// carriesHTTP names the protocols that are HTTP, or under which it goes on.
func carriesHTTP(name []byte) bool {
	for _, p := range []string{"h2c", "h2", "h3", "tls", "ssl", "spdy"} {
		if len(name) == len(p) && hasFold(name, p) {
			return true
		}
	}
	return hasFold(name, "http")
}

// Accepts says whether a server that was offered these protocols may go on
// with the chosen one.
func Accepts(offered, chosen []byte) bool {
	for rest := offered; len(rest) > 0 && len(chosen) > 0; {
		var p []byte
		p, rest, _ = bytes.Cut(rest, []byte(","))
		if bytes.EqualFold(bytes.Trim(p, " \t"), chosen) {
			return true
		}
	}
	return false
}

// upgrade says what a request whose body has the given length offers. A
// request with a body, or in HTTP/1.0, offers nothing: its Upgrade is passed
// over, as RFC 9110 lets every server do.
func (f *framing) upgrade(length int64) ([]byte, error) {
	switch {
	case f.upgrades > 1:
		return nil, bad("more than one Upgrade")
	case f.upgrades == 0 || f.http10 || length != 0 || !f.nominates("upgrade"):
		return nil, nil
	}
	return offered(f.protocols)
}

// switched says to what protocol a 101 leads; nil if it does not say so as it
// has to.
func (f *framing) switched() ([]byte, error) {
	if f.te || f.hasLength {
		return nil, bad("101 Switching Protocols with a body")
	}
	if f.upgrades != 1 || !f.nominates("upgrade") || bytes.IndexByte(f.protocols, ',') >= 0 {
		return nil, nil
	}
	return offered(f.protocols)
}
