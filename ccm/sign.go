package ccm

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/opencmg/cmg"
)

// HashAlgorithm is how messages name their signatures: RSA PKCS #1 v1.5 with
// SHA-256.
const HashAlgorithm = "1.2.840.113549.1.1.11"

const (
	minKeyBits = 2048
	maxKeyBits = 8192 // what an unknown sender can make us verify stays cheap
)

// Sign signs b and gives the signature as messages carry it: the octets in
// reverse order, hexadecimal, upper case (PROTOCOL 0).
func Sign(key *rsa.PrivateKey, b []byte) (string, error) {
	return signWith(key, b)
}

// signWith is Sign for a key that is held elsewhere, which has to be RSA.
func signWith(key crypto.Signer, b []byte) (string, error) {
	if key == nil {
		return "", fmt.Errorf("sign %d bytes: no key: %w", len(b), cmg.ErrInvalid)
	}
	if _, ok := key.Public().(*rsa.PublicKey); !ok {
		return "", fmt.Errorf("sign %d bytes: the key is %T, not RSA: %w", len(b), key.Public(), cmg.ErrInvalid)
	}
	h := sha256.Sum256(b)
	sig, err := key.Sign(rand.Reader, h[:], crypto.SHA256)
	if err != nil {
		return "", fmt.Errorf("sign %d bytes: %w", len(b), err)
	}
	slices.Reverse(sig)
	return strings.ToUpper(hex.EncodeToString(sig)), nil
}

// Verify checks what Sign made, in either case. It wraps
// cmg.ErrUnauthenticated where the signature does not hold.
func Verify(pub *rsa.PublicKey, b []byte, sig string) error {
	if len(sig) > 2*maxKeyBits/8 {
		return fmt.Errorf("verify signature: %d characters are too long: %w", len(sig), cmg.ErrInvalid)
	}
	raw, err := hex.DecodeString(sig)
	if err != nil {
		return fmt.Errorf("verify signature: not hexadecimal: %w", cmg.ErrInvalid)
	}
	slices.Reverse(raw)
	h := sha256.Sum256(b)
	if err := rsa.VerifyPKCS1v15(pub, crypto.SHA256, h[:], raw); err != nil {
		return fmt.Errorf("verify signature: it does not hold: %w", cmg.ErrUnauthenticated)
	}
	return nil
}

// SignText signs a short text as headers and hooks do: over its UTF-16LE
// bytes and a NUL character.
func SignText(key *rsa.PrivateKey, s string) (string, error) { return Sign(key, withEnd(s)) }

// VerifyText checks what SignText made.
func VerifyText(pub *rsa.PublicKey, s, sig string) error { return Verify(pub, withEnd(s), sig) }

// PublicKeyBlob gives pub in hex as CryptoAPI's PUBLICKEYBLOB, the form of
// the clientauth hook (PROTOCOL 0). Nothing may be concluded from it: a key is
// found by the device's id.
func PublicKeyBlob(pub *rsa.PublicKey) string {
	b := []byte{0x06, 0x02, 0, 0, 0x00, 0xA4, 0, 0, 'R', 'S', 'A', '1'}
	b = binary.LittleEndian.AppendUint32(b, uint32(pub.N.BitLen()))
	b = binary.LittleEndian.AppendUint32(b, uint32(pub.E))
	n := pub.N.FillBytes(make([]byte, pub.Size()))
	slices.Reverse(n)
	return strings.ToUpper(hex.EncodeToString(append(b, n...)))
}
