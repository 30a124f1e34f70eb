package auth

import (
	"crypto/x509"
	"net/http"
	"strings"

	"github.com/opencmg/cmg"
)

// blocks looks up who is shut out. nil is nobody, which costs one comparison.
// It is asked at every request, behind whatever was remembered of the proof:
// so a block counts for live connections and resumed sessions too.
type blocks struct {
	devices                      map[cmg.DeviceID]struct{}
	tokens, thumbprints, tenants map[string]struct{}
	serials                      map[string]struct{} // big-endian bytes, without zeros in front
}

func newBlocks(b cmg.Blocks) *blocks {
	if b.Len() == 0 {
		return nil
	}
	n := &blocks{devices: make(map[cmg.DeviceID]struct{}, len(b.Devices)), tokens: setOf(b.Tokens), tenants: map[string]struct{}{},
		thumbprints: map[string]struct{}{}, serials: map[string]struct{}{}}
	for _, d := range b.Devices {
		n.devices[d] = struct{}{}
	}
	for _, t := range b.Tenants {
		n.tenants[strings.ToLower(t)] = struct{}{}
	}
	for _, c := range b.Certificates {
		if len(c) == cmg.ThumbprintLength {
			n.thumbprints[c] = struct{}{}
			continue
		}
		n.serials[serialBytes(c)] = struct{}{}
	}
	return n
}

func setOf(names []string) map[string]struct{} {
	m := make(map[string]struct{}, len(names))
	for _, s := range names {
		m[s] = struct{}{}
	}
	return m
}

// serialBytes gives the bytes of a serial number in hex, in its usual form.
func serialBytes(digits string) string {
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	b := make([]byte, 0, len(digits)/2)
	for i := 0; i < len(digits); i += 2 {
		b = append(b, nibble(digits[i])<<4|nibble(digits[i+1]))
	}
	return strings.TrimLeft(string(b), "\x00")
}

func nibble(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}

func refuseBlocked(what, why string) *cmg.Refusal {
	return cmg.Refuse(http.StatusForbidden, "CMGService_Blocked"+what, why, nil)
}

// refuse says no to a caller who is shut out; shown is what the client showed
// in its handshake, its own certificate first.
func (b *blocks) refuse(c *cmg.Caller, shown []*x509.Certificate) error {
	if b == nil {
		return nil
	}
	if _, no := b.devices[c.Device]; no && c.Device != "" {
		return refuseBlocked("_Device", "an administrator has blocked this device").With("device", string(c.Device))
	}
	if c.TokenID != "" {
		if _, no := b.tokens[c.TokenID]; no {
			return refuseBlocked("_Token", "an administrator has blocked this token").With("token id", c.TokenID)
		}
	}
	if c.Tenant != "" {
		if _, no := b.tenants[strings.ToLower(c.Tenant)]; no {
			return refuseBlocked("_Tenant", "an administrator has blocked this tenant").With("tenant", c.Tenant)
		}
	}
	if c.Proof == cmg.ProofCertificate && len(shown) > 0 && b.certificate(shown[0], c.Thumbprint) {
		return refuseBlocked("_Certificate", "an administrator has blocked this certificate").With("serial", shown[0].SerialNumber.Text(16))
	}
	return nil
}

// certificate says whether c is shut out, by itself or by its serial number.
func (b *blocks) certificate(c *x509.Certificate, thumbprint string) bool {
	if len(b.thumbprints) > 0 {
		if _, no := b.thumbprints[thumbprint]; no {
			return true
		}
	}
	if len(b.serials) == 0 || c.SerialNumber == nil || c.SerialNumber.Sign() < 0 {
		return false
	}
	var buf [64]byte
	n := (c.SerialNumber.BitLen() + 7) / 8
	if n > len(buf) {
		return false
	}
	_, no := b.serials[string(c.SerialNumber.FillBytes(buf[:n]))]
	return no
}

// Blocked says whether a caller who was proven before is shut out by now;
// shown is what the client showed in its handshake.
func (t *Trust) Blocked(c *cmg.Caller, shown []*x509.Certificate) bool {
	return t.blocks.refuse(c, shown) != nil
}
