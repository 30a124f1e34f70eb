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

// signAsSite makes the compact JWS (RS256) of a statement with the site's
// signing identity, whose certificate goes along (x5c, RFC 7515 section
// 4.1.6). typ keeps statements of different purposes apart.
func signAsSite(id *Identity, typ string, statement any) (string, error) {
	if id.Name().Role != cmg.RoleSite {
		return "", fmt.Errorf("sign as %s: %w", id.Name(), cmg.ErrForbidden)
	}
	key, ok := id.key().(*rsa.PrivateKey)
	if !ok {
		return "", fmt.Errorf("sign: the key of %s is not RSA: %w", id.Name(), cmg.ErrInvalid)
	}
	payload, err := json.Marshal(statement)
	if err != nil {
		return "", err
	}
	var chain []string
	for _, c := range id.chain {
		chain = append(chain, base64.StdEncoding.EncodeToString(c.Raw))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("x5c", chain))
	if err != nil {
		return "", err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

// readFromSite gives the payload of a statement that the site of id has
// signed: by a certificate of role site, under id's roots, valid at that time.
func readFromSite(id *Identity, typ, jws string, at time.Time) ([]byte, error) {
	signed, err := jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, cmg.ErrInvalid)
	}
	header := signed.Signatures[0].Protected
	if got, _ := header.ExtraHeaders[jose.HeaderType].(string); got != typ {
		return nil, fmt.Errorf("it is of another type: %w", cmg.ErrInvalid)
	}
	chains, err := header.Certificates(x509.VerifyOptions{
		Roots: id.roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("verify signer: %w: %w", plainly(err, at), cmg.ErrUnauthenticated)
	}
	signer := chains[0][0]
	name, ok := RoleOf(signer)
	if !ok || name.Role != cmg.RoleSite || name.Site != id.name.Site {
		return nil, fmt.Errorf("verify signer: %s is not site %s: %w", nameOrSubject(signer), id.name.Site, cmg.ErrForbidden)
	}
	payload, err := signed.Verify(signer.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("verify: %w: %w", err, cmg.ErrUnauthenticated)
	}
	return payload, nil
}
