package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/opencmg/cmg"
)

// response gives what answers a challenge, and the file it is kept in while
// the authority asks.
func (o *acmeOrder) response(client *acme.Client, ch *acme.Challenge, host string) (name string, text []byte, err error) {
	if ch.Type == challengeWeb {
		answer, err := client.HTTP01ChallengeResponse(ch.Token)
		if err == nil && !plainToken(ch.Token) {
			err = fmt.Errorf("token %.80q: %w", ch.Token, cmg.ErrInvalid)
		}
		return "http-" + ch.Token, []byte(answer), err
	}
	pair, err := client.TLSALPN01ChallengeCert(ch.Token, host)
	if err != nil {
		return "", nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	text = append(pemOf(pemCertificate, pair.Certificate[0]), pemOf(pemKey, key)...)
	return "tls-" + strings.ToLower(host), text, err
}

// plainToken says that a token is base64url, so that it names a file in our
// folder and nothing else.
func plainToken(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

// challenge is the certificate that answers tls-alpn-01 for a name.
func (o *acmeOrder) challenge(host string) (*tls.Certificate, error) {
	host = strings.ToLower(host)
	for _, h := range o.cfg.Hosts {
		if h != host {
			continue
		}
		b, err := readFile("challenge", o.file("tls-"+host))
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(b, b)
		return &pair, err
	}
	return nil, fmt.Errorf("no challenge is open for %.100q: %w", host, cmg.ErrNotFound)
}

// IsChallenge says that a connection to the settings of a Front is one of an
// ACME server, which wants nothing but the handshake.
func IsChallenge(cs *tls.ConnectionState) bool { return cs.NegotiatedProtocol == acmeProtocol }

// serveChallenges answers http-01 until ctx ends, and sends everybody else to
// HTTPS.
func (o *acmeOrder) serveChallenges(ctx context.Context) {
	const prefix = "/.well-known/acme-challenge/"
	var ln net.Listener
	for said := false; ; said = true {
		var err error
		if ln, err = net.Listen("tcp", o.cfg.HTTP); err == nil {
			break
		}
		if !said { // the process before this one may have it still, or another instance, which answers for this one
			o.log.Warn("http-01 is not answered by this instance yet", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(o.look):
		}
	}
	srv := &http.Server{ReadHeaderTimeout: fetchHeads, ReadTimeout: fetchHeads, WriteTimeout: fetchHeads, MaxHeaderBytes: 8 << 10,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if token, ok := strings.CutPrefix(r.URL.Path, prefix); ok && plainToken(token) {
				if b, err := readFile("challenge", o.file("http-"+token)); err == nil {
					w.Header().Set("Content-Type", "text/plain")
					w.Write(b)
					return
				}
			}
			http.Error(w, "only https is spoken here", http.StatusNotFound)
		})}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	srv.Serve(ln) // it ends when it is closed
}
