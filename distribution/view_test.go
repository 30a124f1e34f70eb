package distribution

import (
	"context"
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/content"
	"github.com/opencmg/cmg/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var added = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A shop is a View of real packages in a real store, behind a real listener.
type shop struct {
	t        *testing.T
	dir      string
	store    *blob.Disk
	packages []Package
	base     string // with host
	host     string
	client   *http.Client
}

const base = "/CCM_Proxy_ServerAuth/72057594037927937/SMS_DP_SMSPKG$"

var files = map[string]string{
	"setup.exe":                 strings.Repeat("MZ setup ", 1000),
	"bin/tool.exe":              "a tool",
	"bin/läng & ü.txt":          "umlauts",
	"bin/deep/er/file 100%.txt": "deep",
	"bin/deep/empty":            "",
	"doc/a+b#c.txt":             "a tool",
}

func newShop(t *testing.T, change func(*Config)) *shop {
	t.Helper()
	s := &shop{t: t, dir: t.TempDir()}
	var err error
	if s.store, err = blob.NewDisk(blob.DiskConfig{Dir: filepath.Join(s.dir, "store")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	s.add("LAB00001", 1, map[string]string{"old.txt": "old"})
	s.add("LAB00001", 2, files)
	s.add("LAB00002", 1, map[string]string{"bin/tool.exe": "a tool"})
	c := Config{Library: true, Store: s.store,
		Packages: func(context.Context) ([]Package, error) { return s.packages, nil },
		Package: func(_ context.Context, id cmg.PackageID, version int) (found Package, err error) {
			for _, p := range s.packages {
				if p.Package == id && (version == 0 || p.Version == version) {
					found = p
				}
			}
			if found.Version == 0 {
				err = cmg.ErrNotFound
			}
			return found, err
		}}
	if change != nil {
		change(&c)
	}
	v, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(web.Handler(nil, func(w http.ResponseWriter, r *http.Request) error {
		return v.Serve(w, r, Place{Base: base, Host: "gw.example"})
	}))
	s.host = server.URL
	s.base = server.URL + base
	tr := &http.Transport{}
	s.client = &http.Client{Transport: tr}
	t.Cleanup(func() { tr.CloseIdleConnections(); server.Close() })
	return s
}

func (s *shop) add(id cmg.PackageID, version int, files map[string]string) {
	s.t.Helper()
	dir := filepath.Join(s.dir, fmt.Sprintf("%s.%d", id, version))
	for name, body := range files {
		f := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(f), 0o755), os.WriteFile(f, []byte(body), 0o600)); err != nil {
			s.t.Fatal(err)
		}
	}
	m, d, err := content.Add(s.t.Context(), s.store, dir, content.AddOptions{Package: id, Version: version})
	if err != nil {
		s.t.Fatal(err)
	}
	s.packages = append(s.packages, Package{PackageGrant: cmg.PackageGrant{Package: m.Package, Version: version, Manifest: d}, Added: added.Add(time.Duration(version) * time.Hour)})
}

func (s *shop) do(method, path, body string, header ...string) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequest(method, s.base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(b)
}

type multistatus struct {
	XMLName   xml.Name `xml:"DAV: multistatus"`
	Responses []struct {
		Href      string `xml:"DAV: href"`
		Propstats []struct {
			Status string `xml:"DAV: status"`
			Prop   struct {
				All []struct {
					XMLName xml.Name
					Text    string    `xml:",chardata"`
					Folder  *struct{} `xml:"DAV: collection"`
				} `xml:",any"`
			} `xml:"DAV: prop"`
		} `xml:"DAV: propstat"`
	} `xml:"DAV: response"`
}

// find asks with PROPFIND and gives the properties, by path below base and
// name; those that are not there stand under "!" and their name.
func (s *shop) find(path, depth, body string) map[string]map[string]string {
	s.t.Helper()
	resp, text := s.do("PROPFIND", path, body, "Depth", depth)
	if resp.StatusCode != 207 || resp.Header.Get("Content-Type") != "application/xml; charset=utf-8" {
		s.t.Fatalf("PROPFIND %s: %s %s", path, resp.Status, text)
	}
	var m multistatus
	if err := xml.Unmarshal([]byte(text), &m); err != nil {
		s.t.Fatalf("%v\n%s", err, text)
	}
	got := map[string]map[string]string{}
	for _, r := range m.Responses {
		rel, ok := strings.CutPrefix(r.Href, base)
		if !ok || got[rel] != nil {
			s.t.Fatalf("href %s", r.Href)
		}
		got[rel] = map[string]string{}
		for _, ps := range r.Propstats {
			for _, p := range ps.Prop.All {
				name, text := p.XMLName.Local, p.Text
				if ps.Status != "HTTP/1.1 200 OK" {
					name = "!" + name
				}
				if p.Folder != nil {
					text = "collection"
				}
				got[rel][name] = text
			}
		}
	}
	return got
}

func paths(m map[string]map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

func TestFind(t *testing.T) {
	s := newShop(t, nil)
	later := added.Add(2 * time.Hour)
	when := later.Format(http.TimeFormat)
	for name, test := range map[string]struct {
		path, depth string
		want        []string
	}{
		"a package":           {"/LAB00001/", "0", []string{"/LAB00001/"}},
		"as it was written":   {"/lab00001", "0", []string{"/lab00001/"}},
		"its first folder":    {"/LAB00001", "1", []string{"/LAB00001/", "/LAB00001/bin/", "/LAB00001/doc/", "/LAB00001/setup.exe"}},
		"a version":           {"/LAB00001.1", "1", []string{"/LAB00001.1/", "/LAB00001.1/old.txt"}},
		"a folder":            {"/LAB00001/BIN", "1", []string{"/LAB00001/BIN/", "/LAB00001/BIN/deep/", "/LAB00001/BIN/l%C3%A4ng%20&%20%C3%BC.txt", "/LAB00001/BIN/tool.exe"}},
		"a file":              {"/LAB00001/bin/tool.exe", "infinity", []string{"/LAB00001/bin/tool.exe"}},
		"all of a package":    {"/LAB00001", "infinity", []string{"/LAB00001/", "/LAB00001/bin/", "/LAB00001/bin/deep/", "/LAB00001/bin/deep/empty", "/LAB00001/bin/deep/er/", "/LAB00001/bin/deep/er/file%20100%25.txt", "/LAB00001/bin/l%C3%A4ng%20&%20%C3%BC.txt", "/LAB00001/bin/tool.exe", "/LAB00001/doc/", "/LAB00001/doc/a+b%23c.txt", "/LAB00001/setup.exe"}},
		"no depth":            {"/LAB00001/doc", "", []string{"/LAB00001/doc/", "/LAB00001/doc/a+b%23c.txt"}},
		"as clients write it": {"/LAB00001/sccm?/bin/deep/er", "1", []string{"/LAB00001/bin/deep/er/", "/LAB00001/bin/deep/er/file%20100%25.txt"}},
		"the root":            {"/", "1", []string{"/", "/DataLib/", "/FileLib/", "/LAB00001/", "/LAB00002/", "/PkgLib/"}},
		"DataLib":             {"/Datalib", "1", []string{"/Datalib/", "/Datalib/LAB00001.1.INI", "/Datalib/LAB00001.1/", "/Datalib/LAB00001.2.INI", "/Datalib/LAB00001.2/", "/Datalib/LAB00002.1.INI", "/Datalib/LAB00002.1/"}},
		"pointers":            {"/DataLib/LAB00002.1", "infinity", []string{"/DataLib/LAB00002.1/", "/DataLib/LAB00002.1/bin/", "/DataLib/LAB00002.1/bin/tool.exe.INI"}},
		"PkgLib":              {"/PkgLib", "1", []string{"/PkgLib/", "/PkgLib/LAB00001.INI", "/PkgLib/LAB00002.INI"}},
	} {
		if d := cmp.Diff(test.want, paths(s.find(test.path, test.depth, ""))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	tool := sha256.Sum256([]byte("a tool"))
	all := s.find("/LAB00001/bin/tool.exe", "0", `<?xml version="1.0"?><propfind xmlns="DAV:"><allprop/></propfind>`)["/LAB00001/bin/tool.exe"]
	if d := cmp.Diff(map[string]string{"displayname": "tool.exe", "resourcetype": "", "getcontentlength": "6", "getcontenttype": "application/octet-stream",
		"getetag": fmt.Sprintf(`"%X"`, tool), "getlastmodified": when, "creationdate": "2026-03-01T14:00:00Z"}, all); d != "" {
		t.Error(d)
	}
	some := s.find("/LAB00001", "0", `<D:propfind xmlns:D="DAV:" xmlns:o="urn:other"><D:prop><D:getcontentlength/><D:resourcetype/><o:thing/></D:prop></D:propfind>`)["/LAB00001/"]
	if d := cmp.Diff(map[string]string{"!getcontentlength": "", "resourcetype": "collection", "!thing": ""}, some); d != "" {
		t.Error(d)
	}
	names := s.find("/LAB00001", "0", `<propfind xmlns="DAV:"><propname/></propfind>`)["/LAB00001/"]
	if d := cmp.Diff(map[string]string{"displayname": "", "resourcetype": "", "getlastmodified": "", "creationdate": ""}, names); d != "" {
		t.Error(d)
	}
}

func TestGet(t *testing.T) {
	s := newShop(t, nil)
	setup := files["setup.exe"]
	sum := func(b string) string { return fmt.Sprintf("%X", sha256.Sum256([]byte(b))) }
	for path, want := range map[string]string{
		"/LAB00001/setup.exe":                                                           setup,
		"/lab00001.2/SETUP.exe":                                                         setup,
		"/LAB00001/sccm?/setup.exe":                                                     setup,
		"/LAB00001/SCCM?/bin/deep/er/file%20100%25.txt":                                 "deep",
		"/LAB00001/bin/sccm?/tool.exe":                                                  "a tool",
		"/LAB00001/bin/l%C3%A4ng%20&%20%C3%BC.txt":                                      "umlauts",
		"/LAB00001/bin/deep/empty":                                                      "",
		"/FileLib/" + sum("a tool")[:4] + "/" + sum("a tool"):                           "a tool",
		"/FileLib/" + sum("a tool")[:4] + "/" + strings.ToLower(sum("a tool")) + ".INI": "[Users]\r\nLAB00001.2=\r\nLAB00002.1=\r\n",
		"/PkgLib/LAB00001.INI":                                                          "[Packages]\r\nLAB00001.1=\r\nLAB00001.2=\r\n",
		"/Datalib/LAB00002.1/bin/tool.exe.INI":                                          "[File]\r\nSize=6\r\nTimeModified=134168436000000000\r\nHash=" + sum("a tool") + "\r\n",
	} {
		if resp, got := s.do("GET", path, ""); resp.StatusCode != 200 || got != want || resp.ContentLength != int64(len(want)) {
			t.Errorf("%s: %s, %.200q, want %.200q", path, resp.Status, got, want)
		}
		if resp, got := s.do("HEAD", path, ""); resp.StatusCode != 200 || got != "" || resp.ContentLength != int64(len(want)) {
			t.Errorf("HEAD %s: %s, %d bytes, %q", path, resp.Status, resp.ContentLength, got)
		}
	}
	if _, got := s.do("GET", "/DataLib/LAB00001.2.INI", ""); !strings.Contains(got, "Hash="+s.packages[1].Manifest.String()+"\r\n") {
		t.Errorf("pointer to a version: %q", got)
	}
	resp, _ := s.do("HEAD", "/LAB00001/setup.exe", "")
	etag, when := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
	if etag != `"`+sum(setup)+`"` || when != "Sun, 01 Mar 2026 14:00:00 GMT" {
		t.Errorf("ETag %s, Last-Modified %s", etag, when)
	}
	for name, test := range map[string]struct {
		header []string
		status int
		want   string
	}{
		"a range":          {[]string{"Range", "bytes=5-20"}, 206, setup[5:21]},
		"the rest":         {[]string{"Range", "bytes=8990-"}, 206, setup[8990:]},
		"the end":          {[]string{"Range", "bytes=-7"}, 206, setup[len(setup)-7:]},
		"past the end":     {[]string{"Range", "bytes=9000-"}, 416, ""},
		"if the same":      {[]string{"Range", "bytes=0-1", "If-Range", etag}, 206, setup[:2]},
		"if another":       {[]string{"Range", "bytes=0-1", "If-Range", `"x"`}, 200, setup},
		"unchanged":        {[]string{"If-None-Match", etag}, 304, ""},
		"unchanged since":  {[]string{"If-Modified-Since", when}, 304, ""},
		"too many ranges":  {[]string{"Range", "bytes=0-1" + strings.Repeat(",3-4", 40)}, 200, setup},
		"not what we have": {[]string{"If-Match", `"x"`}, 412, ""},
	} {
		if resp, got := s.do("GET", "/LAB00001/setup.exe", "", test.header...); resp.StatusCode != test.status || test.want != "" && got != test.want {
			t.Errorf("%s: %s, %d bytes", name, resp.Status, len(got))
		}
	}
}
