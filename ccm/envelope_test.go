package ccm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func TestEnvelope(t *testing.T) {
	key, cert := device(t)
	for _, n := range []int{1, 7, 8, 9, 500} {
		body := EncodeUTF16(strings.Repeat("x", n), true)
		sealed, err := Seal(cert, body, false)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(sealed, body[:2*min(n, 8)]) && n > 4 {
			t.Error("the body stands in the envelope")
		}
		if got, err := Open(sealed, key); err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d characters: %d bytes, %v", n, len(got), err)
		}
	}
	again1, err1 := Seal(cert, []byte("ab"), false)
	again2, err2 := Seal(cert, []byte("ab"), false)
	if err1 != nil || err2 != nil || bytes.Equal(again1, again2) {
		t.Error("two envelopes of one body are the same")
	}
}

func TestOpenRefuses(t *testing.T) {
	key, cert := device(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	seal := func(legacy bool, change func(*contentInfo)) []byte {
		t.Helper()
		b, err := Seal(cert, EncodeUTF16("<Policy/>", true), legacy)
		if err != nil {
			t.Fatal(err)
		}
		if change == nil {
			return b
		}
		var info contentInfo
		if _, err := asn1.Unmarshal(b, &info); err != nil {
			t.Fatal(err)
		}
		change(&info)
		if b, err = asn1.Marshal(info); err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, test := range map[string]struct {
		envelope []byte
		key      *rsa.PrivateKey
	}{
		"another key":  {seal(false, nil), other},
		"older form":   {seal(true, nil), key},
		"bytes behind": {append(seal(false, nil), 0), key},
		"cut":          {seal(false, nil)[:200], key},
		"a page":       {[]byte("<HTML>secret</HTML>"), key},
		"nothing":      {nil, key},
		"SHA-1 for OAEP": {seal(false, func(i *contentInfo) {
			i.Content.Recipients[0].Algorithm.Parameters = asn1.RawValue{FullBytes: []byte{0x30, 0}}
		}), key},
		"two recipients": {seal(false, func(i *contentInfo) { i.Content.Recipients = append(i.Content.Recipients, i.Content.Recipients[0]) }), key},
		"no content":     {seal(false, func(i *contentInfo) { i.Content.Content.Data = nil }), key},
		"odd content":    {seal(false, func(i *contentInfo) { i.Content.Content.Data = i.Content.Content.Data[1:] }), key},
		"short vector": {seal(false, func(i *contentInfo) {
			i.Content.Content.Algorithm.Parameters = asn1.RawValue{FullBytes: []byte{4, 1, 0}}
		}), key},
		"bad padding": {seal(false, func(i *contentInfo) {
			d := i.Content.Content.Data
			d[len(d)-17] ^= 0x80 // turns the last byte of the padding
		}), key},
	} {
		if b, err := Open(test.envelope, test.key); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	if _, err := Seal([]byte("none"), nil, false); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("no certificate: %v", err)
	}
}

// OpenSSL, which shares nothing with this package, opens both forms.
func TestEnvelopeOpensElsewhere(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("no openssl here: what others read was NOT checked")
	} else if err != nil {
		t.Fatal(err)
	}
	key, cert := device(t)
	dir := t.TempDir()
	p8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, b []byte) string {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	keyFile := file("key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p8}))
	certFile := file("cert", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	body := EncodeUTF16("<Policy>geheim ä</Policy>", true)
	for _, legacy := range []bool{false, true} {
		sealed, err := Seal(cert, body, legacy)
		if err != nil {
			t.Fatal(err)
		}
		in, out := file("in", sealed), filepath.Join(dir, "out")
		said, err := exec.CommandContext(t.Context(), openssl, "cms", "-decrypt", "-binary", "-inform", "DER", "-in", in, "-out", out, "-recip", certFile, "-inkey", keyFile).CombinedOutput()
		if err != nil {
			t.Errorf("legacy %v: %v: %s", legacy, err, said)
			continue
		}
		got, err := os.ReadFile(out)
		if err != nil || !bytes.Equal(got, append(body[:len(body):len(body)], 0, 0)) {
			t.Errorf("legacy %v: %q, %v", legacy, got, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	key, cert := device(f)
	for _, legacy := range []bool{false, true} {
		b, err := Seal(cert, EncodeUTF16("<Policy/>", true), legacy)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("<HTML>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, err := Open(b, key); err == nil && len(plain) > len(b) {
			t.Errorf("%d bytes of %d", len(plain), len(b))
		} else if err != nil && !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("error of another kind: %v", err)
		}
	})
}
