package ccm

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"time"

	"github.com/opencmg/cmg"
)

var (
	oidKeyUsage   = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidEncryption = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 101, 2}
	oidSigning    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 101}
)

// NewClientCertificate makes a key and the self-signed certificate that a
// client registers with (PROTOCOL 4.3), valid for a year.
func NewClientCertificate(now time.Time) (der []byte, key *rsa.PrivateKey, err error) {
	key, err = rsa.GenerateKey(rand.Reader, minKeyBits)
	if err != nil {
		return nil, nil, fmt.Errorf("make client key: %w", err)
	}
	der, err = SelfSign(key, now)
	return der, key, err
}

// SelfSign makes the certificate of NewClientCertificate for a key that is
// there already, for instance because its certificate runs out.
func SelfSign(key *rsa.PrivateKey, now time.Time) (der []byte, err error) {
	serial := make([]byte, 16)
	rand.Read(serial)
	serial[0] &= 0x7f
	t := &x509.Certificate{
		SerialNumber:       new(big.Int).SetBytes(serial),
		Subject:            pkix.Name{CommonName: "ConfigMgr Client"},
		NotBefore:          now.Add(-time.Hour), // clocks of devices and sites differ
		NotAfter:           now.AddDate(1, 0, 0),
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEncryption, oidSigning},
		SignatureAlgorithm: x509.SHA256WithRSA,
		// digitalSignature and dataEncipherment, written out because x509 would
		// mark the extension critical, which the field's certificates do not.
		ExtraExtensions: []pkix.Extension{{Id: oidKeyUsage, Value: []byte{0x03, 0x02, 0x04, 0x90}}},
	}
	der, err = x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign client certificate: %w", err)
	}
	return der, nil
}

// SigningKey gives the public key of a registered certificate: RSA of 2048 to
// 8192 bits. The certificate's times and issuer are not looked at.
func SigningKey(der []byte) (*rsa.PublicKey, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read signing certificate: %v: %w", err, cmg.ErrInvalid)
	}
	pub, ok := c.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("read signing certificate: its key is %s, not RSA: %w", c.PublicKeyAlgorithm, cmg.ErrInvalid)
	}
	if n := pub.N.BitLen(); n < minKeyBits || n > maxKeyBits {
		return nil, fmt.Errorf("read signing certificate: a key of %d bits: %w", n, cmg.ErrInvalid)
	}
	return pub, nil
}
