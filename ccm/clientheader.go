package ccm

import (
	"crypto/rsa"
	"fmt"
	"net/http"
	"time"

	"github.com/opencmg/cmg"
)

// A ClientHeader is what the CCMClient… headers of a request say (PROTOCOL
// 5): who sent it and when, each with a signature. Nothing is proven before
// Verify.
type ClientHeader struct {
	Device cmg.DeviceID
	Time   time.Time

	id, at, idSignature, timeSignature string // as sent
}

// ReadClientHeader reads the headers; nil where there are none. Each has to be
// there once, the signature of the time by either of its names. Anything else
// is cmg.ErrInvalid.
func ReadClientHeader(h http.Header) (*ClientHeader, error) {
	one := func(names ...string) (string, error) {
		var all []string
		for _, n := range names {
			all = append(all, h.Values(n)...)
		}
		if len(all) != 1 || all[0] == "" || len(all[0]) > 2*maxKeyBits/8 {
			return "", fmt.Errorf("header %s is there %d times, or is empty or too long: %w", names[0], len(all), cmg.ErrInvalid)
		}
		return all[0], nil
	}
	present := false
	for _, n := range []string{HeaderClientID, HeaderClientIDSignature, HeaderTimestamp, HeaderTimestampSignature, HeaderTimestampsSignature} {
		present = present || len(h.Values(n)) > 0
	}
	if !present {
		return nil, nil
	}
	c := new(ClientHeader)
	for _, f := range []struct {
		into  *string
		names []string
	}{
		{&c.id, []string{HeaderClientID}}, {&c.idSignature, []string{HeaderClientIDSignature}},
		{&c.at, []string{HeaderTimestamp}}, {&c.timeSignature, []string{HeaderTimestampSignature, HeaderTimestampsSignature}},
	} {
		v, err := one(f.names...)
		if err != nil {
			return nil, err
		}
		*f.into = v
	}
	var err error
	if c.Device, err = cmg.ParseDeviceID(c.id); err != nil {
		return nil, err
	}
	if c.Time, err = time.Parse(TimeLayout, c.at); err != nil {
		return nil, fmt.Errorf("header %s %.40q is not %s: %w", HeaderTimestamp, c.at, TimeLayout, cmg.ErrInvalid)
	}
	return c, nil
}

// Verify checks both signatures by pub, the key registered for c.Device, and
// that the time lies within allowance of now. It wraps cmg.ErrUnauthenticated
// where that is not so.
func (c *ClientHeader) Verify(pub *rsa.PublicKey, now time.Time, allowance time.Duration) error {
	if err := VerifyText(pub, c.id, c.idSignature); err != nil {
		return fmt.Errorf("client id of %s: %w", c.Device, err)
	}
	if err := VerifyText(pub, c.at, c.timeSignature); err != nil {
		return fmt.Errorf("signed time of %s: %w", c.Device, err)
	}
	return within(c.Time, now, allowance, c.Device)
}

func within(at, now time.Time, allowance time.Duration, who cmg.DeviceID) error {
	if d := now.Sub(at).Abs(); d > allowance {
		return fmt.Errorf("signed time of %s: it is %s off, more than %s: %w", who, d.Round(time.Second), allowance, cmg.ErrUnauthenticated)
	}
	return nil
}

// VerifyHookTime checks the signed time in a message's hook, where its sender
// uses that form: that it is of the message's device, signed by pub and within
// allowance of now. Without one it gives nil. Like the rest of the hook it
// binds the message to nothing: it may be repeated while its time holds.
func (m *Message) VerifyHookTime(pub *rsa.PublicKey, now time.Time, allowance time.Duration) error {
	if m.Hooks.Token == "" {
		return nil
	}
	id, err := ReadClientToken(m.Hooks.Token, m.Hooks.TokenSignature, pub, now, allowance)
	if err == nil && id != m.Source {
		err = fmt.Errorf("signed time in the hook of %s is of %s: %w", m.Source, id, cmg.ErrUnauthenticated)
	}
	return err
}

// SignClientHeader sets the CCMClient… headers that ReadClientHeader reads. A
// token service takes them for nothing: whoever sees them on their way cannot
// open a session by them, as by a ClientToken.
func SignClientHeader(h http.Header, key *rsa.PrivateKey, id cmg.DeviceID, at time.Time) error {
	stamp := at.UTC().Format(TimeLayout)
	for _, f := range [][3]string{{HeaderClientID, HeaderClientIDSignature, string(id)}, {HeaderTimestamp, HeaderTimestampSignature, stamp}} {
		sig, err := SignText(key, f[2])
		if err != nil {
			return fmt.Errorf("sign client headers: %w", err)
		}
		h.Set(f[0], f[2])
		h.Set(f[1], sig)
	}
	return nil
}
