package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/opencmg/cmg"
)

// An ACMEConfig says where a certificate is fetched from (RFC 8555).
type ACMEConfig struct {
	Hosts     []string `json:"hosts"`     // names the certificate is for; none: no ACME
	Directory string   `json:"directory"` // the authority's address; empty: Let's Encrypt
	Email     string   `json:"email"`     // whom the authority may write to; empty: nobody
	Accept    bool     `json:"accept"`    // true: its terms of service are accepted; needed
	Challenge string   `json:"challenge"` // tls-alpn-01, over the port for clients, or http-01; empty: tls-alpn-01
	HTTP      string   `json:"http"`      // where http-01 is answered; empty: ":80"
	Dir       string   `json:"dir"`       // keeps account and certificate; instances of one gateway share it; empty: acme in state_dir
	Roots     string   `json:"roots"`     // PEM file that signs the directory's certificate; empty: the system's roots
}

const (
	acmeProtocol = acme.ALPNProto
	challengeTLS = "tls-alpn-01"
	challengeWeb = "http-01"

	acmeTime  = 3 * time.Minute // for one certificate
	acmeFirst = 10 * time.Second
	acmeLate  = time.Hour
	acmeLook  = time.Minute // how often it is asked whether it is time
)

// An acmeOrder fetches and renews one certificate into two files. Several
// instances may share its folder: one of them fetches, all answer the
// authority's questions, and all see the files.
type acmeOrder struct {
	cfg    ACMEConfig
	client *http.Client
	log    *slog.Logger
	now    func() time.Time
	look   time.Duration // acmeLook; shorter in tests

	mu      sync.Mutex
	problem string
}

func newACME(c ACMEConfig, log *slog.Logger, now func() time.Time) (*acmeOrder, error) {
	bad := func(format string, a ...any) (*acmeOrder, error) {
		return nil, fmt.Errorf("acme: "+format+": %w", append(a, cmg.ErrInvalid)...)
	}
	c.Hosts = slices.Clone(c.Hosts)
	for i, h := range c.Hosts {
		if c.Hosts[i] = strings.ToLower(h); h == "" || strings.ContainsAny(h, "*/: ") {
			return bad("host %q is not a name", h)
		}
	}
	if c.Directory == "" {
		c.Directory = acme.LetsEncryptURL
	}
	if c.Challenge == "" {
		c.Challenge = challengeTLS
	}
	if c.HTTP == "" {
		c.HTTP = ":80"
	}
	switch {
	case !c.Accept:
		return bad("accept is not true: the authority wants its terms of service accepted")
	case !strings.HasPrefix(c.Directory, "https://"):
		return bad("directory %q is not https", c.Directory)
	case c.Challenge != challengeTLS && c.Challenge != challengeWeb:
		return bad("challenge %q is not %s or %s", c.Challenge, challengeTLS, challengeWeb)
	case c.Dir == "":
		return bad("dir is empty")
	}
	settings, err := ClientTo(ClientFiles{Roots: c.Roots})
	if err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	return &acmeOrder{cfg: c, log: log, now: now, look: acmeLook, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: settings, ForceAttemptHTTP2: true, TLSHandshakeTimeout: fetchHeads,
	}}}, nil
}

func (o *acmeOrder) file(name string) string { return filepath.Join(o.cfg.Dir, name) }

// files are where certificate and key are kept. One file holds both: a
// renewal replaces them at once.
func (o *acmeOrder) files() (cert, key string) { return o.file("front.pem"), o.file("front.pem") }

func (o *acmeOrder) lastProblem() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.problem
}

// run keeps the certificate young until ctx ends: it is renewed when two
// thirds of its life are over.
func (o *acmeOrder) run(ctx context.Context, have func() *x509.Certificate) {
	defer o.client.CloseIdleConnections()
	var wg sync.WaitGroup
	defer wg.Wait()
	if o.cfg.Challenge == challengeWeb {
		wg.Go(func() { o.serveChallenges(ctx) })
	}
	failures := 0
	for {
		wait := o.look
		var err error
		if o.due(have()) {
			err = o.fetch(ctx)
		}
		switch {
		case err == nil:
			failures = 0
		case errors.Is(err, cmg.ErrConflict): // another instance fetches
			err = nil
		case ctx.Err() == nil:
			wait = min(acmeFirst<<min(failures, 12), acmeLate)
			failures++
			o.log.Warn("no certificate could be fetched by ACME", "names", o.cfg.Hosts, "err", err, "again_in", wait)
		}
		o.mu.Lock()
		if o.problem = ""; err != nil {
			o.problem = err.Error()
		}
		o.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// due says whether a certificate is to be fetched.
func (o *acmeOrder) due(c *x509.Certificate) bool {
	if b, err := readFile("certificate", o.file("front.pem")); err == nil { // another instance may have been first
		if chain, err := certificatesIn(b); err == nil {
			c = chain[0]
		}
	}
	if c == nil {
		return true
	}
	for _, h := range o.cfg.Hosts {
		if c.VerifyHostname(h) != nil {
			return true
		}
	}
	return o.now().After(c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3))
}

// fetch gets one certificate for all names.
func (o *acmeOrder) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, acmeTime)
	defer cancel()
	free, err := o.lock()
	if err != nil {
		return err
	}
	defer free()
	account, err := o.account()
	if err != nil {
		return err
	}
	client := &acme.Client{Key: account, DirectoryURL: o.cfg.Directory, HTTPClient: o.client, UserAgent: "opencmg"}
	who := &acme.Account{}
	if o.cfg.Email != "" {
		who.Contact = []string{"mailto:" + o.cfg.Email}
	}
	if _, err := client.Register(ctx, who, acme.AcceptTOS); err != nil && !errors.Is(err, acme.ErrAccountAlreadyExists) {
		return fmt.Errorf("acme: register at %s: %w", o.cfg.Directory, err)
	}
	order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(o.cfg.Hosts...))
	if err != nil {
		return fmt.Errorf("acme: order: %w", err)
	}
	for _, url := range order.AuthzURLs {
		if err := o.authorize(ctx, client, url); err != nil {
			return err
		}
	}
	return o.finish(ctx, client, order)
}

// authorize shows that one name is ours.
func (o *acmeOrder) authorize(ctx context.Context, client *acme.Client, url string) error {
	z, err := client.GetAuthorization(ctx, url)
	if err != nil {
		return fmt.Errorf("acme: read authorization: %w", err)
	}
	if z.Status == acme.StatusValid {
		return nil
	}
	for _, ch := range z.Challenges {
		if ch.Type != o.cfg.Challenge {
			continue
		}
		name, text, err := o.response(client, ch, z.Identifier.Value)
		if err != nil {
			return fmt.Errorf("acme: answer %s of %s: %w", ch.Type, z.Identifier.Value, err)
		}
		if err := replaceFile(o.file(name), text); err != nil {
			return fmt.Errorf("acme: %w", err)
		}
		defer os.Remove(o.file(name))
		if _, err := client.Accept(ctx, ch); err != nil {
			return fmt.Errorf("acme: accept %s of %s: %w", ch.Type, z.Identifier.Value, err)
		}
		if _, err := client.WaitAuthorization(ctx, z.URI); err != nil {
			return fmt.Errorf("acme: %s of %s: %w", ch.Type, z.Identifier.Value, err)
		}
		return nil
	}
	return fmt.Errorf("acme: the authority offers no %s for %s: %w", o.cfg.Challenge, z.Identifier.Value, cmg.ErrInvalid)
}

func (o *acmeOrder) finish(ctx context.Context, client *acme.Client, order *acme.Order) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("acme: make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: o.cfg.Hosts}, key)
	if err != nil {
		return fmt.Errorf("acme: make request: %w", err)
	}
	if _, err := client.WaitOrder(ctx, order.URI); err != nil {
		return fmt.Errorf("acme: wait for the order: %w", err)
	}
	der, _, fault := client.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if fault != nil {
		// Not every authority says again in its answer where the order is,
		// which is all the library looks at: we know it.
		done, err := client.WaitOrder(ctx, order.URI)
		if err == nil {
			der, err = client.FetchCert(ctx, done.CertURL, true)
		}
		if err != nil {
			return fmt.Errorf("acme: finalize: %w, %w", fault, err)
		}
	}
	keyPEM, err := keyPEM(key)
	if err != nil {
		return fmt.Errorf("acme: %w", err)
	}
	var text bytes.Buffer
	for _, d := range der {
		text.Write(pemOf(pemCertificate, d))
	}
	_, chain, err := loadPair(source{"certificate by ACME", text.Bytes()}, source{"its key", keyPEM})
	if err == nil {
		err = presentable(chain, o.now())
	}
	if err != nil {
		return fmt.Errorf("acme: the authority gave a certificate that is not good: %w", err)
	}
	text.Write(keyPEM)
	o.log.Info("a certificate was fetched by ACME", "names", o.cfg.Hosts, "ends", chain[0].NotAfter.UTC())
	return replaceFile(o.file("front.pem"), text.Bytes())
}

// account gives the key of our account, made at the first time.
func (o *acmeOrder) account() (crypto.Signer, error) {
	file := o.file("account.key")
	b, err := readFile("account key", file)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("acme: make account key: %w", err)
		}
		text, err := keyPEM(key)
		if err != nil {
			return nil, fmt.Errorf("acme: %w", err)
		}
		return key, writeNew(newFile{file, text, 0o600})
	} else if err != nil {
		return nil, fmt.Errorf("acme: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("acme: %s holds no key: %w", file, cmg.ErrInvalid)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, fmt.Errorf("acme: %s holds no key: %w", file, cmg.ErrInvalid)
	}
	return signer, nil
}

// lock keeps the other instances from fetching at the same time. One that was
// killed leaves it behind: it counts for as long as a fetch may take.
func (o *acmeOrder) lock() (free func(), err error) {
	file := o.file("lock")
	if info, err := os.Stat(file); err == nil && o.now().Sub(info.ModTime()) > 2*acmeTime {
		os.Remove(file)
	}
	if err := writeNew(newFile{file, nil, 0o600}); err != nil {
		return nil, fmt.Errorf("acme: another instance fetches: %w", err)
	}
	return func() { os.Remove(file) }, nil
}
