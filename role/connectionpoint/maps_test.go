package connectionpoint

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
)

// A managementPoint plays one, as far as maps go.
type managementPoint struct {
	t    testing.TB
	addr string
	srv  *http.Server
	done chan error

	mu     sync.Mutex
	doc    []byte
	status int // instead of the map, if not 0
	whole  int // how often the map was sent
	same   int // how often it was said to be the same
}

func serveMap(t testing.TB, doc []byte) *managementPoint {
	m := &managementPoint{t: t, doc: doc, addr: "127.0.0.1:0"}
	m.open()
	t.Cleanup(func() { m.close() })
	return m
}

func (m *managementPoint) open() {
	ln := must[net.Listener](m.t)(net.Listen("tcp", m.addr))
	m.addr = ln.Addr().String()
	m.srv = &http.Server{Handler: m, TLSConfig: getSite(m.t).inner.Server(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	m.done = make(chan error, 1)
	go func() { m.done <- m.srv.ServeTLS(ln, "", "") }()
}

func (m *managementPoint) close() {
	if m.srv != nil {
		m.srv.Close()
		<-m.done
	}
	m.srv = nil
}

func (m *managementPoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.URL.Path == "/cmg/v1/tickets" { // as a site of an earlier release
		http.NotFound(w, r)
		return
	}
	if who, ok := auth.PeerRole(r.TLS); !ok || who.Role != cmg.RoleConnectionPoint || r.URL.Path != "/cmg/v1/map" || r.Method != "GET" {
		m.t.Errorf("%s %s of %v", r.Method, r.URL, who)
	}
	if m.status != 0 {
		http.Error(w, "not now", m.status)
		return
	}
	etag := fmt.Sprintf(`"%x"`, sha256.Sum256(m.doc))
	w.Header().Set("ETag", etag)
	if r.Header.Get("If-None-Match") == etag {
		m.same++
		w.WriteHeader(304)
		return
	}
	m.whole++
	w.Write(m.doc)
}

func (m *managementPoint) set(status int, doc []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status, m.doc = status, doc
}

func (m *managementPoint) counts() (whole, same int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.whole, m.same
}

func TestMapFetched(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	a, b := server(t, echo).URL, server(t, echo).URL
	mp := serveMap(t, s.document(t, s.signer, 1, "/pub", a))
	g := listen(t)
	conf := s.config(t, g.addr)
	conf.Map = "https://" + mp.addr
	r := run(t, conf)
	g.up(1)
	leads := func(to string) bool { return "http://"+g.do("GET", "/pub", nil).fields.Get("X-Host") == to }
	if !leads(a) {
		t.Error("the first map does not hold")
	}
	eventually(t, "it is the same for a while", func() bool { _, same := mp.counts(); return same > 3 })
	if whole, _ := mp.counts(); whole != 1 {
		t.Errorf("an unchanged map was sent %d times", whole)
	}
	state := func() string { return r.p.maps.status().(map[string]any)["state"].(string) }
	for name, bad := range map[string]struct {
		status int
		doc    []byte
	}{
		"not there":         {503, nil},
		"forbidden":         {403, nil},
		"not JSON":          {0, []byte("{")},
		"not signed":        {0, []byte(`{"publication":"x.y.z","mappings":[]}`)},
		"wrong signer":      {0, s.document(t, s.stranger, 2, "/pub", b)},
		"bad target":        {0, s.document(t, s.signer, 2, "/pub", b, "/more", "ftp://x")},
		"bad prefix":        {0, s.document(t, s.signer, 2, "pub", b)},
		"target with climb": {0, s.document(t, s.signer, 2, "/pub", b+"/../x")},
		"endless":           {0, bytes.Repeat([]byte(" "), maxMap+2)},
	} {
		mp.set(bad.status, bad.doc)
		eventually(t, name+" is noticed", func() bool { return state() != "ok" })
		if !leads(a) {
			t.Errorf("%s: the old map does not hold", name)
		}
		mp.set(0, s.document(t, s.signer, 1, "/pub", a))
		eventually(t, "it is well again", func() bool { return state() == "ok" })
	}
	mp.set(0, s.document(t, s.signer, 2, "/pub", b))
	eventually(t, "the new map holds", func() bool { return leads(b) })
	eventually(t, "the gateway has it", func() bool { return slices.Equal(g.heard(), []uint64{1, 2}) })
}

// TestMapKept restarts a connection point with its folder while its site is
// away.
func TestMapKept(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	a, b := server(t, echo).URL, server(t, echo).URL
	mp := serveMap(t, s.document(t, s.signer, 4, "/pub", a))
	g := listen(t)
	conf := s.config(t, g.addr)
	conf.Map = "https://" + mp.addr
	first := run(t, conf)
	g.up(1)
	eventually(t, "the map is kept", func() bool {
		_, err := os.Stat(filepath.Join(conf.StateDir, mapFile))
		return err == nil
	})
	first.end()
	mp.close()
	g.up(0)

	second := run(t, conf)
	g.up(1)
	if got := g.do("GET", "/pub/x", nil); got.status != 200 {
		t.Errorf("with the site away: %+v", got)
	}
	mp.set(0, s.document(t, s.signer, 5, "/pub", b))
	mp.open()
	eventually(t, "the site's new map holds", func() bool { return "http://"+g.do("GET", "/pub", nil).fields.Get("X-Host") == b })
	second.end()
	g.up(0)
	if left := must[[]os.DirEntry](t)(os.ReadDir(conf.StateDir)); len(left) != 1 {
		t.Errorf("in the folder: %v", left)
	}

	if err := os.WriteFile(filepath.Join(conf.StateDir, mapFile), []byte(`{"publication":`), 0o600); err != nil { // as a bad disk would
		t.Fatal(err)
	}
	run(t, conf)
	g.up(1)
	if got := g.do("GET", "/pub/x", nil); got.status != 200 {
		t.Errorf("after half a map: %+v", got)
	}
}

// TestNoMap turns requests away as long as nothing is known.
func TestNoMap(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	g := listen(t)
	conf := s.config(t, g.addr)
	good := must[[]byte](t)(os.ReadFile(conf.Map))
	conf.Map += ".later"
	p := must[*Point](t)(New(conf))
	r := &running{t: t, p: p, done: make(chan struct{})}
	r.launch()
	g.up(1)
	if e := failure(t, "without a map", g.do("POST", "/pub", []byte("x")), channel.CodeUnreachable); !e.Untouched {
		t.Error("it may have been touched")
	}
	if err := os.WriteFile(conf.Map, good, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	eventually(t, "the file is read", func() bool { return p.maps.table.Load() != nil })
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	eventually(t, "the gateway has it", func() bool { return slices.Equal(g.heard(), []uint64{1}) })
}
