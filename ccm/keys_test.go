package ccm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

// device is the key and certificate of the golden files, made for them alone.
func device(t testing.TB) (*rsa.PrivateKey, []byte) {
	t.Helper()
	if *update {
		if _, err := os.Stat("testdata/device.pem"); err != nil {
			writeDevice(t)
		}
	}
	b, err := os.ReadFile("testdata/device.pem")
	if err != nil {
		t.Fatal(err)
	}
	keyBlock, rest := pem.Decode(b)
	certBlock, _ := pem.Decode(rest)
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PrivateKey), certBlock.Bytes
}

func writeDevice(t testing.TB) {
	der, key, err := NewClientCertificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p8})
	b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	if err := os.WriteFile("testdata/device.pem", b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestSignature(t *testing.T) {
	key, _ := device(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := Sign(key, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	if len(sig) != 512 || sig != strings.ToUpper(sig) {
		t.Errorf("signature %.20s… is not 512 hex digits in upper case", sig)
	}
	raw, _ := hex.DecodeString(sig)
	slices.Reverse(raw)
	unreversed := hex.EncodeToString(raw)
	for _, c := range []struct {
		name, text, sig string
		key             *rsa.PublicKey
		want            error
	}{
		{"as signed", "text", sig, &key.PublicKey, nil},
		{"lower case", "text", strings.ToLower(sig), &key.PublicKey, nil},
		{"another text", "Text", sig, &key.PublicKey, cmg.ErrUnauthenticated},
		{"another key", "text", sig, &other.PublicKey, cmg.ErrUnauthenticated},
		{"not reversed", "text", unreversed, &key.PublicKey, cmg.ErrUnauthenticated},
		{"empty", "text", "", &key.PublicKey, cmg.ErrUnauthenticated},
		{"not hex", "text", "xyz", &key.PublicKey, cmg.ErrInvalid},
		{"long", "text", strings.Repeat("00", 4096), &key.PublicKey, cmg.ErrInvalid},
	} {
		if err := Verify(c.key, []byte(c.text), c.sig); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestPublicKeyBlob(t *testing.T) {
	key, _ := device(t)
	b, err := hex.DecodeString(PublicKeyBlob(&key.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	want := "0602000000a400005253413100080000" + "01000100"
	if got := hex.EncodeToString(b[:20]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	slices.Reverse(b[20:])
	if !bytes.Equal(b[20:], key.N.Bytes()) {
		t.Error("the modulus is not there little-endian")
	}
}

func TestNewClientCertificate(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	der, key, err := NewClientCertificate(now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		t.Errorf("not signed by itself: %v", err)
	}
	if c.Subject.CommonName != "ConfigMgr Client" || c.SignatureAlgorithm != x509.SHA256WithRSA || key.N.BitLen() != 2048 {
		t.Errorf("got %s, %s, %d bits", c.Subject, c.SignatureAlgorithm, key.N.BitLen())
	}
	if c.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageDataEncipherment {
		t.Errorf("key usage %b", c.KeyUsage)
	}
	for _, e := range c.Extensions {
		if e.Critical {
			t.Errorf("extension %s is critical", e.Id)
		}
	}
	if len(c.SubjectKeyId) != 0 {
		t.Error("there is a subject key identifier")
	}
	if len(c.UnknownExtKeyUsage) != 2 || !c.UnknownExtKeyUsage[0].Equal(oidEncryption) || !c.UnknownExtKeyUsage[1].Equal(oidSigning) {
		t.Errorf("extended key usage %v", c.UnknownExtKeyUsage)
	}
	if !c.NotAfter.Equal(now.AddDate(1, 0, 0)) {
		t.Errorf("ends %s", c.NotAfter)
	}
	pub, err := SigningKey(der)
	if err != nil || !pub.Equal(&key.PublicKey) {
		t.Errorf("SigningKey: %v", err)
	}
}

func TestSigningKeyRefuses(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := SelfSign(small, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	curve, err := x509.CreateCertificate(rand.Reader, template, template, ec.Public(), ec)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{"1024 bits": weak, "ECDSA": curve, "nothing": nil, "garbage": []byte("garbage")} {
		if _, err := SigningKey(der); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
