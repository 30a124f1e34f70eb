package cmg

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParseDeviceID(t *testing.T) {
	const want = DeviceID("GUID:0B9A1F7D-5C0E-4A3A-9C1D-2F5E7A8B9C0D")
	for _, s := range []string{"GUID:0B9A1F7D-5C0E-4A3A-9C1D-2F5E7A8B9C0D", "guid:0b9a1f7d-5c0e-4a3a-9c1d-2f5e7a8b9c0d", "0B9A1F7D-5c0e-4A3A-9C1D-2F5E7A8B9C0D"} {
		if got, err := ParseDeviceID(s); got != want || err != nil {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "GUID:", "GUID:0B9A1F7D-5C0E-4A3A-9C1D-2F5E7A8B9C0", "GUID:0B9A1F7D-5C0E-4A3A-9C1D-2F5E7A8B9C0D'", "GUID:0B9A1F7D-5C0E-4A3A-9C1D-2F5E7A8B9C0G",
		"{0B9A1F7D-5C0E-4A3A-9C1D-2F5E7A8B9C0D}", " GUID:0B9A1F7D-5C0E-4A3A-9C1D-2F5E7A8B9C0D", "GUID:0B9A1F7D+5C0E-4A3A-9C1D-2F5E7A8B9C0D", "'; DROP TABLE devices; --            "} {
		if got, err := ParseDeviceID(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q was taken as %q", s, got)
		}
	}
	if id := NewDeviceID(); id.GUID() != strings.ToUpper(id.GUID()) {
		t.Errorf("%s is not upper case", id)
	} else if back, err := ParseDeviceID(string(id)); back != id || err != nil {
		t.Errorf("%s came back as %s, %v", id, back, err)
	}
}

func TestParseRoleID(t *testing.T) {
	for s, want := range map[string]RoleID{"0": 0, "8": 8, "72057594037927937": 72057594037927937, "18446744073709551615": 1<<64 - 1} {
		if got, err := ParseRoleID(s); got != want || err != nil || got.String() != s {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1", "+1", "01", "1 ", "0x1", "18446744073709551616", "a"} {
		if got, err := ParseRoleID(s); err == nil {
			t.Errorf("%q was taken as %v", s, got)
		}
	}
}

func TestCheckFilePath(t *testing.T) {
	for _, p := range []string{"a", "a/b.txt", "folder 1/ä.bin", ".hidden", "a..b/c"} {
		if err := CheckFilePath(p); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []string{"", ".", "..", "../a", "a/../b", "a/..", "/a", "a//b", "a/", `a\b`, "c:a", "a\x00", "a\n", "a.", "a /b", "con?", "a\xff", "./a", strings.Repeat("a", 1025)} {
		if err := CheckFilePath(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q was taken", p)
		}
	}
}

func TestCheckFolder(t *testing.T) {
	for _, p := range []string{"tools", "a/b c/d", "console", "com10", "nullable/x", ".hidden", "x.cmg", strings.Repeat("ä", 200)} {
		if err := CheckFolder(p); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []string{"", ".", "..", "../a", "/a", `a\b`, "a/", "c:a", "nul", "a/CON", "Com1.txt/b", "aux .x", "lpt¹", ".cmg", "a/.cmg-partial", ".CMGx", strings.Repeat("ä", 201)} {
		if err := CheckFolder(p); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q was taken", p)
		}
	}
}

func TestRouteCheck(t *testing.T) {
	good := Route{Prefix: "/a/b", Methods: []string{"GET"}, Proofs: []Proof{ProofToken}}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for _, r := range ManagementPointRoutes(7) {
		if err := r.Check(); err != nil {
			t.Error(err)
		}
	}
	for name, change := range map[string]func(*Route){
		"everything":    func(r *Route) { r.Prefix = "/" },
		"no slash":      func(r *Route) { r.Prefix = "a" },
		"closing slash": func(r *Route) { r.Prefix = "/a/" },
		"dots":          func(r *Route) { r.Prefix = "/a/.." },
		"query":         func(r *Route) { r.Prefix = "/a?b" },
		"encoded":       func(r *Route) { r.Prefix = "/a%20" },
		"manifest":      func(r *Route) { r.Prefix = strings.ToUpper(ManifestPath) },
		"channel":       func(r *Route) { r.Prefix = "/CMG/v1/Channel/gw-1" },
		"no method":     func(r *Route) { r.Methods = nil },
		"no proof":      func(r *Route) { r.Proofs = nil },
		"empty proof":   func(r *Route) { r.Proofs = []Proof{ProofNone} },
		"negative":      func(r *Route) { r.MaxBody = -1 },
	} {
		r := good
		if change(&r); !errors.Is(r.Check(), ErrInvalid) {
			t.Errorf("%s was taken: %+v", name, r)
		}
	}
}

func TestErrors(t *testing.T) {
	inner := errors.New("inner")
	err := fmt.Errorf("outer: %w", Refuse(403, "CMGService_X", "why", inner))
	if StatusOf(err) != 403 || !errors.Is(err, ErrForbidden) || !errors.Is(err, inner) || errors.Is(err, ErrInvalid) {
		t.Errorf("%v has status %d", err, StatusOf(err))
	}
	for _, k := range kinds {
		if StatusOf(fmt.Errorf("x: %w", k.err)) != k.status || KindOf(k.status) != k.err {
			t.Errorf("%v does not keep its kind", k.err)
		}
	}
	if StatusOf(inner) != 500 || KindOf(200) != nil {
		t.Error("an error without a kind has one")
	}
}
