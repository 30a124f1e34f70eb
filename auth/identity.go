package auth

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/opencmg/cmg"
)

// IdentityFiles names the three files of a role's identity.
type IdentityFiles struct {
	Certificate string `json:"certificate"` // PEM: the role's own, then what leads from it to a root, if anything
	Key         string `json:"key"`         // PEM: the key of the certificate
	Roots       string `json:"roots"`       // PEM: the site's root authorities

	Now func() time.Time `json:"-"` // by which certificates are judged; nil: time.Now
}

// An Identity is a role's own certificate and the roots of its site. It never
// changes, and may be used by many goroutines at once.
type Identity struct {
	name  RoleName
	pair  tls.Certificate
	chain []*x509.Certificate // own first
	roots *x509.CertPool
	// rootCerts are those in roots, which tells nobody what it holds.
	rootCerts []*x509.Certificate
	now       func() time.Time
}

// LoadIdentity reads an identity and checks that it can be used now: the key
// belongs to the certificate, which names a role, leads to one of the roots
// and is valid at this time. The error says which file is at fault, and why.
func LoadIdentity(f IdentityFiles) (*Identity, error) {
	var in [3]source
	for i, s := range []struct{ what, file string }{{"certificate", f.Certificate}, {"key", f.Key}, {"roots", f.Roots}} {
		b, err := readFile(s.what, s.file)
		if err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
		in[i] = source{s.what + " " + s.file, b}
	}
	return newIdentity(in[0], in[1], in[2], f.Now)
}

// NewIdentity makes an identity as LoadIdentity does, of PEM texts.
func NewIdentity(certPEM, keyPEM, rootsPEM []byte) (*Identity, error) {
	return newIdentity(source{"certificate", certPEM}, source{"key", keyPEM}, source{"roots", rootsPEM}, nil)
}

// source is a PEM text and what to call it in an error.
type source struct {
	name string
	pem  []byte
}

func newIdentity(cert, key, roots source, now func() time.Time) (*Identity, error) {
	pair, chain, err := loadPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	id := &Identity{pair: pair, chain: chain, roots: x509.NewCertPool(), now: clockOr(now)}
	rootCerts, err := certificatesIn(roots.pem)
	if err != nil {
		return nil, fmt.Errorf("identity: %s: %w", roots.name, err)
	}
	for _, c := range rootCerts {
		if !c.IsCA {
			return nil, fmt.Errorf("identity: %s: %s is not an authority: %w", roots.name, c.Subject, cmg.ErrInvalid)
		}
		id.roots.AddCert(c)
		id.rootCerts = append(id.rootCerts, c)
	}
	var ok bool
	if id.name, ok = RoleOf(chain[0]); !ok {
		return nil, fmt.Errorf("identity: %s: %s holds no role name cmg://<site>/<role>/<name>: %w", cert.name, chain[0].Subject, cmg.ErrInvalid)
	}
	if err := verifyAt(chain, id.roots, id.now(), x509.ExtKeyUsageAny); err != nil {
		return nil, fmt.Errorf("identity: %s under %s: %w", cert.name, roots.name, err)
	}
	return id, nil
}

// clockOr gives now, or the machine's clock where there is none.
func clockOr(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now
	}
	return now
}

// loadPair reads certificates with the key of the first one, and says what is
// wrong when the two do not belong together.
func loadPair(cert, key source) (tls.Certificate, []*x509.Certificate, error) {
	none := tls.Certificate{}
	chain, err := certificatesIn(cert.pem)
	if err != nil {
		return none, nil, fmt.Errorf("%s: %w", cert.name, err)
	}
	pair, err := tls.X509KeyPair(cert.pem, key.pem)
	if err == nil {
		return pair, chain, nil
	}
	for i, c := range chain[1:] {
		if _, err := tls.X509KeyPair(certificatePEM(c), key.pem); err == nil {
			return none, nil, fmt.Errorf("%s: the key belongs to certificate %d in it (%s), which has to stand first: %w", cert.name, i+2, c.Subject, cmg.ErrInvalid)
		}
	}
	// The library's errors here describe the shape of the key, never its value.
	return none, nil, fmt.Errorf("%s does not serve for %s: %w: %w", key.name, cert.name, err, cmg.ErrInvalid)
}

// verifyAt checks that chain leads from its first certificate to one of the
// roots. The error says in whose words: expired, not yet valid, other issuer.
func verifyAt(chain []*x509.Certificate, roots *x509.CertPool, at time.Time, usage x509.ExtKeyUsage) error {
	if len(chain) == 0 {
		return fmt.Errorf("no certificate: %w", cmg.ErrUnauthenticated)
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("%s: %w: %w", chain[0].Subject, plainly(err, at), cmg.ErrUnauthenticated)
	}
	return nil
}

// plainly tells the two faults of time apart, which the library calls by one
// name.
func plainly(err error, at time.Time) error {
	var bad x509.CertificateInvalidError
	if !errors.As(err, &bad) || bad.Reason != x509.Expired || bad.Cert == nil {
		return err
	}
	if at.Before(bad.Cert.NotBefore) {
		return fmt.Errorf("%s is not valid before %s", bad.Cert.Subject, bad.Cert.NotBefore.UTC().Format(time.RFC3339))
	}
	return fmt.Errorf("%s expired %s", bad.Cert.Subject, bad.Cert.NotAfter.UTC().Format(time.RFC3339))
}

// Name gives who the identity speaks for.
func (id *Identity) Name() RoleName { return id.name }

// Certificate gives the role's own certificate.
func (id *Identity) Certificate() *x509.Certificate { return id.chain[0] }

// Roots gives the site's root authorities. The caller must not add to them.
func (id *Identity) Roots() *x509.CertPool { return id.roots }

func (id *Identity) key() crypto.PrivateKey { return id.pair.PrivateKey }
