package connectionpoint

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/Azure/go-ntlmssp"
	"github.com/icholy/digest"
)

// The schemes with which one logs in at a proxy, the best first.
const (
	schemeDigest = "digest" // RFC 7616
	schemeNTLM   = "ntlm"   // MS-NTHT, version 2
	schemeBasic  = "basic"  // RFC 7617
	schemeNone   = "none"
)

// A login answers a proxy's challenges, one after the other.
type login struct {
	user, password, domain string
	only                   string // the scheme that is to be used; empty: the best offered

	tried   string // the scheme that is under way
	proven  bool   // the last word was said: a further challenge is a no
	renewed bool
}

// answer gives the value for Proxy-Authorization. status is for the error.
func (l *login) answer(challenges []string, status int, addr string) (string, error) {
	offered := offers(challenges)
	if l.user == "" || l.only == schemeNone {
		return "", errLogin("it asks for a login (%d, %s), and proxy.user is empty", status, names(offered))
	}
	if l.tried == "" {
		for _, s := range []string{schemeDigest, schemeNTLM, schemeBasic} {
			if _, ok := offered[s]; ok && (l.only == "" || l.only == s) {
				l.tried = s
				break
			}
		}
		if l.tried == "" {
			return "", errLogin("it offers %s (%d), of which none may be used (proxy.authentication %q)", names(offered), status, l.only)
		}
	}
	challenge := offered[l.tried]
	if l.proven {
		stale := l.tried == schemeDigest && !l.renewed && strings.Contains(strings.ToLower(strings.ReplaceAll(challenge, `"`, "")), "stale=true")
		if !stale {
			return "", errLogin("it does not take the user and the password (%d, %s)", status, l.tried)
		}
		l.renewed = true
	}
	switch l.tried {
	case schemeDigest:
		return l.digest(challenge, addr)
	case schemeNTLM:
		return l.ntlm(challenge)
	}
	l.proven = true
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(l.user+":"+l.password)), nil
}

func (l *login) digest(challenge, addr string) (string, error) {
	l.proven = true
	c, err := digest.ParseChallenge(challenge)
	if err != nil {
		return "", fmt.Errorf("its Digest challenge cannot be read: %w", err)
	}
	cred, err := digest.Digest(c, digest.Options{Method: "CONNECT", URI: addr, Username: l.user, Password: l.password, Count: 1})
	if err != nil {
		return "", fmt.Errorf("its Digest challenge cannot be answered: %w", err)
	}
	return cred.String(), nil
}

func (l *login) ntlm(challenge string) (string, error) {
	_, data, _ := strings.Cut(challenge, " ")
	if data = strings.TrimSpace(data); data == "" {
		hello, err := ntlmssp.NewNegotiateMessage(l.domain, "")
		return "NTLM " + base64.StdEncoding.EncodeToString(hello), err
	}
	l.proven = true
	b, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return "", fmt.Errorf("its NTLM challenge cannot be read: %w", err)
	}
	user := l.user
	if l.domain != "" && !strings.ContainsAny(user, `\@`) {
		user = l.domain + `\` + user
	}
	m, err := ntlmssp.NewAuthenticateMessage(wholeChallenge(b), user, l.password, nil)
	if err != nil {
		return "", fmt.Errorf("its NTLM challenge cannot be answered: %w", err)
	}
	return "NTLM " + base64.StdEncoding.EncodeToString(m), nil
}

// wholeChallenge gives an NTLM challenge (MS-NLMP, section 2.2.1.2) the field
// about the target that old servers leave off, and the library needs. What
// stands in the field's place is the target's name, which no answer needs.
func wholeChallenge(b []byte) []byte {
	const nameAt, challengeEnd, infoAt, whole = 12, 32, 40, 48
	if len(b) < challengeEnd {
		return b
	}
	if name := binary.LittleEndian.Uint32(b[nameAt+4:]); len(b) >= whole && (name >= whole || binary.LittleEndian.Uint16(b[nameAt:]) == 0) {
		info := uint64(binary.LittleEndian.Uint32(b[infoAt+4:])) + uint64(binary.LittleEndian.Uint16(b[infoAt:]))
		if info <= uint64(len(b)) {
			return b
		}
	}
	w := append(make([]byte, 0, whole), b[:challengeEnd]...)[:whole]
	clear(w[nameAt : nameAt+8])
	return w
}

// offers sorts the challenges by scheme. Of several of one scheme the first
// that can be answered counts.
func offers(challenges []string) map[string]string {
	all := map[string]string{}
	for _, c := range challenges {
		scheme, _, _ := strings.Cut(strings.TrimSpace(c), " ")
		scheme = strings.ToLower(scheme)
		if _, ok := all[scheme]; ok {
			continue
		}
		if scheme == schemeDigest {
			if d, err := digest.ParseChallenge(c); err != nil || !digest.CanDigest(d) {
				continue
			}
		}
		all[scheme] = c
	}
	return all
}

func names(offered map[string]string) string {
	var all []string
	for _, s := range []string{schemeDigest, schemeNTLM, schemeBasic, "negotiate"} {
		if _, ok := offered[s]; ok {
			all = append(all, s)
		}
	}
	if all == nil {
		return "no scheme that is known here"
	}
	return strings.Join(all, ", ")
}
