package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/opencmg/cmg"
)

const (
	maxDiscovery  = 64 << 10
	maxKeySet     = 512 << 10
	maxTenantKeys = 64
	discoveryPath = "/.well-known/openid-configuration" // OpenID Connect Discovery 1.0 section 4
)

// TenantKeys fetches the public keys with which a tenant's tokens are signed
// now, by discovery: those of version 2.0, and those of version 1.0 where its
// authority tells of them. What cannot be used is left out; none that can is
// an error.
func (f *Fetcher) TenantKeys(ctx context.Context, t cmg.Tenant) ([]json.RawMessage, error) {
	issuers := cmg.EntraIssuers(t.Authority, t.ID)
	keys, err := f.keysOf(ctx, t, t.Authority+"/"+t.ID+"/v2.0"+discoveryPath, issuers[1])
	if err != nil {
		return nil, fmt.Errorf("tenant %s: %w", t.ID, err)
	}
	// An authority without the older version says nothing of it.
	older, _ := f.keysOf(ctx, t, t.Authority+"/"+t.ID+discoveryPath, issuers[0])
	known := map[string]bool{}
	var all []json.RawMessage
	for _, raw := range slices.Concat(keys, older) {
		k, err := readTenantKey(raw)
		if err != nil || known[k.KeyID] {
			continue
		}
		known[k.KeyID] = true
		k.Certificates, k.CertificateThumbprintSHA1, k.CertificateThumbprintSHA256, k.CertificatesURL = nil, nil, nil, nil
		plain, err := k.MarshalJSON() // without what nothing here reads
		if err != nil {
			return nil, fmt.Errorf("tenant %s: write key %.80q: %w", t.ID, k.KeyID, err)
		}
		all = append(all, plain)
	}
	if len(all) == 0 || len(all) > maxTenantKeys {
		return nil, fmt.Errorf("tenant %s: %d keys that can be used, not between one and %d: %w", t.ID, len(all), maxTenantKeys, cmg.ErrInvalid)
	}
	return all, nil
}

// keysOf reads a discovery document and the keys that it names. The document
// has to speak for the issuer, and the keys have to lie with the authority:
// else whoever can write to the one could choose the other.
func (f *Fetcher) keysOf(ctx context.Context, t cmg.Tenant, discovery, issuer string) ([]json.RawMessage, error) {
	b, _, err := f.get(ctx, discovery, "", maxDiscovery)
	if err != nil {
		return nil, err
	}
	var d struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", discovery, err, cmg.ErrInvalid)
	}
	if d.Issuer != issuer {
		return nil, fmt.Errorf("read %s: it is of issuer %.200q, not %q: %w", discovery, d.Issuer, issuer, cmg.ErrInvalid)
	}
	at, err := url.Parse(d.Keys)
	own, errOwn := url.Parse(t.Authority)
	if errors.Join(err, errOwn) != nil || at.Scheme != "https" || at.Host != own.Host {
		return nil, fmt.Errorf("read %s: its keys lie at %.200q, not with the authority: %w", discovery, d.Keys, cmg.ErrInvalid)
	}
	b, _, err = f.get(ctx, d.Keys, "", maxKeySet)
	if err != nil {
		return nil, err
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", d.Keys, err, cmg.ErrInvalid)
	}
	return set.Keys, nil
}
