package managementpoint

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/site"
)

// What gateways ask their site is for nobody else, and not for what a client
// sends through one.
func TestInsideIsForGateways(t *testing.T) {
	l := newLab(t)
	digest := sha256.Sum256([]byte("list"))
	info := cmg.RevocationListInfo{Issuer: "ca", URL: "http://127.0.0.1:1/ca.crl", This: l.now(), Next: l.now().Add(time.Hour), Digest: digest}
	if err := l.site.FollowRevocation(t.Context(), "ca", info.URL, l.authority.Certificate()); err != nil {
		t.Fatal(err)
	}
	if err := l.site.PutRevocation(t.Context(), []site.RevocationResult{{Info: info, Document: []byte("list")}}); err != nil {
		t.Fatal(err)
	}
	revoked := cmg.InsideRevoked + "?sha256=" + cmg.Digest(digest).String()
	if _, body, err := l.do(call{method: "GET", path: revoked}); err != nil || string(body) != "list" {
		t.Errorf("%q, %v", body, err)
	}
	for _, path := range []string{revoked, cmg.InsideCertificate, cmg.InsideTenant + "?id=x"} {
		method := "POST"
		if path == revoked {
			method = "GET"
		}
		_, _, err := l.do(call{method: method, path: path, client: l.client(l.gateway.Client())})
		refused(t, err, 403, "CMGMP_Connection_Point_Required")
		_, _, err = l.do(call{method: method, path: path, caller: byCertificate("")})
		refused(t, err, 403, "CMGMP_Connection_Point_Required")
	}
	_, _, err := l.do(call{method: "GET", path: cmg.InsideRevoked + "?sha256=" + cmg.Digest{}.String()})
	refused(t, err, 404, "CMGMP_Revocation_List_Unknown")
	_, _, err = l.do(call{method: "GET", path: cmg.InsideRevoked + "?sha256=x"})
	refused(t, err, 400, "CMGMP_Bad_Request")
	_, _, err = l.do(call{method: "POST", path: cmg.InsideTenant + "?id=" + url.QueryEscape("' OR 1")})
	refused(t, err, 404, "CMGMP_Tenant_Unknown")
}

// A chain that no anchor stands above is not asked about: its addresses could
// be anybody's.
func TestOnlyTrustedChainsAreAskedAbout(t *testing.T) {
	l := newLab(t)
	ca := must(auth.NewAuthority("clients", 24*time.Hour))(t)
	leaf := must(ca.Issue(auth.CertRequest{Name: "pc", Client: true}))(t)
	ask := func(chain ...[]byte) (string, error) {
		b := must(json.Marshal(map[string]any{"chain": chain}))(t)
		_, body, err := l.do(call{method: "POST", path: cmg.InsideCertificate, body: string(b), header: http.Header{"Content-Type": {"application/json"}}})
		return string(body), err
	}
	own, root := leaf.Certificate.Raw, ca.Certificate().Raw
	_, err := ask(own, root)
	refused(t, err, 403, "CMGMP_Chain_Not_Trusted")
	if err := l.site.AddAnchor(t.Context(), must(os.ReadFile(l.file("root.pem")))(t)); err != nil {
		t.Fatal(err)
	}
	_, err = ask(own, l.authority.Certificate().Raw) // did not issue it
	refused(t, err, 403, "CMGMP_Chain_Not_Trusted")
	for _, bad := range [][][]byte{nil, {own}, {own, []byte("x")}, make([][]byte, 13)} {
		_, err = ask(bad...)
		refused(t, err, 400, "CMGMP_Bad_Request")
	}
	if err := ca.Save(l.file("ca.pem"), l.file("ca.key")); err != nil {
		t.Fatal(err)
	}
	if err := l.site.AddAnchor(t.Context(), must(os.ReadFile(l.file("ca.pem")))(t)); err != nil {
		t.Fatal(err)
	}
	text, err := ask(own, root)
	if err != nil {
		t.Fatal(err)
	}
	if err := new(auth.Answers).Take(l.gateway, text, l.now()); err != nil {
		t.Error(err)
	}
}
