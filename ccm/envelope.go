package ccm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/opencmg/cmg"
)

// EnvelopeType is the media type of an envelope (RFC 8551, 3.2). Who asks for
// it gets the strong form only.
const EnvelopeType = "application/pkcs7-mime"

var (
	oidData          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidEnvelopedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 3}
	oidRSA           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidOAEP          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
	oidMGF1          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	oidSHA256        = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidAES256CBC     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
	oid3DESCBC       = asn1.ObjectIdentifier{1, 2, 840, 113549, 3, 7}
)

// The parts of CMS that an envelope for one device needs (RFC 5652, 3 and 6).
type (
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content envelopedData `asn1:"explicit,tag:0"`
	}
	envelopedData struct {
		Version    int
		Recipients []keyTransRecipient `asn1:"set"`
		Content    encryptedContent
	}
	keyTransRecipient struct {
		Version   int
		Who       issuerAndSerial
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}
	issuerAndSerial struct {
		Issuer asn1.RawValue
		Serial *big.Int
	}
	encryptedContent struct {
		Type      asn1.ObjectIdentifier
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte `asn1:"tag:0"`
	}
	oaepParameters struct { // RFC 4055, 4.1
		Hash    pkix.AlgorithmIdentifier `asn1:"explicit,tag:0"`
		MaskGen pkix.AlgorithmIdentifier `asn1:"explicit,tag:1"`
	}
)

// Seal encrypts a policy's body for the holder of a certificate's key: CMS
// EnvelopedData in DER, AES-256-CBC, the key by RSAES-OAEP with SHA-256. A NUL
// character goes behind the body, because readers of the field cut one off.
// What an envelope holds is not authenticated by it: compare the digest.
//
// legacy makes it Triple DES and PKCS #1 v1.5 (PROTOCOL 6.3), for readers that
// know nothing else.
func Seal(certificate, body []byte, legacy bool) ([]byte, error) {
	pub, err := SigningKey(certificate)
	if err != nil {
		return nil, fmt.Errorf("seal policy: %w", err)
	}
	c, err := x509.ParseCertificate(certificate)
	if err != nil {
		return nil, fmt.Errorf("seal policy: %w (%w)", err, cmg.ErrInvalid)
	}
	key := make([]byte, 32)
	if legacy {
		key = key[:24]
	}
	rand.Read(key) // never fails
	content, err := encrypt(key, append(body[:len(body):len(body)], endOfText...), legacy)
	if err != nil {
		return nil, fmt.Errorf("seal policy: %w", err)
	}
	r := keyTransRecipient{Who: issuerAndSerial{Issuer: asn1.RawValue{FullBytes: c.RawIssuer}, Serial: c.SerialNumber}}
	if r.Algorithm, r.Key, err = wrapKey(pub, key, legacy); err != nil {
		return nil, fmt.Errorf("seal policy: %w", err)
	}
	der, err := asn1.Marshal(contentInfo{oidEnvelopedData, envelopedData{Recipients: []keyTransRecipient{r}, Content: content}})
	if err != nil {
		return nil, fmt.Errorf("seal policy: %w", err)
	}
	return der, nil
}

func encrypt(key, plain []byte, legacy bool) (c encryptedContent, err error) {
	var block cipher.Block
	oid := oidAES256CBC
	if legacy {
		oid = oid3DESCBC
		block, err = des.NewTripleDESCipher(key)
	} else {
		block, err = aes.NewCipher(key)
	}
	if err != nil {
		return c, err
	}
	size := block.BlockSize()
	iv := make([]byte, size)
	rand.Read(iv)
	pad := size - len(plain)%size
	data := append(plain[:len(plain):len(plain)], bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)
	param, err := asn1.Marshal(iv)
	return encryptedContent{oidData, pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: param}}, data}, err
}

func wrapKey(pub *rsa.PublicKey, key []byte, legacy bool) (a pkix.AlgorithmIdentifier, wrapped []byte, err error) {
	if legacy {
		//lint:ignore SA1019 readers of the field know nothing else; behind a switch that is off
		wrapped, err = rsa.EncryptPKCS1v15(rand.Reader, pub, key)
		return pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: asn1.NullRawValue}, wrapped, err
	}
	if wrapped, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, key, nil); err != nil {
		return a, nil, err
	}
	a, err = oaep()
	return a, wrapped, err
}

// oaep is how RSAES-OAEP with SHA-256 for both of its hashes is named.
func oaep() (a pkix.AlgorithmIdentifier, err error) {
	hash := pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: asn1.NullRawValue}
	der, err := asn1.Marshal(hash)
	if err != nil {
		return a, err
	}
	mask := pkix.AlgorithmIdentifier{Algorithm: oidMGF1, Parameters: asn1.RawValue{FullBytes: der}}
	if der, err = asn1.Marshal(oaepParameters{hash, mask}); err != nil {
		return a, err
	}
	return pkix.AlgorithmIdentifier{Algorithm: oidOAEP, Parameters: asn1.RawValue{FullBytes: der}}, nil
}

// Open decrypts what Seal made for the key, without the NUL character at its
// end. It opens no other form, the older ones neither: what can be asked for
// nothing weaker cannot be led to it. The caller compares the digest of what
// it gets, and tells nobody else what was wrong with an envelope.
func Open(envelope []byte, key *rsa.PrivateKey) ([]byte, error) {
	body, err := open(envelope, key)
	if err != nil {
		return nil, fmt.Errorf("open envelope: %w", err)
	}
	return body, nil
}

func open(envelope []byte, key *rsa.PrivateKey) ([]byte, error) {
	var info contentInfo
	if rest, err := asn1.Unmarshal(envelope, &info); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("it is not EnvelopedData in DER: %w", cmg.ErrInvalid)
	}
	want, err := oaep()
	if err != nil {
		return nil, err
	}
	d := info.Content
	switch {
	case !info.Type.Equal(oidEnvelopedData) || d.Version != 0 || len(d.Recipients) != 1 || !d.Content.Type.Equal(oidData):
		return nil, fmt.Errorf("it is not EnvelopedData for one recipient: %w", cmg.ErrInvalid)
	case !d.Recipients[0].Algorithm.Algorithm.Equal(oidOAEP) || !bytes.Equal(d.Recipients[0].Algorithm.Parameters.FullBytes, want.Parameters.FullBytes):
		return nil, fmt.Errorf("its key is not wrapped by RSAES-OAEP with SHA-256: %w", cmg.ErrInvalid)
	case !d.Content.Algorithm.Algorithm.Equal(oidAES256CBC):
		return nil, fmt.Errorf("it is not encrypted with AES-256-CBC: %w", cmg.ErrInvalid)
	}
	var iv []byte
	rest, err := asn1.Unmarshal(d.Content.Algorithm.Parameters.FullBytes, &iv)
	data := d.Content.Data
	if err != nil || len(rest) > 0 || len(iv) != aes.BlockSize || len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("its vector or its length is not that of AES-CBC: %w", cmg.ErrInvalid)
	}
	secret, err := rsa.DecryptOAEP(sha256.New(), nil, key, d.Recipients[0].Key, nil)
	if err != nil || len(secret) != 32 {
		return nil, fmt.Errorf("it is not for this key: %w", cmg.ErrInvalid)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, data)
	pad := int(plain[len(plain)-1])
	if pad == 0 || pad > aes.BlockSize || !bytes.Equal(plain[len(plain)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, fmt.Errorf("what it holds was changed: %w", cmg.ErrInvalid)
	}
	return bytes.TrimSuffix(plain[:len(plain)-pad], []byte(endOfText)), nil
}
