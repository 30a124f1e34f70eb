package auth

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/opencmg/cmg"
)

const (
	publicationType = "cmg-publication+jws"
	maxPublication  = 4 << 20 // bytes, signed: hundreds of anchors and thousands of routes
)

// SignPublication makes the compact JWS (RS256) of p with the site's signing
// identity, whose certificate goes along (x5c, RFC 7515 section 4.1.6).
func SignPublication(id *Identity, p cmg.Publication) (string, error) {
	if err := p.Check(); err != nil {
		return "", fmt.Errorf("sign publication: %w", err)
	}
	if n := id.Name(); n.Role != cmg.RoleSite || n.Site != p.Site {
		return "", fmt.Errorf("sign publication of site %s as %s: %w", p.Site, n, cmg.ErrForbidden)
	}
	key, ok := id.key().(*rsa.PrivateKey)
	if !ok {
		return "", fmt.Errorf("sign publication: the key of %s is not RSA: %w", id.Name(), cmg.ErrInvalid)
	}
	payload, err := json.Marshal(p)
	if err != nil {
		return "", fmt.Errorf("write publication: %w", err)
	}
	var chain []string
	for _, c := range id.chain {
		chain = append(chain, base64.StdEncoding.EncodeToString(c.Raw))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key},
		(&jose.SignerOptions{}).WithType(publicationType).WithHeader("x5c", chain))
	if err != nil {
		return "", fmt.Errorf("sign publication: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign publication: %w", err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("sign publication: %w", err)
	}
	if len(text) > maxPublication {
		return "", fmt.Errorf("sign publication: %d bytes, at most %d: %w", len(text), maxPublication, cmg.ErrTooLarge)
	}
	return text, nil
}

// ReadPublication gives the publication, if the site that id belongs to has
// signed it: by a certificate of role site, under id's roots, valid at that
// time. A publication somebody else signed is cmg.ErrUnauthenticated or
// cmg.ErrForbidden, one that cannot be read cmg.ErrInvalid.
func ReadPublication(id *Identity, jws string, at time.Time) (p cmg.Publication, err error) {
	if len(jws) > maxPublication {
		return p, fmt.Errorf("read publication: %d bytes, at most %d: %w", len(jws), maxPublication, cmg.ErrTooLarge)
	}
	signed, err := jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return p, fmt.Errorf("read publication: %w: %w", err, cmg.ErrInvalid)
	}
	header := signed.Signatures[0].Protected
	if header.ExtraHeaders[jose.HeaderType] != publicationType {
		return p, fmt.Errorf("read publication: it is of another type: %w", cmg.ErrInvalid)
	}
	chains, err := header.Certificates(x509.VerifyOptions{
		Roots: id.roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return p, fmt.Errorf("verify publication's signer: %w: %w", plainly(err, at), cmg.ErrUnauthenticated)
	}
	signer := chains[0][0]
	name, ok := RoleOf(signer)
	if !ok || name.Role != cmg.RoleSite || name.Site != id.name.Site {
		return p, fmt.Errorf("verify publication's signer: %s is not site %s: %w", nameOrSubject(signer), id.name.Site, cmg.ErrForbidden)
	}
	payload, err := signed.Verify(signer.PublicKey)
	if err != nil {
		return p, fmt.Errorf("verify publication: %w: %w", err, cmg.ErrUnauthenticated)
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return cmg.Publication{}, fmt.Errorf("read publication: %w: %w", err, cmg.ErrInvalid)
	}
	if p.Site != id.name.Site {
		return cmg.Publication{}, fmt.Errorf("read publication: it is of site %.20q: %w", p.Site, cmg.ErrForbidden)
	}
	if err := p.Check(); err != nil {
		return cmg.Publication{}, fmt.Errorf("read publication: %w", err)
	}
	return p, nil
}
