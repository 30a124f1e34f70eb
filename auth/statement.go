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

const maxStatement = 64 << 10

// SignStatement makes a compact JWS (RS256) of v, as JSON, with the site's
// signing identity, whose certificate goes along (x5c, RFC 7515 section
// 4.1.6). typ keeps statements of different purposes apart.
func SignStatement(id *Identity, typ string, v any) (string, error) {
	key, ok := id.key().(*rsa.PrivateKey)
	if !ok || id.Name().Role != cmg.RoleSite {
		return "", fmt.Errorf("sign %s as %s: it is no site's signing identity with an RSA key: %w", typ, id.Name(), cmg.ErrInvalid)
	}
	payload, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("write %s: %w", typ, err)
	}
	var chain []string
	for _, c := range id.chain {
		chain = append(chain, base64.StdEncoding.EncodeToString(c.Raw))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("x5c", chain))
	if err != nil {
		return "", fmt.Errorf("sign %s: %w", typ, err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign %s: %w", typ, err)
	}
	return jws.CompactSerialize()
}

// ReadStatement reads what SignStatement made into v, if the site that id
// belongs to signed it. What somebody else signed is cmg.ErrUnauthenticated
// or cmg.ErrForbidden, what cannot be read cmg.ErrInvalid.
func ReadStatement(id *Identity, typ, jws string, at time.Time, v any) error {
	return readStatement(id, typ, jws, at, maxStatement, v)
}

func readStatement(id *Identity, typ, jws string, at time.Time, most int, v any) error {
	if len(jws) > most {
		return fmt.Errorf("read %s: %d bytes, at most %d: %w", typ, len(jws), most, cmg.ErrTooLarge)
	}
	signed, err := jose.ParseSignedCompact(jws, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return fmt.Errorf("read %s: %w: %w", typ, err, cmg.ErrInvalid)
	}
	header := signed.Signatures[0].Protected
	if header.ExtraHeaders[jose.HeaderType] != typ {
		return fmt.Errorf("read %s: it is of another type: %w", typ, cmg.ErrInvalid)
	}
	chains, err := header.Certificates(x509.VerifyOptions{
		Roots: id.roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("verify signer of %s: %w: %w", typ, plainly(err, at), cmg.ErrUnauthenticated)
	}
	signer := chains[0][0]
	if name, ok := RoleOf(signer); !ok || name.Role != cmg.RoleSite || name.Site != id.name.Site {
		return fmt.Errorf("verify signer of %s: %s is not site %s: %w", typ, nameOrSubject(signer), id.name.Site, cmg.ErrForbidden)
	}
	payload, err := signed.Verify(signer.PublicKey)
	if err != nil {
		return fmt.Errorf("verify %s: %w: %w", typ, err, cmg.ErrUnauthenticated)
	}
	if err := json.Unmarshal(payload, v); err != nil {
		return fmt.Errorf("read %s: %w: %w", typ, err, cmg.ErrInvalid)
	}
	return nil
}
