package auth

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencmg/cmg"
)

// entraClaims is what matters of a token of Entra ID, whichever version.
type entraClaims struct {
	version  string // ver: 1.0 or 2.0
	issuer   string
	tenant   string // tid, in lower case
	audience []string
	account  string // oid, else sub
	device   string // deviceid, of a device's or a user's on a device
	app      string // appid (1.0), azp (2.0)
	user     string // for people: preferred_username, upn
	from     time.Time
	until    time.Time
}

// readEntraClaims reads a payload by the exact names of its claims; those it
// does not know it passes over.
func readEntraClaims(payload []byte) (c entraClaims, err error) {
	o, err := readObject(payload)
	if err != nil {
		return c, err
	}
	missing := func(name string) error {
		return fmt.Errorf("claim %s is missing or malformed: %w", name, cmg.ErrInvalid)
	}
	var appid, azp, oid, sub, upn, name string
	for _, f := range []struct {
		name   string
		into   *string
		needed bool
	}{
		{"ver", &c.version, true}, {"iss", &c.issuer, true}, {"tid", &c.tenant, true},
		{"oid", &oid, false}, {"sub", &sub, false}, {"deviceid", &c.device, false}, {"appid", &appid, false}, {"azp", &azp, false},
		{"upn", &upn, false}, {"preferred_username", &name, false},
	} {
		value, ok := o[f.name]
		if ok && json.Unmarshal(value, f.into) != nil || f.needed && *f.into == "" {
			return c, missing(f.name)
		}
	}
	if c.tenant, err = cmg.ParseTenantID(c.tenant); err != nil {
		return c, missing("tid")
	}
	if c.device != "" {
		if c.device, err = cmg.ParseTenantID(c.device); err != nil { // a GUID as well
			return c, missing("deviceid")
		}
	}
	if c.account = oid; c.account == "" {
		c.account = sub
	}
	if c.account = plainText(c.account); c.account == "" || len(c.account) > 128 {
		return c, missing("oid")
	}
	if c.app = appid; c.version == "2.0" {
		c.app = azp
	}
	if c.user = name; c.user == "" {
		c.user = upn
	}
	if c.audience, err = readAudience(o["aud"]); err != nil {
		return c, err
	}
	return c, c.readTimes(o)
}

// readAudience reads one audience, or several.
func readAudience(raw json.RawMessage) ([]string, error) {
	var one string
	if json.Unmarshal(raw, &one) == nil && one != "" {
		return []string{one}, nil
	}
	var many []string
	if json.Unmarshal(raw, &many) != nil || len(many) == 0 || len(many) > 16 {
		return nil, fmt.Errorf("claim aud is missing or malformed: %w", cmg.ErrInvalid)
	}
	return many, nil
}

// readTimes reads exp, and nbf or else iat. Whole seconds, as Entra writes them.
func (c *entraClaims) readTimes(o map[string]json.RawMessage) error {
	const maxUnix = 1 << 40 // past it, time arithmetic would overflow
	read := func(name string) (t int64, ok bool, err error) {
		raw, ok := o[name]
		if !ok {
			return 0, false, nil
		}
		if json.Unmarshal(raw, &t) != nil || t < 0 || t > maxUnix {
			return 0, true, fmt.Errorf("claim %s is malformed or out of range: %w", name, cmg.ErrInvalid)
		}
		return t, true, nil
	}
	until, ok, err := read("exp")
	if err != nil || !ok {
		return fmt.Errorf("claim exp is missing or malformed: %w", cmg.ErrInvalid)
	}
	from, ok, err := read("nbf")
	if err != nil {
		return err
	}
	issued, has, err := read("iat")
	if err != nil {
		return err
	}
	if from = max(from, issued); !ok && !has || until <= from {
		return fmt.Errorf("claims nbf and iat are missing, or behind exp: %w", cmg.ErrInvalid)
	}
	c.from, c.until = time.Unix(from, 0).UTC(), time.Unix(until, 0).UTC()
	return nil
}

// caller says who the token proves.
func (c entraClaims) caller() cmg.Caller {
	name := c.user
	switch {
	case c.device != "":
		name = "Entra device " + c.device
	case name == "":
		name = "Entra application " + c.app
	}
	return cmg.Caller{
		Proof: cmg.ProofEntra, Tenant: c.tenant, Account: c.tenant + "/" + c.account,
		Name: plainText(name), NotAfter: c.until,
	}
}
