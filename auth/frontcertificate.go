package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/opencmg/cmg"
)

// A FrontConfig says where the certificate is that a gateway's clients meet.
type FrontConfig struct {
	Certificate  string     // PEM with its chain, or PFX (PKCS #12): a name that ends in .pfx or .p12
	Key          string     // PEM; empty with a PFX
	PasswordFile string     // of the PFX; empty: it has an empty password
	ACME         ACMEConfig // in place of the files

	Every time.Duration    // how often the files are looked at; 0: 10 s
	Log   *slog.Logger     // nil is silent
	Now   func() time.Time // nil: time.Now
}

// A Front is the certificate of a gateway's listener for clients. It follows
// its files: a new certificate serves new connections as soon as it is good,
// and one that is not is refused with the reason, while the one before goes
// on. Run it once.
type Front struct {
	cfg  FrontConfig
	acme *acmeOrder // nil: the files are made by somebody else

	mu      sync.Mutex // one reload at a time
	seen    [sha256.Size]byte
	alerted int
	served  atomic.Pointer[servedFront]
	problem atomic.Pointer[error]
}

// servedFront is the certificate in force, and the one before it for names
// that only that one has.
type servedFront struct {
	now, before *frontPair
	since       time.Time
}

type frontPair struct {
	pair tls.Certificate
	leaf *x509.Certificate
}

// NewFront reads the certificate, and refuses one that no client would accept
// (see [GatewayFront]). Without a certificate yet, one by ACME is fetched by
// Run; until it is there handshakes fail.
func NewFront(c FrontConfig) (*Front, error) {
	if c.Every == 0 {
		c.Every = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	f := &Front{cfg: c, alerted: -1}
	if len(c.ACME.Hosts) > 0 {
		if c.Certificate != "" || c.Key != "" {
			return nil, fmt.Errorf("gateway's certificate: it is in files and from ACME: leave one of them out: %w", cmg.ErrInvalid)
		}
		var err error
		if f.acme, err = newACME(c.ACME, c.Log, c.Now); err != nil {
			return nil, fmt.Errorf("gateway's certificate: %w", err)
		}
		f.cfg.Certificate, f.cfg.Key = f.acme.files()
	}
	if err := f.Reload(); err != nil && !(f.acme != nil && errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	return f, nil
}

// Reload reads the files again. An error says why what they hold is not
// served; what was served before goes on.
func (f *Front) Reload() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	cert, key, password, err := f.read()
	if err == nil {
		sum := sha256.Sum256(bytes.Join([][]byte{cert, key, password}, []byte{0}))
		if sum == f.seen && f.problem.Load() == nil {
			return nil
		}
		f.seen = sum
		var p *frontPair
		if p, err = f.pair(cert, key, password); err == nil {
			f.serve(p)
		}
	}
	if err != nil {
		err = fmt.Errorf("gateway's certificate: %w", err)
		f.problem.Store(&err)
		return err
	}
	f.problem.Store(nil)
	return nil
}

// After lets f, which does not run yet, take the place of old: names that only
// old's certificate has are still served by it, and all of them as long as f
// has none.
func (f *Front) After(old *Front) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, now := old.served.Load(), f.served.Load()
	switch {
	case before == nil:
	case now == nil:
		f.served.Store(before)
	case bytes.Equal(before.now.leaf.Raw, now.now.leaf.Raw):
		f.served.Store(&servedFront{now: now.now, before: before.before, since: before.since})
	default:
		f.served.Store(&servedFront{now: now.now, before: before.now, since: now.since})
	}
}

func (f *Front) serve(p *frontPair) {
	next := &servedFront{now: p, since: f.cfg.Now()}
	if old := f.served.Load(); old != nil {
		if bytes.Equal(old.now.leaf.Raw, p.leaf.Raw) {
			next.before, next.since = old.before, old.since
		} else {
			next.before = old.now
			f.cfg.Log.Info("a new certificate is served to clients", "subject", p.leaf.Subject.String(), "names", p.leaf.DNSNames, "ends", p.leaf.NotAfter.UTC(), "before_ends", old.now.leaf.NotAfter.UTC())
		}
	}
	f.alerted = -1
	f.served.Store(next)
}

func (f *Front) isPFX() bool {
	name := strings.ToLower(f.cfg.Certificate)
	return strings.HasSuffix(name, ".pfx") || strings.HasSuffix(name, ".p12")
}

func (f *Front) read() (cert, key, password []byte, err error) {
	if cert, err = readFile("certificate", f.cfg.Certificate); err != nil {
		return nil, nil, nil, err
	}
	if !f.isPFX() {
		key, err = readFile("key", f.cfg.Key)
		return cert, key, nil, err
	}
	if f.cfg.PasswordFile != "" {
		password, err = readFile("password", f.cfg.PasswordFile)
	}
	return cert, nil, password, err
}

// pair checks what was read.
func (f *Front) pair(cert, key, password []byte) (*frontPair, error) {
	if f.isPFX() {
		var err error
		if cert, key, err = openPFX(cert, strings.TrimRight(string(password), "\r\n")); err != nil {
			return nil, fmt.Errorf("%s: %w", f.cfg.Certificate, err)
		}
	}
	pair, chain, err := loadPair(source{"certificate " + f.cfg.Certificate, cert}, source{"key " + f.cfg.Key, key})
	if err != nil {
		return nil, err
	}
	if err := presentable(chain, f.cfg.Now()); err != nil {
		return nil, fmt.Errorf("%s: %w", f.cfg.Certificate, err)
	}
	return &frontPair{pair, chain[0]}, nil
}

// openPFX takes certificate, chain and key out of a PFX, as PEM. The chain is
// put in order: a PFX has none.
func openPFX(b []byte, password string) (cert, key []byte, err error) {
	private, leaf, others, err := pkcs12.DecodeChain(b, password)
	if err != nil { // the library's errors never hold the password
		return nil, nil, fmt.Errorf("open PFX: %w: %w", err, cmg.ErrInvalid)
	}
	chain := []*x509.Certificate{leaf}
	for range others {
		last := chain[len(chain)-1]
		for _, c := range others {
			if !bytes.Equal(last.RawSubject, last.RawIssuer) && bytes.Equal(c.RawSubject, last.RawIssuer) && last.CheckSignatureFrom(c) == nil {
				chain = append(chain, c)
				break
			}
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("open PFX: %w: %w", err, cmg.ErrInvalid)
	}
	return certificatePEM(chain...), pemOf(pemKey, der), nil
}

// Settings makes the settings of the listener that clients meet: as
// [GatewayFront], with the certificate that is in force at each handshake.
func (f *Front) Settings() *tls.Config {
	c := floor()
	c.ClientAuth = tls.RequestClientCert
	c.NextProtos = webProtocols
	c.DynamicRecordSizingDisabled = true // the gateway gathers its writes itself
	c.GetCertificate = f.certificate
	if f.acme != nil {
		c.NextProtos = append(append([]string(nil), webProtocols...), acmeProtocol)
	}
	return c
}

// certificate chooses by the name that is asked for, in any case.
func (f *Front) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if f.acme != nil && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmeProtocol {
		return f.acme.challenge(hello.ServerName)
	}
	s := f.served.Load()
	if s == nil {
		return nil, fmt.Errorf("there is no certificate for clients yet: %w", cmg.ErrUnavailable)
	}
	if b := s.before; b != nil && hello.ServerName != "" && s.now.leaf.VerifyHostname(hello.ServerName) != nil &&
		b.leaf.VerifyHostname(hello.ServerName) == nil && f.cfg.Now().Before(b.leaf.NotAfter) {
		return &b.pair, nil
	}
	return &s.now.pair, nil
}

// Run follows the files, and fetches by ACME, until ctx ends.
func (f *Front) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if f.acme != nil {
		wg.Go(func() { f.acme.run(ctx, f.leaf) })
	}
	tick := time.NewTicker(f.cfg.Every)
	defer tick.Stop()
	said := ""
	for {
		err := f.Reload()
		switch {
		case err == nil:
			said = ""
		case err.Error() != said && !(f.acme != nil && f.served.Load() == nil):
			said = err.Error()
			f.cfg.Log.Error("the new certificate for clients is not good; the one before goes on", "err", err)
		}
		f.alert()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (f *Front) leaf() *x509.Certificate {
	if s := f.served.Load(); s != nil {
		return s.now.leaf
	}
	return nil
}

// alertDays are when it is told that a certificate ends.
var alertDays = []int{1, 7, 14, 30, 60}

// alertOf gives the narrowest of alertDays that the time left is within, 0
// where it has ended, and -1 while there is nothing to tell.
func alertOf(left time.Duration) int {
	if left <= 0 {
		return 0
	}
	for _, d := range alertDays {
		if left <= time.Duration(d)*24*time.Hour {
			return d
		}
	}
	return -1
}

// alert logs each step once.
func (f *Front) alert() {
	leaf := f.leaf()
	if leaf == nil {
		return
	}
	left := leaf.NotAfter.Sub(f.cfg.Now())
	step := alertOf(left)
	f.mu.Lock()
	changed := step != f.alerted
	f.alerted = step
	f.mu.Unlock()
	switch {
	case !changed || step < 0:
	case step == 0:
		f.cfg.Log.Error("the certificate that clients meet has ended", "subject", leaf.Subject.String(), "ended", leaf.NotAfter.UTC())
	case step <= 30:
		f.cfg.Log.Warn("the certificate that clients meet ends soon", "subject", leaf.Subject.String(), "ends", leaf.NotAfter.UTC(), "within_days", step)
	default:
		f.cfg.Log.Info("the certificate that clients meet ends", "subject", leaf.Subject.String(), "ends", leaf.NotAfter.UTC(), "within_days", step)
	}
}

// A FrontStatus is how the certificate stands.
type FrontStatus struct {
	Subject  string    `json:"subject,omitempty"`
	Names    []string  `json:"names,omitempty"`
	NotAfter time.Time `json:"not_after,omitzero"`
	Since    time.Time `json:"since,omitzero"`
	Alert    int       `json:"alert"` // days: 60, 30, 14, 7 or 1 once so little is left; 0 it has ended; -1 nothing to tell
	Problem  string    `json:"problem,omitempty"`
}

// Status says how the certificate stands.
func (f *Front) Status() FrontStatus {
	st := FrontStatus{Alert: -1}
	if s := f.served.Load(); s != nil {
		leaf := s.now.leaf
		st = FrontStatus{Subject: leaf.Subject.String(), Names: leaf.DNSNames, NotAfter: leaf.NotAfter.UTC(), Since: s.since.UTC(), Alert: alertOf(leaf.NotAfter.Sub(f.cfg.Now()))}
	}
	if p := f.problem.Load(); p != nil {
		st.Problem = (*p).Error()
	}
	if f.acme != nil {
		if p := f.acme.lastProblem(); p != "" {
			st.Problem = p
		}
	}
	return st
}
