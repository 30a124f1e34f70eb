package auth

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"github.com/opencmg/cmg"
)

// channelProtocol is the ALPN name (RFC 7301) of the channel between
// connection point and gateway.
const channelProtocol = "cmg/1"

// webProtocols are what our HTTPS servers speak.
var webProtocols = []string{"h2", "http/1.1"}

// suites12 are TLS 1.2's suites with ephemeral keys and authenticated
// encryption. TLS 1.3 has no others.
var suites12 = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// floor is what every setting has: TLS 1.2 with suites12, or better.
func floor() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites12}
}

// ChannelServer makes the gateway's settings for its channel listener: TLS
// 1.3, ALPN "cmg/1", and a peer that is a connection point of the same site.
func (id *Identity) ChannelServer() *tls.Config {
	c := id.channel(cmg.RoleConnectionPoint, x509.ExtKeyUsageClientAuth)
	c.Certificates = []tls.Certificate{id.pair}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	c.ClientCAs = id.roots
	// A channel lives for days; a resumed one would rest on an old proof.
	c.SessionTicketsDisabled = true
	return c
}

// ChannelClient makes the connection point's settings for dialing a gateway:
// TLS 1.3, ALPN "cmg/1" with the site's code behind it, and a peer that is a
// gateway of the same site. The peer is known by its role's name under the
// site's roots: the host name that was dialed does not matter, so that an
// instance may move.
func (id *Identity) ChannelClient() *tls.Config {
	c := id.channel(cmg.RoleGateway, x509.ExtKeyUsageServerAuth)
	c.NextProtos = append(c.NextProtos, siteHint+id.name.Site)
	// The certificate goes out whatever authorities the other end names, so
	// that it is the other end that says what is wrong with it.
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.pair, nil }
	c.InsecureSkipVerify = true // host names only: VerifyConnection does the rest
	return c
}

// channel makes what both ends of a channel have in common. VerifyConnection
// checks the whole proof of the peer, at either end.
func (id *Identity) channel(peer cmg.RoleKind, usage x509.ExtKeyUsage) *tls.Config {
	return &tls.Config{
		Time:                        id.now,
		MinVersion:                  tls.VersionTLS13,
		NextProtos:                  []string{channelProtocol},
		DynamicRecordSizingDisabled: true, // the channel writes few and large
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != channelProtocol {
				return fmt.Errorf("channel: the peer does not speak %s: %w", channelProtocol, cmg.ErrUnauthenticated)
			}
			if err := verifyAt(cs.PeerCertificates, id.roots, id.now(), usage); err != nil {
				return fmt.Errorf("channel: verify peer: %w", err)
			}
			name, ok := RoleOf(cs.PeerCertificates[0])
			if !ok || name.Role != peer || name.Site != id.name.Site {
				return fmt.Errorf("channel: the peer is %s and not a %s of site %s: %w", nameOrSubject(cs.PeerCertificates[0]), peer, id.name.Site, cmg.ErrForbidden)
			}
			return nil
		},
	}
}

func nameOrSubject(c *x509.Certificate) string {
	if n, ok := RoleOf(c); ok {
		return n.String()
	}
	return c.Subject.String()
}

// Server makes the settings of an HTTPS server inside. A client may show a
// certificate; one that the site did not issue ends the handshake. PeerRole
// tells who it is.
func (id *Identity) Server() *tls.Config {
	c := floor()
	c.Certificates = []tls.Certificate{id.pair}
	c.ClientAuth = tls.VerifyClientCertIfGiven
	c.ClientCAs = id.roots
	c.Time = id.now
	c.NextProtos = webProtocols
	return c
}

// Client makes the settings for a request to a server inside: it shows the
// role's certificate, and the server has to prove its host name under the
// site's roots.
func (id *Identity) Client() *tls.Config {
	c := floor()
	c.Certificates = []tls.Certificate{id.pair}
	c.RootCAs = id.roots
	c.Time = id.now
	return c
}
