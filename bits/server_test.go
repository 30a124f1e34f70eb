package bits

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A place is a Server on a folder behind a real listener, and what it has
// delivered.
type place struct {
	t   *testing.T
	dir string
	cfg Config

	busy      sync.RWMutex // held by requests: a process ends before the next one begins
	mu        sync.Mutex
	server    *Server
	delivered map[string]Upload
	calls     int
	fail      error // for Deliver
	ahead     time.Duration
	url       string
	client    *http.Client
}

func newPlace(t *testing.T, change ...func(*Config)) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir(), delivered: map[string]Upload{}}
	p.cfg = Config{Dir: filepath.Join(p.dir, "sessions"), Deliver: p.deliver, Now: func() time.Time {
		p.mu.Lock()
		defer p.mu.Unlock()
		return time.Now().Add(p.ahead)
	}}
	for _, f := range change {
		f(&p.cfg)
	}
	p.restart()
	s := httptest.NewServer(http.HandlerFunc(p.handle))
	tr := &http.Transport{}
	p.url, p.client = s.URL+"/CCM_Incoming/{1}", &http.Client{Transport: tr}
	t.Cleanup(func() { tr.CloseIdleConnections(); s.Close() })
	return p
}

// restart takes up the folder as a new process would.
func (p *place) restart() {
	p.t.Helper()
	p.busy.Lock()
	defer p.busy.Unlock()
	s, err := NewServer(p.cfg)
	if err != nil {
		p.t.Error(err) // also called by others than the test's goroutine
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = s
}

func (p *place) current() *Server {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server
}

func (p *place) deliver(_ context.Context, u Upload) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if p.fail != nil {
		return p.fail
	}
	if err := os.Rename(u.Path, filepath.Join(p.dir, u.ID)); err != nil && p.delivered[u.ID].ID == "" {
		return err
	}
	u.Path = filepath.Join(p.dir, u.ID)
	p.delivered[u.ID] = u
	return nil
}

func (p *place) handle(w http.ResponseWriter, r *http.Request) {
	from := Sender{Owner: r.Header.Get("Test-Owner"), Name: strings.TrimPrefix(r.URL.Path, "/CCM_Incoming/"), Inside: r.Header.Get("Test-Inside") != ""}
	p.busy.RLock()
	defer p.busy.RUnlock()
	if err := p.current().Serve(w, r, from); err != nil {
		var no *cmg.Refusal
		if errors.As(err, &no) {
			w.Header().Set("CMG-Refusal", no.Code)
		}
		http.Error(w, err.Error(), cmg.StatusOf(err))
	}
}

// send sends one packet by hand.
func (p *place) send(kind PacketType, session string, body []byte, pairs ...string) *http.Response {
	p.t.Helper()
	r, err := http.NewRequest(Method, p.url, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header = packetHeader(append([]string{HeaderPacketType, string(kind)}, pairs...)...)
	if session != "" {
		r.Header.Set(HeaderSession, session)
	}
	if kind == CreateSession {
		r.Header.Set(HeaderProtocols, Protocol)
	}
	resp, err := p.client.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.Header.Get(HeaderPacketType) != string(Ack) {
		p.t.Fatalf("%s: %s has no packet type", kind, resp.Status)
	}
	return resp
}

// begin creates a session.
func (p *place) begin(pairs ...string) string {
	p.t.Helper()
	r := p.send(CreateSession, "", nil, pairs...)
	wants(p.t, r, 200, "", "")
	if r.Header.Get(HeaderProtocol) != Protocol || r.Header.Get("Accept-Encoding") != "identity" {
		p.t.Fatalf("create: %v", r.Header)
	}
	return r.Header.Get(HeaderSession)
}

func (p *place) fragment(session string, first int, body []byte, total int, pairs ...string) *http.Response {
	p.t.Helper()
	at := Range{int64(first), int64(first + len(body) - 1), int64(total)}
	return p.send(Fragment, session, body, append([]string{"Content-Range", at.String()}, pairs...)...)
}

// wants checks an answer: its status, the next offset, the code of an error.
func wants(t *testing.T, r *http.Response, status int, next, code string) {
	t.Helper()
	h := r.Header
	if r.StatusCode != status || h.Get(HeaderReceived) != next || h.Get(HeaderErrorCode) != code || h.Get(HeaderError) != code {
		t.Fatalf("answer %d, next %q, error %q, want %d, %q, %q", r.StatusCode, h.Get(HeaderReceived), h.Get(HeaderErrorCode), status, next, code)
	}
	if (code != "") != (h.Get(HeaderErrorContext) != "") {
		t.Fatalf("error context %q with error %q", h.Get(HeaderErrorContext), code)
	}
}

// got checks that exactly these bytes were delivered.
func (p *place) got(session, owner string, want []byte) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	u, ok := p.delivered[key(session)]
	if !ok || u.Owner != owner || u.Name != "{1}" || u.Size != int64(len(want)) || u.SHA256 != sha256.Sum256(want) {
		p.t.Fatalf("delivered %+v of %s", u, session)
	}
	if b, err := os.ReadFile(u.Path); err != nil || !bytes.Equal(b, want) {
		p.t.Fatalf("%d bytes on disk, %v", len(b), err)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

func TestUpload(t *testing.T) {
	p := newPlace(t)
	file := noise(1000)
	wants(t, p.send(Ping, "", nil), 200, "", "")
	s := p.begin()
	wants(t, p.fragment(s, 1, file[1:10], 1000), 416, "0", "0x0")
	wants(t, p.fragment(s, 0, file[:400], 1000), 200, "400", "")
	wants(t, p.fragment(s, 0, file[:400], 1000), 200, "400", "")      // again, nothing new
	wants(t, p.fragment(s, 100, file[100:500], 1000), 200, "500", "") // only the tail is new
	wants(t, p.fragment(s, 700, file[700:800], 1000), 416, "500", "0x0")
	wants(t, p.fragment(s, 500, file[500:600], 1001), 400, "", "0x80070057")
	wants(t, p.send(CloseSession, s, nil), 400, "", "0x80070057")
	wants(t, p.fragment(strings.ToLower(s), 500, file[500:], 1000), 200, "1000", "")
	wants(t, p.fragment(s, 999, file[999:], 1000), 200, "1000", "")
	wants(t, p.send(CloseSession, s, nil), 200, "", "")
	p.got(s, "", file)
	wants(t, p.send(CloseSession, s, nil), 200, "", "") // did not hear it
	wants(t, p.fragment(s, 0, file[:10], 1000), 400, "", "0x80070057")
	if p.calls != 1 {
		t.Errorf("delivered %d times", p.calls)
	}
	if got := p.current().Status(); got != (Status{}) {
		t.Errorf("under way afterwards: %+v", got)
	}
	empty := p.begin()
	wants(t, p.send(CloseSession, empty, nil), 200, "", "")
	p.got(empty, "", nil)
	other := newPlace(t)
	r, err := http.NewRequest("POST", other.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := other.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	wants(t, resp, 400, "", "0x80070057")
}

func TestSessionsAreTheirOwners(t *testing.T) {
	p := newPlace(t, func(c *Config) { c.HostID = "mp1.inside" })
	a := p.begin("Test-Owner", "a")
	for name, r := range map[string]*http.Response{
		"another owner": p.fragment(a, 0, []byte("x"), 1, "Test-Owner", "b"),
		"close":         p.send(CloseSession, a, nil, "Test-Owner", "b"),
		"unknown":       p.fragment("{00000000-0000-0000-0000-000000000000}", 0, []byte("x"), 1, "Test-Owner", "a"),
		"a path":        p.fragment("../../etc/passwd", 0, []byte("x"), 1, "Test-Owner", "a"),
	} {
		t.Run(name, func(t *testing.T) { wants(t, r, 500, "", "0x8020001F") })
	}
	wants(t, p.send(CancelSession, a, nil, "Test-Owner", "b"), 200, "", "")
	wants(t, p.fragment(a, 0, []byte("x"), 2, "Test-Owner", "a"), 200, "1", "")
	wants(t, p.send(CancelSession, a, nil, "Test-Owner", "a"), 200, "", "")
	wants(t, p.fragment(a, 1, []byte("x"), 2, "Test-Owner", "a"), 500, "", "0x8020001F")
	if left, err := os.ReadDir(p.cfg.Dir); err != nil || len(left) != 0 {
		t.Errorf("left on disk: %v, %v", left, err)
	}
	if r := p.send(CreateSession, "", nil); r.Header.Get(HeaderHost) != "" {
		t.Errorf("a host name inside was told outside: %v", r.Header)
	}
	if r := p.send(CreateSession, "", nil, "Test-Inside", "1"); r.Header.Get(HeaderHost) != "mp1.inside" || r.Header.Get(HeaderHostFallback) != "600" {
		t.Errorf("inside: %v", r.Header)
	}
}

func TestLimits(t *testing.T) {
	p := newPlace(t, func(c *Config) {
		c.MaxSize, c.MaxFragment, c.MaxSessions, c.DeviceSessions, c.MaxBytes, c.DeviceBytes = 500, 100, 3, 2, 900, 600
	})
	a := p.begin("Test-Owner", "a")
	wants(t, p.fragment(a, 0, noise(10), 501, "Test-Owner", "a"), 500, "", "0x80200020")
	wants(t, p.fragment(a, 0, noise(101), 500, "Test-Owner", "a"), 413, "", "0x0")
	wants(t, p.fragment(a, 0, noise(100), 500, "Test-Owner", "a"), 200, "100", "")
	b := p.begin("Test-Owner", "a")
	wants(t, p.send(CreateSession, "", nil, "Test-Owner", "a"), 403, "", "0x80070718")
	wants(t, p.fragment(b, 0, noise(10), 101, "Test-Owner", "a"), 403, "", "0x80070718")
	wants(t, p.fragment(b, 0, noise(100), 100, "Test-Owner", "a"), 200, "100", "")
	c := p.begin("Test-Owner", "c")
	wants(t, p.send(CreateSession, "", nil, "Test-Owner", "d"), 503, "", "0x80070718")
	wants(t, p.fragment(c, 0, noise(10), 301, "Test-Owner", "c"), 503, "", "0x80070718")
	p.restart() // the count is what the folder says
	if got := p.current().Status(); got != (Status{Sessions: 3, Owners: 2, Bytes: 600}) {
		t.Fatalf("under way after a restart: %+v", got)
	}
	wants(t, p.send(CloseSession, b, nil, "Test-Owner", "a"), 200, "", "")
	p.begin("Test-Owner", "d")
	p.mu.Lock()
	p.ahead = 8 * 24 * time.Hour
	p.mu.Unlock()
	if err := p.current().Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants(t, p.fragment(a, 100, noise(10), 500, "Test-Owner", "a"), 500, "", "0x8020001F")
	wants(t, p.send(CloseSession, b, nil, "Test-Owner", "a"), 500, "", "0x8020001F")
	left, err := os.ReadDir(p.cfg.Dir)
	if err != nil || len(left) != 0 || p.current().Status() != (Status{}) {
		t.Errorf("left: %v, %+v, %v", left, p.current().Status(), err)
	}
}
