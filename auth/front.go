package auth

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/opencmg/cmg"
)

// GatewayFront makes the settings of the listener that clients meet, from the
// certificate (PEM, with its chain in order) and key that stand for the
// service name. A client may show any certificate: the handshake refuses
// none, because a refusal there could not say why. [Trust] judges it later.
//
// A key of another certificate, a chain with a missing or misplaced link, and
// a certificate that no client would accept (expired, not yet valid, without
// a name, not for servers) are errors that say so.
func GatewayFront(certFile, keyFile string) (*tls.Config, error) {
	cert, err := readFile("certificate", certFile)
	if err != nil {
		return nil, fmt.Errorf("gateway's certificate: %w", err)
	}
	key, err := readFile("key", keyFile)
	if err != nil {
		return nil, fmt.Errorf("gateway's certificate: %w", err)
	}
	pair, chain, err := loadPair(source{"certificate " + certFile, cert}, source{"key " + keyFile, key})
	if err != nil {
		return nil, fmt.Errorf("gateway's certificate: %w", err)
	}
	if err := presentable(chain, time.Now()); err != nil {
		return nil, fmt.Errorf("gateway's certificate %s: %w", certFile, err)
	}
	c := floor()
	c.Certificates = []tls.Certificate{pair}
	c.ClientAuth = tls.RequestClientCert
	c.NextProtos = webProtocols
	c.DynamicRecordSizingDisabled = true // the gateway gathers its writes itself
	return c, nil
}

// presentable says why a client would not accept the chain, as far as can be
// told without knowing which roots it has.
func presentable(chain []*x509.Certificate, at time.Time) error {
	leaf := chain[0]
	bad := func(format string, a ...any) error {
		return fmt.Errorf(format+": %w", append(a, cmg.ErrInvalid)...)
	}
	for _, c := range chain {
		switch {
		case at.After(c.NotAfter):
			return bad("%s expired %s", c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
		case at.Before(c.NotBefore):
			return bad("%s is not valid before %s", c.Subject, c.NotBefore.UTC().Format(time.RFC3339))
		}
	}
	for i, c := range chain[1:] {
		if err := chain[i].CheckSignatureFrom(c); err != nil {
			return bad("broken chain: %s did not issue %s, before which it stands: %w", c.Subject, chain[i].Subject, err)
		}
	}
	if len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0 {
		return bad("%s names no host (subject alternative name)", leaf.Subject)
	}
	for _, u := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageAny} {
		if slices.Contains(leaf.ExtKeyUsage, u) {
			return nil
		}
	}
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 {
		return bad("%s is not for servers (extended key usage)", leaf.Subject)
	}
	return nil
}

// ClientFiles names the files of a TLS client. All may be empty.
type ClientFiles struct {
	Roots       string `json:"roots"`       // PEM: authorities that vouch for the server; empty: the system's
	Certificate string `json:"certificate"` // PEM: the client's own; empty: it shows none
	Key         string `json:"key"`         // PEM: the key of the certificate

	Now func() time.Time `json:"-"` // nil: time.Now
}

// ClientTo makes the settings of a client towards any HTTPS server, whose
// host name is checked.
func ClientTo(f ClientFiles) (*tls.Config, error) {
	c := floor()
	c.Time = clockOr(f.Now)
	if f.Roots != "" {
		b, err := readFile("roots", f.Roots)
		if err != nil {
			return nil, fmt.Errorf("tls client: %w", err)
		}
		roots, err := certificatesIn(b)
		if err != nil {
			return nil, fmt.Errorf("tls client: roots %s: %w", f.Roots, err)
		}
		c.RootCAs = x509.NewCertPool()
		for _, r := range roots {
			c.RootCAs.AddCert(r)
		}
	}
	if f.Certificate == "" && f.Key == "" {
		return c, nil
	}
	cert, err := readFile("certificate", f.Certificate)
	if err != nil {
		return nil, fmt.Errorf("tls client: %w", err)
	}
	key, err := readFile("key", f.Key)
	if err != nil {
		return nil, fmt.Errorf("tls client: %w", err)
	}
	pair, _, err := loadPair(source{"certificate " + f.Certificate, cert}, source{"key " + f.Key, key})
	if err != nil {
		return nil, fmt.Errorf("tls client: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}
