package site

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
)

func TestRevocationSettings(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	r, err := s.Revocation(ctx)
	if err != nil || r.Mode != "" || r.Grace != 86400 {
		t.Fatalf("at first: %+v, %v", r, err)
	}
	for name, err := range map[string]error{
		"mode":      s.SetRevocation(ctx, "loud", 0),
		"grace":     s.SetRevocation(ctx, "hard", -time.Second),
		"long":      s.SetRevocation(ctx, "hard", cmg.MaxGrace+time.Second),
		"address":   s.SetIssuerRevocation(ctx, cmg.IssuerRevocation{Issuer: "a", CRL: []string{"ldap:///x"}}),
		"password":  s.SetIssuerRevocation(ctx, cmg.IssuerRevocation{Issuer: "a", OCSP: []string{"http://u:p@x/"}}),
		"no issuer": s.SetIssuerRevocation(ctx, cmg.IssuerRevocation{Mode: "soft"}),
	} {
		if !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(s.SetRevocation(ctx, cmg.RevocationSoft, time.Hour),
		s.SetIssuerRevocation(ctx, cmg.IssuerRevocation{Issuer: "a", CRL: []string{"http://x/a.crl"}}),
		s.SetIssuerRevocation(ctx, cmg.IssuerRevocation{Issuer: "b", Mode: "off"}),
		s.SetIssuerRevocation(ctx, cmg.IssuerRevocation{Issuer: "b"})); err != nil {
		t.Fatal(err)
	}
	p, err := s.PublicationState(ctx)
	if err != nil || p.Revocation.Mode != cmg.RevocationSoft || p.Revocation.Grace != 3600 || len(p.Revocation.Issuers) != 1 || p.Revocation.Issuers[0].CRL[0] != "http://x/a.crl" {
		t.Errorf("got %+v, %v", p.Revocation, err)
	}
}

func TestRevocationLists(t *testing.T) {
	s, now := open(t)
	ctx := t.Context()
	ca := certificate(t, "ca", true)
	const url = "http://pki.example/a.crl"
	version := func() uint64 {
		v, err := s.PublicationVersion(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	source := func() RevocationSource {
		all, err := s.RevocationSources(ctx)
		if err != nil || len(all) != 1 || !all[0].Certificate.Equal(ca) {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0]
	}
	for range 2 {
		if err := s.FollowRevocation(ctx, "ca", url, ca); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.FollowRevocation(ctx, "ca", "file:///etc/passwd", ca); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("a file is followed: %v", err)
	}
	put := func(doc string, this time.Time, problem error) {
		t.Helper()
		r := RevocationResult{Info: cmg.RevocationListInfo{Issuer: "ca", URL: url, This: this, Next: this.Add(time.Hour), Revoked: len(doc), Digest: sha256.Sum256([]byte(doc))}, Problem: problem}
		if doc != "" {
			r.Document = []byte(doc)
		}
		if err := s.PutRevocation(ctx, []RevocationResult{r}); err != nil {
			t.Fatal(err)
		}
	}
	before := version()
	put("", time.Time{}, errors.New("away"))
	if got := source(); got.Failures != 1 || got.Problem != "away" || version() != before {
		t.Errorf("after a failure: %+v", got)
	}
	put("first", *now, nil)
	p, err := s.PublicationState(ctx)
	if err != nil || len(p.Revocation.Lists) != 1 || p.Revocation.Lists[0].Digest != sha256.Sum256([]byte("first")) || version() != before+1 {
		t.Fatalf("after a list: %+v, %v", p.Revocation, err)
	}
	if got := source(); got.Failures != 0 || got.Problem != "" {
		t.Errorf("after a list: %+v", got)
	}
	if doc, err := s.RevocationDocument(ctx, p.Revocation.Lists[0].Digest); err != nil || string(doc) != "first" {
		t.Errorf("%q, %v", doc, err)
	}
	put("", time.Time{}, nil) // unchanged
	if version() != before+1 {
		t.Error("an unchanged list is a new publication")
	}
	put("older", now.Add(-time.Minute), nil)
	if got := source(); got.Problem == "" || got.Digest != sha256.Sum256([]byte("first")) || version() != before+1 {
		t.Errorf("an older list was taken: %+v", got)
	}
	if err := s.RefreshRevocation(ctx); err != nil || !source().Tried.IsZero() {
		t.Errorf("refresh: %v", err)
	}
	if err := s.ForgetRevocation(ctx, "ca"); err != nil || version() != before+2 {
		t.Errorf("forget: %v", err)
	}
	if _, err := s.RevocationDocument(ctx, sha256.Sum256([]byte("first"))); !errors.Is(err, cmg.ErrNotFound) {
		t.Errorf("a document that is gone: %v", err)
	}
}

func TestTenants(t *testing.T) {
	s, _ := open(t)
	ctx := t.Context()
	const id = "7c1d6a0e-1f4b-4f0e-9b5a-0d2f3c4b5a69"
	tenant := Tenant{Tenant: cmg.Tenant{ID: id, Authority: cmg.EntraClouds["public"], Audiences: []string{"api://cmg"}, Client: "c", Resource: "r"}, Roots: "PEM"}
	for name, change := range map[string]func(*Tenant){
		"id in upper case": func(t *Tenant) { t.ID = strings.ToUpper(id) },
		"id":               func(t *Tenant) { t.ID = "common" },
		"http":             func(t *Tenant) { t.Authority = "http://login.example" },
		"path":             func(t *Tenant) { t.Authority += "/x" },
		"no audience":      func(t *Tenant) { t.Audiences = nil },
	} {
		bad := tenant
		if change(&bad); !errors.Is(s.AddTenant(ctx, bad, false), cmg.ErrInvalid) {
			t.Errorf("%s was taken", name)
		}
	}
	if err := s.AddTenant(ctx, tenant, false); err != nil {
		t.Fatal(err)
	}
	if err := s.AddTenant(ctx, tenant, false); !errors.Is(err, cmg.ErrConflict) {
		t.Errorf("twice: %v", err)
	}
	keys := []json.RawMessage{json.RawMessage(`{"kid":"k"}`)}
	put := func(problem error) uint64 {
		t.Helper()
		if err := s.PutTenantKeys(ctx, tenant.Tenant, keys, problem); err != nil {
			t.Fatal(err)
		}
		v, err := s.PublicationVersion(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	first := put(nil)
	if again := put(nil); again != first {
		t.Error("the same keys are a new publication")
	}
	if again := put(errors.New("away")); again != first {
		t.Error("an outage is a new publication")
	}
	got, err := s.Tenant(ctx, id)
	if err != nil || len(got.Keys) != 1 || got.Problem != "away" || got.Failures != 1 || got.Roots != "PEM" || !slices.Equal(got.Issuers, cmg.EntraIssuers(tenant.Authority, id)) {
		t.Errorf("got %+v, %v", got, err)
	}
	p, err := s.PublicationState(ctx)
	if err != nil || len(p.Tenants) != 1 || len(p.Tenants[0].Keys) != 1 || p.Publication().Check() != nil {
		t.Errorf("published %+v, %v", p.Tenants, err)
	}
	tenant.Name = "renamed"
	if err := s.AddTenant(ctx, tenant, true); err != nil {
		t.Fatal(err)
	}
	if got, _ = s.Tenant(ctx, id); got.Name != "renamed" || len(got.Keys) != 1 {
		t.Errorf("renamed: %+v", got)
	}
	tenant.Authority = cmg.EntraClouds["usgov"]
	if err := s.AddTenant(ctx, tenant, true); err != nil {
		t.Fatal(err)
	}
	if got, _ = s.Tenant(ctx, id); len(got.Keys) != 0 {
		t.Errorf("keys of another authority stayed: %+v", got)
	}
	if err := errors.Join(s.RefreshTenants(ctx), s.RemoveTenant(ctx, id)); err != nil {
		t.Error(err)
	}
	if _, err := s.Tenant(ctx, id); !errors.Is(err, cmg.ErrNotFound) {
		t.Errorf("a tenant that is gone: %v", err)
	}
}

// A site that was made before there were tenants lets their tokens in where a
// new one does.
func TestTenantsOpenOlderRoutes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.db")
	s, err := Create(t.Context(), path, lab)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.AddManagementPoint(t.Context(), "mp", "https://mp.inside"); err != nil {
		t.Fatal(err)
	}
	want, err := s.Routes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b, err := migrations.ReadFile("migrations/00004_proofs.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "UPDATE routes")
	upgrade, _, _ := strings.Cut("UPDATE routes"+rest, ";")
	for _, q := range []string{`UPDATE routes SET route = replace(route, ',"entra"', '')`, upgrade} {
		if _, err := s.write.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Routes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	entra := 0
	for i, r := range got {
		if !slices.Equal(r.Route.Proofs, want[i].Route.Proofs) {
			t.Errorf("%s: %v, want %v", r.Route.Prefix, r.Route.Proofs, want[i].Route.Proofs)
		}
		if slices.Contains(r.Route.Proofs, cmg.ProofEntra) {
			entra++
		}
	}
	if entra != 2 {
		t.Errorf("%d routes let Entra tokens in, want 2", entra)
	}
}

// A list that is followed already stays so, however many there are: else one
// authority with many lists would keep the others' from being fetched.
func TestFollowedListsWhenFull(t *testing.T) {
	s, _ := open(t)
	ca := certificate(t, "CA", true)
	if err := s.FollowRevocation(t.Context(), "ca", "http://pki/first.crl", ca); err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.Exec(`WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO crls (issuer, url, certificate, etag, tried, failures, problem, fetched, scope, partial, this_update, next_update, revoked, sha256, document)
		SELECT 'ca', 'http://pki/' || i, ?, '', 0, 0, '', 0, '', 0, 0, 0, 0, '', x'' FROM n`, maxSources, ca.Raw); err != nil {
		t.Fatal(err)
	}
	if err := s.FollowRevocation(t.Context(), "ca", "http://pki/first.crl", ca); err != nil {
		t.Errorf("one that is followed: %v", err)
	}
	if err := s.FollowRevocation(t.Context(), "ca", "http://pki/new.crl", ca); !errors.Is(err, cmg.ErrTooLarge) {
		t.Errorf("one more: %v, want too large", err)
	}
}
