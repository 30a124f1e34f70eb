package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/opencmg/cmg"
)

// header is the protected header of a compact JWS (RFC 7515), as strict as
// the only writers we read from: this house's own.
type header struct {
	alg jose.SignatureAlgorithm
	kid string
}

// readHeader takes the header off a compact JWS without trusting it. It has
// to hold alg, kid and this typ and nothing more: so there is no way in for
// keys that come with the message (jwk, jku, x5u), for critical extensions
// nobody understands (crit), or for a message made for another purpose (typ).
func readHeader(compact, typ string) (header, error) {
	o, _, err := takeApart(compact)
	if err != nil {
		return header{}, err
	}
	var h header
	var gotTyp string
	for name, value := range o {
		var err error
		switch name {
		case "alg":
			err = json.Unmarshal(value, &h.alg)
		case "kid":
			err = json.Unmarshal(value, &h.kid)
		case "typ":
			err = json.Unmarshal(value, &gotTyp)
		default:
			err = errors.New("not understood")
		}
		if err != nil {
			return header{}, fmt.Errorf("header parameter %.40q: %w: %w", name, err, cmg.ErrInvalid)
		}
	}
	if h.alg == "" || h.kid == "" || gotTyp != typ {
		return header{}, fmt.Errorf("header: alg, kid or typ is missing, or typ is not %s: %w", typ, cmg.ErrInvalid)
	}
	return h, nil
}

// takeApart gives the protected header of a compact JWS, and its payload as it
// was encoded, without trusting either.
func takeApart(compact string) (o map[string]json.RawMessage, payload string, err error) {
	for i := range len(compact) { // the base64 decoder would pass over line ends
		switch c := compact[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return nil, "", fmt.Errorf("byte %d is not of a compact JWS: %w", i, cmg.ErrInvalid)
		}
	}
	first, rest, ok := strings.Cut(compact, ".")
	if !ok || strings.Count(rest, ".") != 1 {
		return nil, "", fmt.Errorf("a compact JWS has three parts: %w", cmg.ErrInvalid)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(first)
	if err != nil {
		return nil, "", fmt.Errorf("header: %w: %w", err, cmg.ErrInvalid)
	}
	if o, err = readObject(b); err != nil {
		return nil, "", fmt.Errorf("header: %w", err)
	}
	payload, _, _ = strings.Cut(rest, ".")
	return o, payload, nil
}

// verifyCompact checks the signature with a key whose algorithm is known
// beforehand, and gives the payload.
func verifyCompact(compact string, alg jose.SignatureAlgorithm, key verifyKey) ([]byte, error) {
	if alg != key.alg {
		return nil, fmt.Errorf("algorithm %.20q with a key for %s: %w", alg, key.alg, cmg.ErrUnauthenticated)
	}
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{key.alg})
	if err != nil {
		return nil, fmt.Errorf("read JWS: %w: %w", err, cmg.ErrInvalid)
	}
	payload, err := jws.Verify(key.key)
	if err != nil {
		return nil, fmt.Errorf("verify JWS: %w: %w", err, cmg.ErrUnauthenticated)
	}
	return payload, nil
}

// signCompact makes a compact JWS. typ keeps messages of different purposes
// apart (RFC 8725 section 3.11).
func signCompact(alg jose.SignatureAlgorithm, key any, kid, typ string, payload any) (string, error) {
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(payload)
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(b)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

const maxDepth = 8 // of JSON inside JSON

// readObject reads a JSON object in which no name stands twice, at any depth:
// two readers could take two different values for the truth.
func readObject(b []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := walk(d, 0); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("read JSON: something follows it: %w", cmg.ErrInvalid)
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(b, &o); err != nil || o == nil {
		return nil, fmt.Errorf("read JSON: it is not an object: %w", cmg.ErrInvalid)
	}
	return o, nil
}

func walk(d *json.Decoder, depth int) error {
	t, err := d.Token()
	if err != nil {
		return fmt.Errorf("read JSON: %w: %w", err, cmg.ErrInvalid)
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxDepth {
		return fmt.Errorf("read JSON: deeper than %d: %w", maxDepth, cmg.ErrInvalid)
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			t, err := d.Token()
			if err != nil {
				return fmt.Errorf("read JSON: %w: %w", err, cmg.ErrInvalid)
			}
			name := t.(string) // the decoder lets nothing else stand here
			if seen[name] {
				return fmt.Errorf("read JSON: %.40q stands twice: %w", name, cmg.ErrInvalid)
			}
			seen[name] = true
		}
		if err := walk(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	if err != nil {
		return fmt.Errorf("read JSON: %w: %w", err, cmg.ErrInvalid)
	}
	return nil
}

// wireClaims is a token's payload.
type wireClaims struct {
	Issuer   string             `json:"iss"`
	Audience string             `json:"aud"`
	Kind     TokenKind          `json:"knd"`
	ID       string             `json:"jti"`
	Device   cmg.DeviceID       `json:"sub,omitempty"`
	Issued   int64              `json:"iat,omitempty"`
	From     int64              `json:"nbf"`
	Until    int64              `json:"exp"`
	Packages []cmg.PackageGrant `json:"pkg,omitempty"`
	Note     string             `json:"note,omitempty"`
	Grace    int64              `json:"grc,omitempty"` // seconds

	// Of a bulk registration token, as in PROTOCOL 4.6.
	Category  string `json:"SCCMTokenCategory,omitempty"`
	Authority string `json:"Authority,omitempty"`
	License   string `json:"License,omitempty"`
	Type      string `json:"Type,omitempty"`
	Tenant    string `json:"TenantId,omitempty"` // the hierarchy's GUID, upper case
	Unique    string `json:"UniqueId,omitempty"` // the token's id
}

// asField says what c says in the field's words, where they are known.
func (w wireClaims) asField(c Claims) wireClaims {
	if c.Kind != TokenRegistration || c.Hierarchy == "" {
		return w
	}
	w.Issuer, w.Audience, w.Issued = fieldIssuer+strings.ToLower(c.Hierarchy), fieldAudience, 0
	w.Category, w.Authority, w.License, w.Type = "SCCMPreAuthToken", "SCCM", "SCCM", "BulkRegistration"
	w.Tenant, w.Unique = strings.ToUpper(c.Hierarchy), c.ID
	return w
}

// readClaims reads a payload by the exact names of its claims; it passes over
// claims it does not know. Audience and issuer come back as they stand there.
func readClaims(payload []byte) (c Claims, aud, iss string, err error) {
	o, err := readObject(payload)
	if err != nil {
		return c, "", "", err
	}
	var device string
	var from, until, grace int64
	for _, f := range []struct {
		name   string
		into   any
		needed bool
	}{
		{"iss", &iss, true}, {"aud", &aud, true}, {"knd", &c.Kind, true}, {"jti", &c.ID, true},
		{"nbf", &from, true}, {"exp", &until, true},
		{"sub", &device, false}, {"pkg", &c.Packages, false}, {"note", &c.Note, false},
		{"grc", &grace, false},
	} {
		value, ok := o[f.name]
		if !ok && !f.needed {
			continue
		}
		if err := json.Unmarshal(value, f.into); err != nil { // also where it is missing
			return c, "", "", fmt.Errorf("claim %s is missing or malformed: %w", f.name, cmg.ErrInvalid)
		}
	}
	if device != "" {
		if c.Device, err = cmg.ParseDeviceID(device); err != nil {
			return c, "", "", fmt.Errorf("claim sub: %w", err)
		}
	}
	const maxUnix = 1 << 40 // past it, time arithmetic would overflow
	if grace < 0 || grace > int64(MaxGrace/time.Second) {
		return c, "", "", fmt.Errorf("claim grc is out of range: %w", cmg.ErrInvalid)
	}
	c.Grace = time.Duration(grace) * time.Second
	if from < 0 || until < 0 || from > maxUnix || until > maxUnix {
		return c, "", "", fmt.Errorf("claim nbf or exp is out of range: %w", cmg.ErrInvalid)
	}
	c.NotBefore, c.Expires = time.Unix(from, 0).UTC(), time.Unix(until, 0).UTC()
	return c, aud, iss, nil
}
