package distribution

import (
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/content"
	"github.com/opencmg/cmg/web"
)

func TestRefused(t *testing.T) {
	closed := newShop(t, func(c *Config) { c.Library = false })
	s := newShop(t, nil)
	hash := strings.Repeat("A", 64)
	for name, test := range map[string]struct {
		shop         *shop
		method, path string
		body         string
		header       []string
		status       int
		code         string
	}{
		"no package":       {shop: s, path: "/LAB00009/x", status: 404, code: "CMGMP_Content_Unknown"},
		"no version":       {shop: s, path: "/LAB00001.3", status: 404, code: "CMGMP_Content_Unknown"},
		"no file":          {shop: s, path: "/LAB00001/nothing", status: 404, code: "CMGMP_Content_Unknown"},
		"half a name":      {shop: s, path: "/LAB00001/bin/tool", status: 404, code: "CMGMP_Content_Unknown"},
		"a way out":        {shop: s, path: "/LAB00001/sccm?/../../../etc/passwd", status: 404, code: "CMGMP_Content_Unknown"},
		"a bad query":      {shop: s, path: "/LAB00001/sccm?/%zz", status: 400, code: "CMGMP_Bad_Request"},
		"a long path":      {shop: s, path: "/LAB00001/" + strings.Repeat("x", 5000), status: 414, code: "CMGMP_Bad_Request"},
		"a folder":         {shop: s, path: "/LAB00001/bin", status: 403, code: "CMGMP_Listing_Off"},
		"no hash":          {shop: s, path: "/FileLib/AAAA/" + hash, status: 404, code: "CMGMP_Content_Unknown"},
		"nobody's hash":    {shop: s, path: "/FileLib/AAAA/" + hash + ".INI", status: 404, code: "CMGMP_Content_Unknown"},
		"the wrong folder": {shop: s, path: "/FileLib/AAAB/" + hash, status: 404, code: "CMGMP_Content_Unknown"},
		"no hex":           {shop: s, path: "/FileLib/XXXX", status: 404, code: "CMGMP_Content_Unknown"},
		"a manifest":       {shop: s, path: "/packages/LAB00001/1.json", status: 404, code: "CMGMP_Content_Unknown"},
		"no library":       {shop: closed, path: "/DataLib/LAB00001.1.INI", status: 404, code: "CMGMP_Content_Unknown"},
		"no list":          {shop: closed, method: "PROPFIND", path: "/", header: []string{"Depth", "1"}, status: 404, code: "CMGMP_Content_Unknown"},
		"all of the site":  {shop: s, method: "PROPFIND", path: "/", header: []string{"Depth", "infinity"}, status: 403, code: "CMGMP_Depth_Infinite"},
		"all of DataLib":   {shop: s, method: "PROPFIND", path: "/DataLib", status: 403, code: "CMGMP_Depth_Infinite"},
		"half deep":        {shop: s, method: "PROPFIND", path: "/LAB00001", header: []string{"Depth", "2"}, status: 400, code: "CMGMP_Bad_Request"},
		"no XML":           {shop: s, method: "PROPFIND", path: "/LAB00001", body: "hello", status: 400, code: "CMGMP_Bad_Request"},
		"a document type":  {shop: s, method: "PROPFIND", path: "/LAB00001", body: `<!DOCTYPE x [<!ENTITY a "b">]><propfind xmlns="DAV:"><allprop/></propfind>`, status: 400, code: "CMGMP_Bad_Request"},
		"a large question": {shop: s, method: "PROPFIND", path: "/LAB00001", body: strings.Repeat(" ", 70_000), status: 413, code: "CMGMP_Too_Large"},
		"writing":          {shop: s, method: "PUT", path: "/LAB00001/x", body: "x", status: 405, code: "CMGMP_Method_Not_Allowed"},
	} {
		if test.method == "" {
			test.method = "GET"
		}
		resp, body := test.shop.do(test.method, test.path, test.body, test.header...)
		if resp.StatusCode != test.status || resp.Header.Get(web.RefusalHeader) != test.code {
			t.Errorf("%s: %s %s, want %d %s", name, resp.Status, body, test.status, test.code)
		}
	}
	if resp, _ := s.do("OPTIONS", "/", ""); resp.Header.Get("DAV") != "1" || resp.Header.Get("Allow") != "GET, HEAD, OPTIONS, PROPFIND" {
		t.Errorf("OPTIONS: %v", resp.Header)
	}
	if resp, got := closed.do("GET", "/LAB00001/bin/tool.exe", ""); resp.StatusCode != 200 || got != "a tool" {
		t.Errorf("without a library: %s", resp.Status)
	}
	if _, err := New(Config{}); !errors.Is(err, cmg.ErrInvalid) {
		t.Errorf("no store: %v", err)
	}
}

// TestList is read as the field's programs read it: by the text in front of
// links that begin with http://.
func TestList(t *testing.T) {
	s := newShop(t, func(c *Config) { c.Listing = true })
	_, root := s.do("GET", "/Datalib/", "")
	for _, want := range []string{
		`&lt;dir&gt <a href="http://gw.example` + base + `/Datalib/LAB00001.2">LAB00001.2</a>`,
		`122 <a href="http://gw.example` + base + `/Datalib/LAB00001.2.INI">LAB00001.2.INI</a>`,
	} {
		if !strings.Contains(root, want) {
			t.Errorf("no %s in\n%s", want, root)
		}
	}
	_, bin := s.do("GET", "/LAB00001/bin", "")
	if want := `7 <a href="http://gw.example` + base + `/LAB00001/bin/l%C3%A4ng%20&amp;%20%C3%BC.txt">läng &amp; ü.txt</a>`; !strings.Contains(bin, want) {
		t.Errorf("no %s in\n%s", want, bin)
	}
}

// TestCorrupt: what is not what it should be does not arrive whole.
func TestCorrupt(t *testing.T) {
	s := newShop(t, nil)
	body := files["setup.exe"]
	name := filepath.Join(s.dir, "store", filepath.FromSlash(content.FileName(sha256.Sum256([]byte(body)))))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Get(s.base + "/LAB00001/setup.exe")
	if err == nil {
		got, readErr := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err = readErr; err == nil {
			t.Errorf("%d bytes arrived whole", len(got))
		}
	}
	if err := os.Truncate(name, 10); err != nil {
		t.Fatal(err)
	}
	if resp, _ := s.do("GET", "/LAB00001/setup.exe", ""); resp.StatusCode != 500 {
		t.Errorf("a shorter file: %s", resp.Status)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if resp, _ := s.do("GET", "/LAB00001/setup.exe", ""); resp.StatusCode != 404 {
		t.Errorf("no file: %s", resp.Status)
	}
}
