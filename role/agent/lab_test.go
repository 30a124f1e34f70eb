package agent

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/bits"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/content"
	"github.com/opencmg/cmg/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	siteCode = "LAB"
	roleID   = "72057594037927937"
	gateway  = "gw.example:443"
	storage  = "store.example:443"
)

// A lab is a gateway, the management point behind it and a content store,
// all in one: real TLS, real tokens, real files, and a state of its own. It
// keeps to the rules of both, so that an agent that gets along with it proves
// what it has to.
type lab struct {
	t         *testing.T
	dir       string
	authority *auth.Authority
	keys      *auth.Keyring
	tokens    *auth.Tokens
	anchors   *x509.CertPool
	disk      *blob.Disk
	locator   *content.Locator
	resolve   map[string][]string
	uploads   *bits.Server // nil: none are taken

	notified noticeBoard

	mu       sync.Mutex
	ahead    time.Duration // how far the lab's clock is ahead of the machine's
	devices  map[cmg.DeviceID]ccm.Registration
	proofs   map[string]bool // client tokens that were used
	blocked  map[string]bool // ids of tokens that are refused
	policies []cmg.Policy
	digests  map[string]cmg.Digest // of policies whose assignment lies
	grants   map[grantKey]cmg.PackageGrant
	reports  map[string]ccm.Report // by message id
	seen     []string              // what was asked for, in order
	bearers  []string              // kinds of tokens shown, in order
	refuse   func(what string) error
	siteKey  *rsa.PrivateKey // signs assignments
	siteCert []byte
	tamper   func(*ccm.Assignment) // after that
	sealOld  bool                  // secret policies in the older form
	renews   bool                  // a session comes with a new device token
}

// A grantKey is one version of a package.
type grantKey struct {
	id      cmg.PackageID
	version int
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir(), devices: map[cmg.DeviceID]ccm.Registration{}, proofs: map[string]bool{}, blocked: map[string]bool{},
		digests: map[string]cmg.Digest{}, grants: map[grantKey]cmg.PackageGrant{}, reports: map[string]ccm.Report{},
		refuse: func(string) error { return nil }}
	var err error
	if l.authority, err = auth.NewAuthority("lab", 365*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	l.anchors = x509.NewCertPool()
	l.anchors.AddCert(l.authority.Certificate())
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.authority.Certificate().Raw})
	if err := os.WriteFile(l.file("roots.pem"), roots, 0o600); err != nil {
		t.Fatal(err)
	}
	if l.siteCert, l.siteKey, err = ccm.NewClientCertificate(time.Now()); err != nil {
		t.Fatal(err)
	}
	if l.keys, err = auth.NewKeyring(); err != nil {
		t.Fatal(err)
	}
	if l.tokens, err = auth.NewTokens(siteCode, l.keys.PublicKeys()); err != nil {
		t.Fatal(err)
	}
	l.disk, err = blob.NewDisk(blob.DiskConfig{Dir: l.file("store"), URL: "https://store.example", Key: blob.NewKey(), Now: l.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.disk.Close() })
	if l.locator, err = content.NewLocator(content.LocatorConfig{Links: l.disk, Now: l.now}); err != nil {
		t.Fatal(err)
	}
	l.resolve = map[string][]string{
		gateway: {"127.0.0.1:1", l.serve("gw.example", web.Handler(nil, l.gateway))}, // one instance is always dead
		storage: {l.serve("store.example", l.disk.Handler(nil))},
	}
	return l
}

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.ahead)
}

func (l *lab) wait(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ahead += d
}

// serve starts a TLS listener as a gateway's is and gives its address.
func (l *lab) serve(host string, h http.Handler) string {
	l.t.Helper()
	c, err := l.authority.Issue(auth.CertRequest{Name: host, DNS: []string{host}, Server: true})
	if err != nil {
		l.t.Fatal(err)
	}
	if err := c.Save(l.file(host+".pem"), l.file(host+".key")); err != nil {
		l.t.Fatal(err)
	}
	settings, err := auth.GatewayFront(l.file(host+".pem"), l.file(host+".key"))
	if err != nil {
		l.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { web.Serve(ctx, &http.Server{Handler: h, TLSConfig: settings}, ln, time.Second) })
	l.t.Cleanup(func() { cancel(); wg.Wait() })
	return ln.Addr().String()
}

// config is that of an agent in this lab, with tokens.
func (l *lab) config(stateDir string) Config {
	l.t.Helper()
	token, err := l.keys.Issue(auth.Claims{Kind: auth.TokenRegistration, Site: siteCode, Expires: l.now().Add(99 * 24 * time.Hour)})
	if err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(l.file("registration.token"), []byte(token+"\n"), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return Config{
		URL: "https://gw.example", PrefixMutual: cmg.PrefixMutualAuth + roleID, PrefixServer: cmg.PrefixServerAuth + roleID,
		SiteCode: siteCode, StateDir: stateDir, Roots: l.file("roots.pem"), Resolve: l.resolve,
		RegistrationTokenFile: l.file("registration.token"), Name: "PC1", Once: true, Now: l.now,
		Log: slog.New(slog.NewTextHandler(testWriter{l.t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// pass runs a new agent, as after a restart of the machine, once.
func (l *lab) pass(c Config) (*Agent, error) {
	l.t.Helper()
	a, err := New(c)
	if err != nil {
		l.t.Fatal(err)
	}
	a.link.wait, a.link.longest = time.Millisecond, 10*time.Millisecond
	return a, a.Run(l.t.Context())
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// addPackage puts files into the store and a policy that deploys them.
func (l *lab) addPackage(id cmg.PackageID, folder string, files map[string]string) cmg.Policy {
	l.t.Helper()
	return l.addVersion(id, 1, folder, files)
}

func (l *lab) addVersion(id cmg.PackageID, version int, folder string, files map[string]string) cmg.Policy {
	l.t.Helper()
	dir := l.t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			l.t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
	_, digest, err := content.Add(l.t.Context(), l.disk, dir, content.AddOptions{Package: id, Version: version, Name: string(id)})
	if err != nil {
		l.t.Fatal(err)
	}
	policyID := "{" + strings.ToUpper(cmg.NewGUID()) + "}"
	p := cmg.Policy{ID: policyID, Version: "1.00", Category: "ContentDeployment", Body: ccm.PolicyBody{ID: policyID, Version: "1.00", Source: "SMS:" + siteCode,
		Instances: []ccm.Instance{ccm.ContentDeployment{PackageID: id, PackageVersion: version, Folder: folder}.Instance()}}.Encode()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grants[grantKey{id, version}] = cmg.PackageGrant{Package: id, Version: version, Manifest: digest}
	l.policies = append(l.policies, p)
	return p
}

// gateway proves the caller as a gateway does, and passes to the management
// point what it answers for.
func (l *lab) gateway(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Path == cmg.ManifestPath {
		return l.manifest(w, r)
	}
	path, mutual := strings.CutPrefix(r.URL.Path, cmg.PrefixMutualAuth+roleID)
	var caller auth.Claims
	if mutual {
		if err := l.certificate(r.TLS); err != nil {
			return err
		}
	} else {
		var ok bool
		if path, ok = strings.CutPrefix(r.URL.Path, cmg.PrefixServerAuth+roleID); !ok {
			return cmg.Refuse(http.StatusForbidden, "CMGService_Not_Published", "no such route", nil)
		}
		var err error
		if caller, err = l.bearer(r, auth.TokenRegistration, auth.TokenDevice, auth.TokenSession); err != nil {
			return err
		}
	}
	return l.managementPoint(w, r, path, caller)
}

func (l *lab) certificate(cs *tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return cmg.Refuse(http.StatusForbidden, "CMGService_Client_Certificate_Required", "show a certificate", nil)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: l.anchors, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return cmg.Refuse(http.StatusForbidden, "CMGService_Certificate_Unknown_Issuer", "another issuer", err)
	}
	return nil
}

func (l *lab) bearer(r *http.Request, kinds ...auth.TokenKind) (auth.Claims, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return auth.Claims{}, cmg.Refuse(http.StatusUnauthorized, "CMGService_Authentication_Required", "show a token", nil)
	}
	c, err := l.tokens.Verify(token, l.now(), kinds...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && l.blocked[c.ID] {
		err = cmg.Refuse(http.StatusUnauthorized, "CMGService_Invalid_Token", "blocked", nil)
	}
	l.bearers = append(l.bearers, string(c.Kind))
	return c, err
}

func (l *lab) manifest(w http.ResponseWriter, r *http.Request) error {
	c, err := l.bearer(r, auth.TokenContent)
	if err != nil {
		return err
	}
	if err := l.asked("manifest"); err != nil {
		return err
	}
	b, err := l.locator.Locate(r.Context(), c.Packages[0], c.Expires)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// asked notes what was asked for and gives what the test wants refused.
func (l *lab) asked(what string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, what)
	return l.refuse(what)
}

// count tells how often something was asked for since the last forget.
func (l *lab) count(what string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.seen {
		if s == what {
			n++
		}
	}
	return n
}

func (l *lab) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen, l.bearers = nil, nil
}

func (l *lab) setRefuse(f func(what string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = f
}

var errNotForThisToken = cmg.Refuse(http.StatusForbidden, "CMGMP_Token_Kind", "not for this kind of token", nil)

func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return errors.New("marshal")
	}
	_, err = bytes.NewReader(b).WriteTo(w)
	return err
}
