package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/opencmg/cmg"
)

// IsChannel says that a connection to the settings of [Sites.WithChannel] is
// one of a connection point.
func IsChannel(cs *tls.ConnectionState) bool { return cs.NegotiatedProtocol == channelProtocol }

// An Outer makes the settings of the HTTPS connection beneath a channel, and
// of the one to a web proxy. It proves nothing about the gateway: the
// channel's own TLS within does. It tells whom one talks to before.
type Outer struct {
	known      *x509.CertPool // the system's roots and the site's
	inspectors *x509.CertPool // of proxies that open TLS; nil: none is expected
	now        func() time.Time
}

// NewOuter takes the site's roots of id, the system's, and inspectors: a PEM
// file of the authorities with which a web proxy signs what it shows in a
// server's place; empty is none.
func NewOuter(id *Identity, inspectors string) (*Outer, error) {
	known, err := x509.SystemCertPool()
	if err != nil {
		known = x509.NewCertPool()
	}
	for _, c := range id.rootCerts {
		known.AddCert(c)
	}
	o := &Outer{known: known, now: id.now}
	if inspectors == "" {
		return o, nil
	}
	b, err := readFile("roots", inspectors)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	certs, err := certificatesIn(b)
	if err != nil {
		return nil, fmt.Errorf("proxy: roots %s: %w", inspectors, err)
	}
	o.inspectors = x509.NewCertPool()
	for _, c := range certs {
		o.inspectors.AddCert(c)
	}
	return o, nil
}

// Settings makes the settings for a server of that name. No certificate of
// ours is shown.
func (o *Outer) Settings(host string) *tls.Config {
	c := floor()
	c.ServerName = host
	c.NextProtos = []string{"http/1.1"}
	c.DynamicRecordSizingDisabled = true
	c.InsecureSkipVerify = true // by two sets of roots: VerifyConnection does it
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		err := o.verify(&cs, host, o.known)
		if err == nil || o.inspectors != nil && o.verify(&cs, host, o.inspectors) == nil {
			return nil
		}
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			return fmt.Errorf("the certificate of %s was issued by %q, which is not known here: if this is a web proxy that opens TLS, name its authority in proxy.roots: %w", host, cs.PeerCertificates[0].Issuer, cmg.ErrUnauthenticated)
		}
		return fmt.Errorf("verify %s: %w: %w", host, plainly(err, o.now()), cmg.ErrUnauthenticated)
	}
	return c
}

func (o *Outer) verify(cs *tls.ConnectionState, host string, roots *x509.CertPool) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between, CurrentTime: o.now()})
	return err
}

// Inspector names who opens TLS on the way: the issuer of the certificate
// that was shown, if only the inspectors' roots vouch for it. Empty: nobody.
func (o *Outer) Inspector(cs *tls.ConnectionState, host string) string {
	if o.inspectors == nil || o.verify(cs, host, o.known) == nil {
		return ""
	}
	return cs.PeerCertificates[0].Issuer.String()
}
