package auth

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// described are the claims and header parameters that may be told of a token:
// what it says of its issuer, its purpose and its times. The token itself is a
// secret, and so is whatever else it says.
var (
	describedHeader = []string{"alg", "kid", "typ", "x5t"}
	describedClaims = []string{"iss", "aud", "knd", "jti", "sub", "tid", "appid", "azp", "ver", "deviceid", "SCCMTokenCategory"}
	describedTimes  = []string{"nbf", "iat", "exp"}
)

const (
	describedCerts = 4 // of those that were shown
	describedText  = 256
)

// Describe tells what e shows, for whoever asks why a request was refused:
// which certificates, which token, which times. Nothing of it was verified,
// and no secret is in it.
func Describe(e Evidence) (facts []cmg.Fact) {
	fact := func(name, value string) {
		if value != "" {
			facts = append(facts, cmg.Fact{Name: name, Value: value[:min(len(value), describedText)]})
		}
	}
	if n := len(e.Certificates); n > 0 {
		fact("certificates shown", strconv.Itoa(n))
	}
	for i, c := range e.Certificates[:min(len(e.Certificates), describedCerts)] {
		fact(fmt.Sprintf("certificate %d", i+1), describeCertificate(c))
	}
	switch token, ok := bearer(e.Authorization); {
	case ok:
		facts = append(facts, describeToken(token)...)
	case e.Authorization != "":
		scheme, _, _ := strings.Cut(e.Authorization, " ")
		if len(scheme) > 16 || strings.ContainsFunc(scheme, func(r rune) bool { return r < 'A' || r > 'z' }) {
			scheme = "unknown" // it may be a secret that lost its scheme
		}
		fact("authorization", "not a bearer token but of the scheme "+scheme)
	}
	return facts
}

func describeCertificate(c *x509.Certificate) string {
	var uses []string
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageClientAuth:
			uses = append(uses, "clientAuth")
		case x509.ExtKeyUsageServerAuth:
			uses = append(uses, "serverAuth")
		default:
			uses = append(uses, "usage"+strconv.Itoa(int(u)))
		}
	}
	for _, u := range c.UnknownExtKeyUsage {
		uses = append(uses, u.String())
	}
	serial := ""
	if c.SerialNumber != nil {
		serial = c.SerialNumber.Text(16)
	}
	return fmt.Sprintf("serial %s, valid %s to %s, usage %q, sha256 %s, subject %q, issuer %q", serial,
		c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339), strings.Join(uses, " "),
		Thumbprint(c), subjectOf(c), short(c.Issuer.String()))
}

func short(s string) string { return s[:min(len(s), 100)] }

// describeToken reads a compact JWS as far as it can be read.
func describeToken(token string) (facts []cmg.Fact) {
	fact := func(name, value string) { facts = append(facts, cmg.Fact{Name: name, Value: value}) }
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 {
		fact("token", fmt.Sprintf("%d bytes in %d parts: not a signed token of at most 8 KiB", len(token), len(parts)))
		return facts
	}
	for i, names := range [][]string{describedHeader, slices.Concat(describedClaims, describedTimes)} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		var o map[string]any
		if err == nil {
			err = json.Unmarshal(b, &o)
		}
		if err != nil {
			fact("token", fmt.Sprintf("part %d is not JSON in base64url", i+1))
			continue
		}
		for _, n := range names {
			switch v := o[n].(type) {
			case string:
				fact("token "+n, v[:min(len(v), describedText)])
			case float64:
				text := strconv.FormatFloat(v, 'f', -1, 64)
				if slices.Contains(describedTimes, n) && v > 0 && v < 1<<40 {
					text = time.Unix(int64(v), 0).UTC().Format(time.RFC3339)
				}
				fact("token "+n, text)
			}
		}
	}
	return facts
}
