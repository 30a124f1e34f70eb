package cmg

import (
	"errors"
	"strings"
	"testing"
)

func TestParseCertificateName(t *testing.T) {
	thumb := strings.Repeat("0A", 32)
	for in, want := range map[string]string{
		"1F": "1f", "00:1f:0a": "1f0a", " 1 f": "1f", "0": "0", "00": "0", thumb: strings.ToLower(thumb),
		strings.Repeat("f", 40): strings.Repeat("f", 40),
		"":                      "", "x": "", "CN=a": "", strings.Repeat("f", 41): "", strings.Repeat("f", 65): "", "-1": "", "0x1f": "",
	} {
		got, err := ParseCertificateName(in)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
		if again, err := ParseCertificateName(got); want != "" && (err != nil || again != got) {
			t.Errorf("%q again: %q, %v", got, again, err)
		}
	}
}

func TestBlocksCheck(t *testing.T) {
	if err := (Blocks{Certificates: []string{"1f"}}).Check(); err != nil {
		t.Error(err)
	}
	if err := (Blocks{Certificates: []string{"1F"}}).Check(); !errors.Is(err, ErrInvalid) {
		t.Errorf("another spelling: %v", err)
	}
	if err := (Blocks{Tokens: make([]string, MaxBlocks), Tenants: []string{"x"}}).Check(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too many: %v", err)
	}
}
