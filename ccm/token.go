package ccm

import (
	"crypto/rsa"
	"fmt"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// The headers that prove a request without a message (PROTOCOL 5).
const (
	HeaderClientID             = "CCMClientID"
	HeaderClientIDSignature    = "CCMClientIDSignature"
	HeaderTimestamp            = "CCMClientTimestamp"
	HeaderTimestampSignature   = "CCMClientTimestampSignature"  // what programs send
	HeaderTimestampsSignature  = "CCMClientTimestampsSignature" // what the documentation lists: accept both
	HeaderClientToken          = "ClientToken"
	HeaderClientTokenSignature = "ClientTokenSignature"
)

// ClientToken gives the text a device signs with SignText to prove that it
// holds its key now. It is good for one use.
func ClientToken(id cmg.DeviceID, at time.Time) string {
	return string(id) + ";" + at.UTC().Format(TimeLayout) + ";2"
}

// ParseClientToken reads what ClientToken writes. Nothing is proven by it; it
// says whose key to use in ReadClientToken.
func ParseClientToken(value string) (cmg.DeviceID, time.Time, error) {
	bad := func(why any) (cmg.DeviceID, time.Time, error) {
		return "", time.Time{}, fmt.Errorf("client token %.100q: %v: %w", value, why, cmg.ErrInvalid)
	}
	f := strings.Split(value, ";")
	if len(f) != 3 || f[2] != "2" {
		return bad("it is not id;time;2")
	}
	id, err := cmg.ParseDeviceID(f[0])
	if err != nil {
		return bad(err)
	}
	at, err := time.Parse(TimeLayout, f[1])
	if err != nil {
		return bad("its time is not " + TimeLayout)
	}
	return id, at, nil
}

// ReadClientToken checks a client token and its signature by pub, the key
// registered for the device it names, and that its time lies within skew of
// now. The caller has to refuse a value seen before. It wraps
// cmg.ErrUnauthenticated where the proof does not hold.
func ReadClientToken(value, sig string, pub *rsa.PublicKey, now time.Time, skew time.Duration) (cmg.DeviceID, error) {
	id, at, err := ParseClientToken(value)
	if err != nil {
		return "", err
	}
	if err := VerifyText(pub, value, sig); err != nil {
		return "", fmt.Errorf("client token of %s: %w", id, err)
	}
	if err := within(at, now, skew, id); err != nil {
		return "", err
	}
	return id, nil
}
