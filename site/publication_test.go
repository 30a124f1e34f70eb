package site

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/opencmg/cmg"
)

func certificate(t *testing.T, name string, ca bool) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
		IsCA: ca, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

func pemOf(cs ...*x509.Certificate) (b []byte) {
	for _, c := range cs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return b
}

var appRoute = cmg.Route{Prefix: "/App", Methods: []string{"GET"}, Proofs: []cmg.Proof{cmg.ProofToken}, Name: "app"}

// Whatever is published begins a new version when it changes, and only then.
func TestPublicationVersion(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	root, leaf := certificate(t, "root", true), certificate(t, "leaf", false)
	moved := appRoute
	moved.MaxBody = 9
	for _, step := range []struct {
		name  string
		do    func() error
		bump  uint64
		fails error
	}{
		{"add route", func() error { return s.AddRoute(ctx, appRoute, "https://app.example/base") }, 1, nil},
		{"same route", func() error { return s.AddRoute(ctx, appRoute, "https://app.example/base") }, 0, nil},
		{"new target", func() error { return s.AddRoute(ctx, appRoute, "https://other.example") }, 1, nil},
		{"new route", func() error { return s.AddRoute(ctx, moved, "https://other.example") }, 1, nil},
		{"bad target", func() error { return s.AddRoute(ctx, appRoute, "ftp://other.example") }, 0, cmg.ErrInvalid},
		{"one bad of two", func() error {
			return s.AddRoutes(ctx, PublishedRoute{appRoute, "https://x.example"}, PublishedRoute{cmg.Route{Prefix: "/"}, "https://x.example"})
		}, 0, cmg.ErrInvalid},
		{"management point", func() error { _, err := s.AddManagementPoint(ctx, "mp1", "https://mp.example:8443/"); return err }, 1, nil},
		{"same management point", func() error { _, err := s.AddManagementPoint(ctx, "mp1", "https://mp.example:8443"); return err }, 0, nil},
		{"bad management point", func() error { _, err := s.AddManagementPoint(ctx, "mp2", "mp.example"); return err }, 0, cmg.ErrInvalid},
		{"anchors", func() error { return s.AddAnchor(ctx, pemOf(root, certificate(t, "other", true))) }, 1, nil},
		{"same anchor", func() error { return s.AddAnchor(ctx, pemOf(root)) }, 0, nil},
		{"leaf", func() error { return s.AddAnchor(ctx, pemOf(leaf)) }, 0, cmg.ErrInvalid},
		{"no PEM", func() error { return s.AddAnchor(ctx, []byte("hello")) }, 0, cmg.ErrInvalid},
		{"key file", func() error {
			return s.AddAnchor(ctx, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}))
		}, 0, cmg.ErrInvalid},
		{"remove anchor", func() error { return s.RemoveAnchor(ctx, thumbprint(root.Raw)) }, 1, nil},
		{"remove it again", func() error { return s.RemoveAnchor(ctx, thumbprint(root.Raw)) }, 0, cmg.ErrNotFound},
		{"key", func() error { return s.AddTokenKeys(ctx, []json.RawMessage{[]byte(`{"kid":"k1","kty":"EC"}`)}) }, 1, nil},
		{"same key", func() error { return s.AddTokenKeys(ctx, []json.RawMessage{[]byte(`{"kid":"k1","kty":"EC"}`)}) }, 0, nil},
		{"private key", func() error {
			return s.AddTokenKeys(ctx, []json.RawMessage{[]byte(`{"kid":"k2"}`), []byte(`{"kid":"k3","d":"AAAA"}`)})
		}, 0, cmg.ErrInvalid},
		{"remove key", func() error { return s.RemoveTokenKey(ctx, "k1") }, 1, nil},
		{"remove route in other case", func() error { return s.RemoveRoute(ctx, "/aPP", Overwrite{}) }, 1, nil},
		{"gateways are not published", func() error { return s.AddGateway(ctx, cmg.GatewayService{Host: "gw.example", Port: 443}) }, 0, nil},
	} {
		before, err := s.PublicationState(ctx)
		if err != nil {
			t.Fatal(err)
		}
		*now = now.Add(time.Second)
		if err := step.do(); !errors.Is(err, step.fails) {
			t.Fatalf("%s: %v, want %v", step.name, err, step.fails)
		}
		after, err := s.PublicationState(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if got := after.Version - before.Version; got != step.bump {
			t.Fatalf("%s: the version grew by %d, want %d", step.name, got, step.bump)
		}
		if moved := after.Changed.Equal(*now); moved != (step.bump > 0) {
			t.Fatalf("%s: changed at %s, now %s", step.name, after.Changed, now)
		}
		if err := after.Publication().Check(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestManagementPointIsMapped(t *testing.T) {
	s, _ := open(t)
	id, err := s.AddManagementPoint(t.Context(), "mp1", "https://mp.example:8443")
	if err != nil {
		t.Fatal(err)
	}
	if id != 1<<56+1 {
		t.Errorf("role id %s, want 2^56+1", id)
	}
	p, err := s.PublicationState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := cmg.Mapping{Prefix: "/CCM_Proxy_MutualAuth/72057594037927937/SMS_MP", Target: "https://mp.example:8443/SMS_MP"}
	found := false
	for _, m := range p.Mappings {
		found = found || m == want
	}
	if len(p.Routes) != len(cmg.ManagementPointRoutes(id)) || !found || p.Site != "LAB" {
		t.Fatalf("state %+v has no %+v", p, want)
	}
	other, err := s.RoleID(t.Context(), cmg.RoleManagementPoint, "mp2")
	if again, err := s.RoleID(t.Context(), cmg.RoleManagementPoint, "mp2"); err != nil || again != other || other != id+1 {
		t.Fatalf("RoleID = %s, then %s, %v", other, again, err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestGateways(t *testing.T) {
	s, _ := open(t)
	g := cmg.GatewayService{Host: "GW.example", Port: 443}
	for range 2 {
		if err := s.AddGateway(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []cmg.GatewayService{{Host: "", Port: 1}, {Host: "a/b", Port: 1}, {Host: "a", Port: 0}, {Host: "a", Port: 65536}} {
		if err := s.AddGateway(t.Context(), bad); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("AddGateway(%+v): %v", bad, err)
		}
	}
	if gs, err := s.Gateways(t.Context()); err != nil || len(gs) != 1 || gs[0].Host != "gw.example" {
		t.Fatalf("Gateways = %+v, %v", gs, err)
	}
	if err := s.RemoveGateway(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveGateway(t.Context(), g); !errors.Is(err, cmg.ErrNotFound) {
		t.Fatalf("removed twice: %v", err)
	}
}

func TestCertificates(t *testing.T) {
	s, _ := open(t)
	c := certificate(t, "gateway-1", false)
	for range 2 {
		if err := s.RecordCertificate(t.Context(), cmg.RoleGateway, "gateway-1", c); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.CertificateByThumbprint(t.Context(), thumbprint(c.Raw))
	if err != nil || !got.Certificate.Equal(c) || got.Role != cmg.RoleGateway || got.Name != "gateway-1" {
		t.Fatalf("CertificateByThumbprint = %+v, %v", got, err)
	}
	if _, err := s.CertificateByThumbprint(t.Context(), "00"); !errors.Is(err, cmg.ErrNotFound) {
		t.Fatalf("unknown: %v", err)
	}
	if all, err := s.Certificates(t.Context()); err != nil || len(all) != 1 {
		t.Fatalf("%d certificates, %v", len(all), err)
	}
}

// What others rely on is touched only by those who say so.
func TestPublishRoute(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	id, err := s.AddManagementPoint(ctx, "mp1", "https://mp.example")
	if err != nil || id != FirstRoleID {
		t.Fatal(id, err)
	}
	app := func(prefix string) cmg.Route {
		r := appRoute
		r.Prefix = prefix
		return r
	}
	list := cmg.PrefixMutualAuth + id.String() + "/SMS_MP"
	for _, step := range []struct {
		prefix string
		may    Overwrite
		want   error
	}{
		{"/app", Overwrite{}, nil},
		{"/App", Overwrite{}, cmg.ErrConflict},
		{"/App", Overwrite{Replace: true}, nil},
		{list, Overwrite{}, cmg.ErrConflict},
		{list, Overwrite{Replace: true}, cmg.ErrConflict},
		{strings.ToLower(list), Overwrite{Replace: true}, cmg.ErrConflict},
		{list + "/deeper", Overwrite{}, cmg.ErrConflict},
		{list, Overwrite{Replace: true, ManagementPoint: true}, nil},
		{cmg.PrefixServerAuth + "8/app", Overwrite{}, nil},
		{"/", Overwrite{}, cmg.ErrInvalid},
	} {
		if err := s.PublishRoute(ctx, app(step.prefix), "https://app.example", step.may); !errors.Is(err, step.want) {
			t.Errorf("publish %s %+v: %v, want %v", step.prefix, step.may, err, step.want)
		}
	}
	for _, step := range []struct {
		prefix string
		may    Overwrite
		want   error
	}{
		{list, Overwrite{}, cmg.ErrConflict}, {list, Overwrite{ManagementPoint: true}, nil},
		{"/APP", Overwrite{}, nil}, {"/app", Overwrite{}, cmg.ErrNotFound},
	} {
		if err := s.RemoveRoute(ctx, step.prefix, step.may); !errors.Is(err, step.want) {
			t.Errorf("remove %s %+v: %v, want %v", step.prefix, step.may, err, step.want)
		}
	}
}

// A management point that was published before the path for clients with
// tokens gets it by the migration, as a new one does.
func TestTokenPoliciesMigration(t *testing.T) {
	s, _ := open(t)
	if _, err := s.AddManagementPoint(t.Context(), "mp1", "https://mp.example:8443"); err != nil {
		t.Fatal(err)
	}
	b, err := migrations.ReadFile("migrations/00040_token_policies.sql")
	if err != nil {
		t.Fatal(err)
	}
	want, err := s.PublicationState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	up, down, ok := strings.Cut(string(b), "-- +goose Down")
	if !ok {
		t.Fatal("the migration has no way back")
	}
	for _, q := range []string{down, up} {
		if _, err := s.write.Exec(q); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.PublicationState(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Routes, got.Routes); diff != "" {
		t.Errorf("routes (-new +migrated):\n%s", diff)
	}
	if diff := cmp.Diff(want.Mappings, got.Mappings); diff != "" {
		t.Errorf("mappings (-new +migrated):\n%s", diff)
	}
	if got.Version != want.Version+1 {
		t.Errorf("version %d after %d: gateways would not hear of it", got.Version, want.Version)
	}
}
