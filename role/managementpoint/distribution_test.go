package managementpoint

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/content"
)

// withPackage has the lab show a package LAB00001 with one file, tool.exe.
func withPackage(t *testing.T, dir string) (*blob.Disk, func(*Config)) {
	t.Helper()
	src := filepath.Join(dir, "src")
	err := errors.Join(os.MkdirAll(src, 0o755), os.WriteFile(filepath.Join(src, "tool.exe"), []byte("a tool"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	store := must(blob.NewDisk(blob.DiskConfig{Dir: filepath.Join(dir, "store")}))(t)
	t.Cleanup(func() { store.Close() })
	return store, func(c *Config) {
		m, d, err := content.Add(t.Context(), store, src, content.AddOptions{Package: "LAB00001", Version: 1})
		if err := errors.Join(err, c.Site.AddPackage(t.Context(), m, d)); err != nil {
			t.Fatal(err)
		}
		c.Distribution.Store = store
	}
}

func TestDistribution(t *testing.T) {
	_, change := withPackage(t, t.TempDir())
	l := newLab(t, change, func(c *Config) { c.Distribution.Library = true })
	a, pending := l.registered(), l.registered()
	if err := l.site.SetApproval(t.Context(), pending.id, cmg.Pending); err != nil {
		t.Fatal(err)
	}
	const path = "/SMS_DP_SMSPKG$/LAB00001/tool.exe"
	inside := l.client(l.gateway.Client())
	for name, test := range map[string]struct {
		call
		status int
		code   string
	}{
		"a session":           {call: call{path: path, caller: a.bySession()}},
		"a certificate":       {call: call{path: path, caller: byCertificate(a.id)}},
		"a nameless one":      {call: call{path: path, caller: byCertificate("")}},
		"signed headers":      {call: call{path: path, header: a.signedHeaders(l.now()), client: inside}},
		"published":           {call: call{path: "/CCM_Proxy_MutualAuth/72057594037927937" + path, caller: byCertificate("")}},
		"without case":        {call: call{path: "/ccm_proxy_serverauth/1" + strings.ToLower(path), caller: a.bySession()}},
		"as clients write it": {call: call{path: "/SMS_DP_SMSPKG$/LAB00001/sccm?/tool.exe", caller: a.bySession()}},
		"by token":            {call: call{path: "/CCMTOKENAUTH_SMS_DP_SMSPKG$/LAB00001/tool.exe", caller: a.bySession()}},
		"no certificate":      {call: call{path: "/NOCERT_SMS_DP_SMSPKG$/LAB00001/tool.exe", caller: a.bySession()}},

		"nobody":                {call{path: path, client: inside}, 401, "CMGMP_Proof_Required"},
		"the field's probe":     {call{path: "/sms_dp_smspkg$/f00d", client: inside}, 401, "CMGMP_Proof_Required"},
		"no token":              {call{path: "/CCMTOKENAUTH_SMS_DP_SMSPKG$/LAB00001/tool.exe", caller: byCertificate(a.id)}, 401, "CMGMP_Proof_Required"},
		"a device token":        {call{path: path, caller: a.byDeviceToken()}, 403, "CMGMP_Token_Kind"},
		"a registration one":    {call{path: path, caller: l.registrationToken("", 0)}, 403, "CMGMP_Token_Kind"},
		"not approved":          {call{path: path, caller: pending.bySession()}, 403, "CMGMP_Device_Not_Approved"},
		"not approved, signs":   {call{path: path, header: pending.signedHeaders(l.now()), client: inside}, 403, "CMGMP_Device_Not_Approved"},
		"another path":          {call{path: "/CCM_Proxy_MutualAuth/x" + path, caller: a.bySession()}, 404, "CMGMP_Path_Unknown"},
		"another endpoint":      {call{path: "/CCM_Proxy_MutualAuth/1/SMS_MP/.sms_aut?MPLIST", caller: a.bySession()}, 404, "CMGMP_Path_Unknown"},
		"a name that begins so": {call{path: "/SMS_DP_SMSPKG$X/LAB00001", caller: a.bySession()}, 404, "CMGMP_Path_Unknown"},
	} {
		test.method = "GET"
		resp, body, err := l.do(test.call)
		t.Run(name, func(t *testing.T) { refused(t, err, test.status, test.code) })
		if err == nil && (string(body) != "a tool" || resp.Header.Get("Cache-Control") == "no-store") {
			t.Errorf("%s: %q, %v", name, body, resp.Header)
		}
	}
	_, body, err := l.do(call{method: "PROPFIND", path: "/CCM_Proxy_ServerAuth/7/SMS_DP_SMSPKG$/", caller: a.bySession(), header: http.Header{"Depth": {"1"}}})
	if err != nil || !strings.Contains(string(body), "<D:href>/CCM_Proxy_ServerAuth/7/SMS_DP_SMSPKG$/LAB00001/</D:href>") {
		t.Errorf("%s, %v", body, err)
	}
}

func TestDistributionOpen(t *testing.T) {
	_, change := withPackage(t, t.TempDir())
	l := newLab(t, change, func(c *Config) { c.Distribution.Anonymous, c.Distribution.Listing = true, true })
	a := l.registered()
	inside := l.client(l.gateway.Client())
	for _, path := range []string{"/SMS_DP_SMSPKG$/LAB00001/tool.exe", "/NOCERT_SMS_DP_SMSPKG$/LAB00001/tool.exe"} {
		if _, body, err := l.do(call{method: "GET", path: path, client: inside}); err != nil || string(body) != "a tool" {
			t.Errorf("%s: %q, %v", path, body, err)
		}
	}
	_, _, err := l.do(call{method: "GET", path: "/sms_dp_smspkg$/f00d", client: inside})
	refused(t, err, 404, "CMGMP_Content_Unknown") // the field's sign of being open
	bad := a.signedHeaders(l.now())
	bad["Ccmclientidsignature"] = []string{"00"}
	_, _, err = l.do(call{method: "GET", path: "/SMS_DP_SMSPKG$/LAB00001/tool.exe", client: inside, header: bad})
	refused(t, err, 401, "CMGMP_Proof_Invalid") // a proof that is there and wrong
	host := http.Header{"X-Forwarded-Host": {"gw.example:8443"}}
	_, body, err := l.do(call{method: "GET", path: "/CCM_Proxy_ServerAuth/7/SMS_DP_SMSPKG$/LAB00001", caller: a.bySession(), header: host})
	if want := `6 <a href="http://gw.example:8443/CCM_Proxy_ServerAuth/7/SMS_DP_SMSPKG$/LAB00001/tool.exe">`; err != nil || !strings.Contains(string(body), want) {
		t.Errorf("%s, %v", body, err)
	}
	_, body, err = l.do(call{method: "GET", path: "/SMS_DP_SMSPKG$/LAB00001", client: inside, header: host})
	if err != nil || strings.Contains(string(body), "gw.example") {
		t.Errorf("somebody's host was believed: %s, %v", body, err)
	}
}

func TestDistributionOff(t *testing.T) {
	l := newLab(t)
	_, _, err := l.do(call{method: "GET", path: "/SMS_DP_SMSPKG$/LAB00001", caller: byCertificate("")})
	refused(t, err, 404, "CMGMP_Path_Unknown")
	_, _, err = l.do(call{method: "PUT", path: "/SMS_DP_SMSPKG$/LAB00001", caller: byCertificate("")})
	refused(t, err, 405, "CMGMP_Method_Not_Allowed")
}
