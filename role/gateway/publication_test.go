package gateway

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// TestPublication takes what is newer and refuses everything else, whatever
// is wrong with it; what was taken last goes on to hold.
func TestPublication(t *testing.T) {
	t.Parallel()
	s := getSite(t)
	route := func(prefix string) cmg.Route {
		return cmg.Route{Prefix: prefix, Methods: []string{"GET"}, Proofs: []cmg.Proof{cmg.ProofCertificate}, Name: "more"}
	}
	r := run(t, s.config(t))
	in := r.connect("cp-1", echo)
	c := r.client(&s.device, false)
	status := func(path string) string {
		t.Helper()
		resp, _ := do(t, c, r.request("GET", path, nil))
		return resp.Header.Get(web.RefusalHeader)
	}
	signed := func(id *auth.Identity, change func(*cmg.Publication)) []byte {
		p := s.content(9, route("/nine"))
		change(&p)
		return []byte(must[string](t)(auth.SignPublication(id, p)))
	}
	same := func(*cmg.Publication) {}

	version, doc := s.publication(t, 5, route("/five"))
	if problem := in.publish(version, doc); problem != "" || status("/five/x") != "" {
		t.Fatalf("the first one: %q", problem)
	}
	tampered := signed(s.signer, same)
	tampered[len(tampered)/2] ^= 1
	for name, p := range map[string]struct {
		version uint64
		doc     []byte
	}{
		"older":                 {4, signed(s.signer, func(p *cmg.Publication) { p.Version = 4 })},
		"older, called newer":   {9, signed(s.signer, func(p *cmg.Publication) { p.Version = 4 })},
		"newer, called older":   {4, signed(s.signer, same)},
		"other version":         {10, signed(s.signer, same)},
		"wrong signer":          {9, signed(s.stranger, same)},
		"tampered":              {9, tampered},
		"not signed":            {9, must[[]byte](t)(json.Marshal(s.content(9)))},
		"empty":                 {9, nil},
		"route not in its form": {9, signed(s.signer, func(p *cmg.Publication) { p.Routes[0].Prefix = "/a;b/\x7f" })},
		"anchor that is none":   {9, signed(s.signer, func(p *cmg.Publication) { p.Anchors[0] = "nothing" })},
		"key that is none":      {9, signed(s.signer, func(p *cmg.Publication) { p.Keys[0] = json.RawMessage(`{"kty":"oct","k":"AAAA","kid":"1"}`) })},
	} {
		if problem := in.publish(p.version, p.doc); problem == "" {
			t.Errorf("%s: it was taken", name)
		}
		if status("/five/x") != "" || status("/nine/x") != "CMGService_Not_Published" || r.gw.version() != 5 {
			t.Errorf("%s: version %d holds", name, r.gw.version())
		}
	}
	if problem := in.publish(9, signed(s.signer, same)); problem != "" || status("/nine/x") != "" || status("/five/x") != "CMGService_Not_Published" {
		t.Errorf("a newer one: %q", problem)
	}
	if problem := in.publish(9, nil); problem != "" {
		t.Errorf("the same again, of another connection point: %q", problem)
	}
	if other := r.connect("cp-2", echo); other.s.PeerVersion() != 9 {
		t.Errorf("the next connection point was told version %d", other.s.PeerVersion())
	}
}

// TestPublicationLives restarts a gateway with its folder and without a
// connection point: it knows its routes and whom to refuse.
func TestPublicationLives(t *testing.T) {
	t.Parallel()
	conf := getSite(t).config(t)
	first := run(t, conf)
	in := first.connect("cp-1", echo)
	if problem := in.publish(first.site.publication(t, 7)); problem != "" {
		t.Fatal(problem)
	}
	first.end()

	quick := func(g *Gateway) { g.limits.point = 50_000_000 }
	second := run(t, conf, quick)
	c := second.client(&second.site.device, false)
	for path, want := range map[string]string{
		mutual + "/SMS_MP/.sms_aut?MPLIST": "503 CMGService_NoConnectionPoint",
		server + "/SMS_MP/.sms_aut?MPLIST": "401 CMGService_Authentication_Required",
		"/elsewhere":                       "403 CMGService_Not_Published",
	} {
		if resp, _ := do(t, c, second.request("GET", path, nil)); resp.Status != want {
			t.Errorf("%s: %s, want %s", path, resp.Status, want)
		}
	}
	if in := second.connect("cp-1", echo); in.s.PeerVersion() != 7 {
		t.Errorf("it says that it has version %d", in.s.PeerVersion())
	}
	second.end()

	file := filepath.Join(conf.StateDir, publicationFile)
	left := must[[]os.DirEntry](t)(os.ReadDir(conf.StateDir))
	if len(left) != 1 {
		t.Errorf("in the folder: %v", left)
	}
	doc := must[[]byte](t)(os.ReadFile(file))
	if err := os.WriteFile(file, doc[:len(doc)-10], 0o600); err != nil { // as a bad disk would
		t.Fatal(err)
	}
	third := run(t, conf, quick)
	if resp, _ := do(t, third.client(nil, false), third.request("GET", "/any/x", nil)); resp.Status != "503 CMGService_Not_Ready" {
		t.Errorf("with half a publication: %s", resp.Status)
	}
	third.connect("cp-1", echo).publish(third.site.publication(t, 6)) // it knows of none: any is newer
	if resp, _ := do(t, third.client(&third.site.device, true), third.request("GET", "/any/x", nil)); resp.StatusCode != 200 {
		t.Errorf("after a new one: %s", resp.Status)
	}
}

// TestStatus reads what the lab and administrators read.
func TestStatus(t *testing.T) {
	t.Parallel()
	conf := getSite(t).config(t)
	r := run(t, conf)
	get := func(path string) (int, map[string]any) {
		w := newRecorder()
		r.gw.health.Handler().ServeHTTP(w, must[*http.Request](t)(http.NewRequest("GET", path, nil)))
		var v map[string]any
		if err := json.Unmarshal(w.b.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		return w.status, v
	}
	if status, v := get("/readyz"); status != 503 || len(v["reasons"].(map[string]any)) != 2 {
		t.Errorf("alone: %d %v", status, v)
	}
	in := r.connect("cp-1", echo)
	in.publish(r.site.publication(t, 3))
	if status, v := get("/readyz"); status != 200 {
		t.Errorf("with a connection point: %d %v", status, v)
	}
	c := r.client(&r.site.device, false)
	do(t, c, r.request("GET", "/any/x", nil))
	do(t, c, r.request("GET", "/nowhere", nil))
	_, v := get("/status")
	point := v["connection_points"].(map[string]any)["cp-1"].(map[string]any)
	if v["name"] != "gw-1" || v["requests"] != 2.0 || point["channels"] != 1.0 || point["requests"] != 1.0 ||
		v["publication"].(map[string]any)["version"] != 3.0 || v["refusals"].(map[string]any)["CMGService_Not_Published"] != 1.0 {
		t.Errorf("status: %v", v)
	}
	in.kill()
	eventually(t, "it is not ready", func() bool { status, _ := get("/readyz"); return status == 503 })
}

// TestNew refuses what cannot work, and says why.
func TestNew(t *testing.T) {
	t.Parallel()
	good := getSite(t).config(t)
	for name, c := range map[string]struct {
		change func(*Config)
		says   string
	}{
		"no identity":       {func(c *Config) { c.Identity.Key = "" }, "key"},
		"a server's":        {func(c *Config) { c.Identity.Certificate, c.Identity.Key = c.Certificate, c.Key }, "role name"},
		"keys exchanged":    {func(c *Config) { c.Key = c.Identity.Key }, "does not serve for"},
		"no state_dir":      {func(c *Config) { c.StateDir = "" }, "state_dir"},
		"front for clients": {func(c *Config) { c.Certificate, c.Key = c.Identity.Certificate, c.Identity.Key }, "names no host"},
	} {
		conf := good
		c.change(&conf)
		if _, err := New(conf); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
