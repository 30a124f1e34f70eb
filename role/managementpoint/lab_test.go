package managementpoint

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
	"github.com/opencmg/cmg/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A lab is a site with its authorities and a management point that serves on
// a real port.
type lab struct {
	t         *testing.T
	dir       string
	authority *auth.Authority
	keyring   *auth.Keyring
	site      *site.Site
	point     *Point
	cfg       Config
	url       string
	status    string
	notify    string       // host:port, where Config.NotifyListen is set
	clock     atomic.Int64 // seconds the site's clock is ahead
	cp        *http.Client // a connection point's
	gateway   *auth.Identity
	logged    *syncBuffer
	plain     net.Listener // without TLS; nil: none
	end       func()
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (l *lab) now() time.Time { return time.Now().Add(time.Duration(l.clock.Load()) * time.Second) }

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newLab(t *testing.T, change ...func(*Config)) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir(), logged: &syncBuffer{}}
	l.authority = must(auth.NewAuthority("LAB site", 10*365*24*time.Hour))(t)
	l.keyring = must(auth.NewKeyring())(t)
	if err := l.keyring.Save(l.file("tokens.jwks")); err != nil {
		t.Fatal(err)
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.authority.Certificate().Raw})
	if err := os.WriteFile(l.file("root.pem"), root, 0o600); err != nil {
		t.Fatal(err)
	}
	l.site = must(site.Create(t.Context(), l.file("site.db"), site.Settings{Code: "LAB"}))(t)
	l.site.Now = l.now
	t.Cleanup(func() { l.site.Close() })

	l.identity(auth.CertRequest{Site: "LAB", Role: cmg.RoleSite, Name: "LAB", RSA: true})
	l.identity(auth.CertRequest{Site: "LAB", Role: cmg.RoleManagementPoint, Name: "mp1", DNS: []string{"mp1.inside"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Server: true})
	cp := l.identity(auth.CertRequest{Site: "LAB", Role: cmg.RoleConnectionPoint, Name: "cp1", Client: true})
	l.gateway = l.identity(auth.CertRequest{Site: "LAB", Role: cmg.RoleGateway, Name: "gw1", Server: true, Client: true})
	if err := l.site.RecordCertificate(t.Context(), cmg.RoleGateway, "gw1", l.gateway.Certificate()); err != nil {
		t.Fatal(err)
	}
	l.cfg = Config{
		Identity: l.files("management-point-mp1"), Signing: l.files("site-LAB"), TokenKeys: l.file("tokens.jwks"),
		Site: l.site, Now: l.now, Log: slog.New(slog.NewTextHandler(l.logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&l.cfg)
	}
	l.start()
	l.cp = l.client(cp.Client())
	return l
}

// start serves until end is called, or the test ends.
func (l *lab) start() {
	l.t.Helper()
	l.point = must(New(l.cfg))(l.t)
	ln := must(net.Listen("tcp", "127.0.0.1:0"))(l.t)
	status := must(net.Listen("tcp", "127.0.0.1:0"))(l.t)
	l.url, l.status = "https://"+ln.Addr().String(), "http://"+status.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var notify net.Listener
	if l.cfg.NotifyListen != "" {
		notify = must(net.Listen("tcp", l.cfg.NotifyListen))(l.t)
		l.notify = notify.Addr().String()
	}
	go func() { done <- l.point.run(ctx, ln, l.plain, status, notify) }()
	l.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			l.t.Error(err)
		}
	})
	l.t.Cleanup(l.end)
}

func (l *lab) file(name string) string { return filepath.Join(l.dir, name) }

func (l *lab) files(name string) auth.IdentityFiles {
	return auth.IdentityFiles{Certificate: l.file(name + ".crt"), Key: l.file(name + ".key"), Roots: l.file("root.pem")}
}

func (l *lab) identity(r auth.CertRequest) *auth.Identity {
	l.t.Helper()
	name := fmt.Sprintf("%s-%s", r.Role, r.Name)
	if err := must(l.authority.Issue(r))(l.t).Save(l.file(name+".crt"), l.file(name+".key")); err != nil {
		l.t.Fatal(err)
	}
	return must(auth.LoadIdentity(l.files(name)))(l.t)
}

func (l *lab) client(c *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	l.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// A call is a request as a connection point passes it on.
type call struct {
	method, path, body string
	header             http.Header
	caller             cmg.Caller // signed by the gateway, unless Proof is empty
	client             *http.Client
}

func (l *lab) do(c call) (*http.Response, []byte, error) {
	l.t.Helper()
	r := must(http.NewRequest(c.method, l.url+c.path, strings.NewReader(c.body)))(l.t)
	for k, v := range c.header {
		r.Header[k] = v
	}
	if c.caller.Proof != cmg.ProofNone {
		r.Header.Set(auth.CallerHeader, must(auth.NewCallerSigner(l.gateway).Sign(c.caller, l.now()))(l.t))
	}
	if c.client == nil {
		c.client = l.cp
	}
	resp, err := c.client.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := web.ReadAnswer(resp); err != nil {
		return resp, nil, err
	}
	return resp, must(io.ReadAll(resp.Body))(l.t), nil
}

// refused checks that err is the refusal with this status and code; an empty
// code means no refusal at all.
func refused(t *testing.T, err error, status int, code string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Fatalf("refused: %v", err)
		}
		return
	}
	r, ok := err.(*cmg.Refusal)
	if !ok || r.Code != code || r.Status != status {
		t.Fatalf("answer is %v, want %d %s", err, status, code)
	}
}

// An agent is a client's side of the conversation.
type agent struct {
	*lab
	cert        []byte
	key         *rsa.PrivateKey
	id          cmg.DeviceID
	deviceToken string
}

func (l *lab) newAgent() *agent {
	der, key, err := ccm.NewClientCertificate(l.now())
	if err != nil {
		l.t.Fatal(err)
	}
	return &agent{lab: l, cert: der, key: key}
}

func (a *agent) registration() string {
	return must(ccm.Registration{NetBIOSName: "PC1", FQDN: "pc1.example", AgentVersion: "0.1", Signing: a.cert, Time: a.now()}.XML(a.key))(a.t)
}

// message is a CCM_POST with the sending as its body.
func (a *agent) message(s ccm.Sending, by cmg.Caller) call {
	a.t.Helper()
	s.SourceHost, s.TargetHost = "PC1", "mp1.inside"
	if s.SentTime.IsZero() {
		s.SentTime = a.now()
	}
	contentType, body, err := s.Encode()
	if err != nil {
		a.t.Fatal(err)
	}
	return call{
		method: ccm.Method, path: "/ccm_system_tokenauth/request", body: string(body), caller: by,
		header: http.Header{"Content-Type": {contentType}},
	}
}

// send gives the text of the reply.
func (a *agent) send(s ccm.Sending, by cmg.Caller) (string, error) {
	a.t.Helper()
	resp, body, err := a.do(a.message(s, by))
	if err != nil {
		return "", err
	}
	m := must(ccm.ReadMessage(resp.Header.Get("Content-Type"), bytes.NewReader(body), ccm.Limits{}))(a.t)
	return m.Text()
}

func (a *agent) register(by cmg.Caller) error {
	text, err := a.send(ccm.Sending{TargetEndpoint: ccm.EndpointRegistration, Body: a.registration()}, by)
	if err != nil {
		return err
	}
	r := must(ccm.ReadRegistrationReply(text))(a.t)
	a.id, a.deviceToken = r.SMSID, r.DeviceToken
	return nil
}

// registered is an agent that registered with a registration token.
func (l *lab) registered() *agent {
	l.t.Helper()
	a := l.newAgent()
	if err := a.register(l.registrationToken("", 0)); err != nil {
		l.t.Fatal(err)
	}
	return a
}

// registrationToken records a token and gives the caller who shows it.
func (l *lab) registrationToken(id string, uses int) cmg.Caller {
	l.t.Helper()
	if id == "" {
		id = cmg.NewGUID()
	}
	t := site.Token{ID: id, Kind: "registration", NotBefore: l.now(), Expires: l.now().Add(time.Hour), MaxUses: uses}
	if err := l.site.RecordToken(l.t.Context(), t); err != nil {
		l.t.Fatal(err)
	}
	return cmg.Caller{Proof: cmg.ProofToken, TokenKind: "registration", TokenID: id, NotAfter: t.Expires}
}

func (a *agent) byDeviceToken() cmg.Caller {
	return cmg.Caller{Proof: cmg.ProofToken, TokenKind: "device", TokenID: "d-" + string(a.id), Device: a.id, NotAfter: a.now().Add(time.Hour)}
}

func (a *agent) bySession() cmg.Caller {
	return cmg.Caller{Proof: cmg.ProofToken, TokenKind: "session", TokenID: "s-" + string(a.id), Device: a.id, NotAfter: a.now().Add(time.Hour)}
}

func byCertificate(d cmg.DeviceID) cmg.Caller {
	return cmg.Caller{Proof: cmg.ProofCertificate, Device: d, Name: "CN=PC1", Thumbprint: strings.Repeat("ab", 32), NotAfter: time.Now().Add(time.Hour)}
}

// exchange asks for a session token with a ClientToken of that time.
func (a *agent) exchange(by cmg.Caller, at time.Time) (token string, expires time.Time, err error) {
	value := ccm.ClientToken(a.id, at)
	_, body, err := a.do(call{method: "POST", path: "/CCM_STS", caller: by, header: http.Header{
		http.CanonicalHeaderKey(ccm.HeaderClientToken):          {value},
		http.CanonicalHeaderKey(ccm.HeaderClientTokenSignature): {must(ccm.SignText(a.key, value))(a.t)},
	}})
	if err != nil {
		return "", expires, err
	}
	var reply struct {
		Token     string    `json:"token"`
		TokenType string    `json:"token_type"`
		Expires   time.Time `json:"expires"`
	}
	if err := json.Unmarshal(body, &reply); err != nil || reply.TokenType != "Bearer" {
		a.t.Fatalf("token reply %s: %v", body, err)
	}
	return reply.Token, reply.Expires, nil
}

// statusOf reads /status.
func (l *lab) statusOf() (s struct {
	Connections map[string]int64 `json:"connections"`
	Requests    map[string]int64 `json:"requests"`
	Refusals    map[string]int64 `json:"refusals"`
}) {
	l.t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr}).Get(l.status + "/status")
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		l.t.Fatal(err)
	}
	return s
}
