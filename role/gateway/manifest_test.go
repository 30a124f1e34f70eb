package gateway

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/content"
	"github.com/opencmg/cmg/web"
)

// TestManifest asks where a package's files are: the content token decides,
// and the inside is not asked.
func TestManifest(t *testing.T) {
	t.Parallel()
	s, dir := getSite(t), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "setup.exe"), []byte("setup"), 0o600); err != nil {
		t.Fatal(err)
	}
	store := must[*blob.Disk](t)(blob.NewDisk(blob.DiskConfig{Dir: t.TempDir(), URL: "https://store.cmg.test:8444", Key: noise(32)}))
	_, digest, err := content.Add(t.Context(), store, dir, content.AddOptions{Package: "LAB00001", Version: 3, Name: "tools"})
	if err != nil {
		t.Fatal(err)
	}
	conf := s.config(t)
	conf.Links = store
	r := run(t, conf)
	in := r.connect("cp-1", echo)
	in.publish(s.publication(t, 1))
	grant := func(p cmg.PackageID, d cmg.Digest) string {
		return "Bearer " + must[string](t)(s.keys.Issue(auth.Claims{Kind: auth.TokenContent, Site: testSite, Device: deviceID, Expires: time.Now().Add(time.Hour),
			Packages: []cmg.PackageGrant{{Package: p, Version: 3, Manifest: d}}}))
	}
	good := grant("LAB00001", digest)
	for name, c := range map[string]struct {
		method, query, authorization string
		status                       int
		code                         string
	}{
		"granted":            {"GET", "?pid=lab00001&cid=3&tid=" + deviceID.GUID() + "&alg=ES256", good, 200, ""},
		"granted, no device": {"GET", "?pid=LAB00001&ver=3", good, 200, ""},
		"only the head":      {"HEAD", "?pid=LAB00001", good, 200, ""},
		"no token":           {"GET", "?pid=LAB00001", "", 401, "CMGService_Authentication_Required"},
		"session token":      {"GET", "?pid=LAB00001", "Bearer " + s.session(t), 401, "CMGService_Invalid_Token_Wrong_Kind"},
		"other package":      {"GET", "?pid=LAB00002", good, 403, "CMGService_Content_Not_Granted"},
		"other version":      {"GET", "?pid=LAB00001&ver=2", good, 403, "CMGService_Content_Not_Granted"},
		"other device":       {"GET", "?pid=LAB00001&tid=" + cmg.NewGUID(), good, 403, "CMGService_Content_Other_Device"},
		"no package":         {"GET", "", good, 400, "CMGService_Bad_Request"},
		"two packages":       {"GET", "?pid=LAB00001&pid=LAB00002", good, 400, "CMGService_Bad_Request"},
		"not in the store":   {"GET", "?pid=LAB00009", grant("LAB00009", digest), 404, content.CodeNotFound},
		"other bytes":        {"GET", "?pid=LAB00001", grant("LAB00001", cmg.Digest{1}), 409, content.CodeMismatch},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " h2=", h2), func(t *testing.T) {
				q := r.request(c.method, "/DownloadRestService.svc/getcontentxmlsecure"+c.query, nil)
				if c.authorization != "" {
					q.Header.Set("Authorization", c.authorization)
				}
				resp, body := do(t, r.client(nil, h2), q)
				if resp.StatusCode != c.status || resp.Header.Get(web.RefusalHeader) != c.code {
					t.Fatalf("%s %q, want %d %s", resp.Status, resp.Header.Get(web.RefusalHeader), c.status, c.code)
				}
				if c.status != 200 || c.method == "HEAD" {
					return
				}
				m, err := content.ReadManifest(bytes.NewReader(body))
				if err != nil || m.Manifest.Package != "LAB00001" || len(m.URLs) != 1 || resp.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%+v, %v, %v", m, err, resp.Header)
				}
			})
		}
	}
	if n := in.streams.Load(); n != 0 {
		t.Errorf("%d requests reached the inside", n)
	}
}
