package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// makeCompany makes the authorities and clients of the story.
func makeCompany(t *testing.T) *pki {
	p := newPKI(t)
	ocsp := freePort(t)
	const client, server = "extendedKeyUsage=clientAuth\n", "extendedKeyUsage=serverAuth\n"
	p.root("root")
	p.root("foreign")
	p.authority("root", "issuing", keyEC, p.where("root"))
	p.authority("root", "hidden", keyRSA, p.where("root"))
	p.authority("root", "asked", keyRSA, "")
	p.authority("root", "lost", keyEC, "")
	p.authority("root", "ldap", keyEC, "")
	p.client("issuing", "rsa", keyRSA, client+p.where("issuing")+"subjectAltName=DNS:pc7.example.com\n")
	p.client("issuing", "ec", keyEC, client+p.where("issuing"))
	p.client("issuing", "anyuse", keyEC, p.where("issuing"))
	p.client("issuing", "revoked", keyEC, client+p.where("issuing"))
	p.client("issuing", "later", keyEC, client+p.where("issuing"))
	p.client("issuing", "server", keyEC, server+p.where("issuing"))
	p.client("issuing", "expired", keyEC, client, "-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
	p.client("issuing", "future", keyEC, client, "-startdate", time.Now().Add(48*time.Hour).UTC().Format("20060102150405Z"), "-enddate", "20490101000000Z")
	p.client("root", "sha1", keyRSA, client, "-days", "30", "-md", "sha1")
	p.client("issuing", "short", keyWeak, client)
	p.client("hidden", "inner", keyRSA, client)
	p.client("foreign", "stranger", keyRSA, client)
	p.client("asked", "asked-good", keyEC, client+"authorityInfoAccess=OCSP;URI:http://127.0.0.1:"+ocsp+"\n")
	p.client("asked", "asked-revoked", keyEC, client+"authorityInfoAccess=OCSP;URI:http://127.0.0.1:"+ocsp+"\n")
	p.client("lost", "unreachable", keyEC, client+"crlDistributionPoints=URI:http://127.0.0.1:1/lost.crl\n")
	p.client("ldap", "directory", keyEC, client+"crlDistributionPoints=URI:ldap:///CN=ldap\n")
	p.revoke("issuing", "revoked")
	p.revoke("asked", "asked-revoked")
	for _, ca := range []string{"root", "issuing"} {
		p.publish(ca)
	}
	p.responder("asked", ocsp)
	return p
}

// TestCertificates shows every good and bad client certificate to the gateway
// by curl, and reads its answer off the status line.
func TestCertificates(t *testing.T) {
	needs(t, "curl", "openssl", "bash")
	p := makeCompany(t)
	// So that curl shows what is too weak for it.
	p.write("weak.cnf", "openssl_conf=a\n[a]\nssl_conf=b\n[b]\nsystem_default=c\n[c]\nCipherString=DEFAULT@SECLEVEL=0\n")
	t.Setenv("OPENSSL_CONF", p.file("weak.cnf"))
	l := startLab(t)
	site := l.env["CMG_SITE"]
	must(t, "trust", "add", "--site", site, p.bundle("anchors.pem", "root", "issuing", "asked", "lost", "ldap"))
	l.awaitPublication(t, site)

	cert := func(name string, above ...string) string {
		file := p.bundle(strings.Join(append([]string{name}, above...), "-")+".chain", append([]string{name}, above...)...)
		return " --cert " + file + " --key " + p.file(name+".key") + ` "$CMG_URL$CMG_MP_MUTUAL/SMS_MP/.sms_aut?MPLIST" `
	}
	const ok = "200 "
	for _, c := range []struct{ name, args, status string }{
		{"RSA", cert("rsa"), ok},
		{"ECDSA", cert("ec"), ok},
		{"again, from memory", cert("ec"), ok},
		{"no usage named", cert("anyuse"), ok},
		// In this order: a gateway that has seen the intermediate remembers
		// what it proved.
		{"missing intermediate", cert("inner"), "403 CMGService_Certificate_Unknown_Issuer"},
		{"sends its intermediate", cert("inner", "hidden"), ok},
		{"unknown issuer", cert("stranger"), "403 CMGService_Certificate_Unknown_Issuer"},
		{"unknown root", cert("stranger", "foreign"), "403 CMGService_Certificate_Unknown_Root"},
		{"vouches for itself", cert("foreign"), "403 CMGService_Certificate_Unknown_Root"},
		{"wrong usage", cert("server"), "403 CMGService_Certificate_Wrong_Usage"},
		{"expired", cert("expired"), "403 CMGService_Certificate_Expired"},
		{"not yet valid", cert("future"), "403 CMGService_Certificate_Not_Yet_Valid"},
		{"weak signature", cert("sha1"), "403 CMGService_Certificate_Weak"},
		{"weak key", cert("short"), "403 CMGService_Certificate_Weak"},
		{"revoked in a list", cert("revoked"), "403 CMGService_Certificate_Revoked"},
		{"good by a responder", cert("asked-good"), ok},
		{"revoked by a responder", cert("asked-revoked"), "403 CMGService_Certificate_Revoked"},
		{"its list is away", cert("unreachable"), "403 CMGService_Certificate_Revocation_Unknown"},
		{"its list is in a directory", cert("directory"), "403 CMGService_Certificate_Revocation_Unknown"},
		{"none", ` "$CMG_URL$CMG_MP_MUTUAL/SMS_MP/.sms_aut?MPLIST" `, "403 CMGService_Client_Certificate_Required"},
		{"metadata for a browser", ` "$CMG_URL/CCM_Proxy_MutualAuth/ServiceMetadata" `, ok},
		{"metadata with a revoked one", strings.Replace(cert("revoked"), "$CMG_MP_MUTUAL/SMS_MP/.sms_aut?MPLIST", "/CCM_Proxy_MutualAuth/ServiceMetadata", 1), "403 CMGService_Certificate_Revoked"},
	} {
		t.Run(c.name, func(t *testing.T) { l.wantStatus(t, c.args, c.status) })
	}
	t.Run("metadata", func(t *testing.T) {
		_, body := l.curl(t, strings.Replace(cert("ec"), "$CMG_MP_MUTUAL/SMS_MP/.sms_aut?MPLIST", "/ccm_proxy_mutualauth/servicemetadata", 1))
		var m struct {
			SiteCode, Proof  string
			ManagementPoints []struct{ MutualAuthPath string }
		}
		if err := json.Unmarshal([]byte(body), &m); err != nil || m.SiteCode == "" || m.Proof != "certificate" || len(m.ManagementPoints) != 1 || m.ManagementPoints[0].MutualAuthPath != l.env["CMG_MP_MUTUAL"] {
			t.Errorf("%v: %s", err, body)
		}
	})

	// The switch: what nobody knows of passes when it is soft, what is known
	// to be revoked does not; off looks at nothing.
	must(t, "trust", "revocation", "soft", "--site", site)
	l.awaitPublication(t, site)
	l.wantStatus(t, cert("unreachable"), ok)
	l.wantStatus(t, cert("revoked"), "403 CMGService_Certificate_Revoked")
	must(t, "trust", "revocation", "off", "--site", site)
	l.awaitPublication(t, site)
	l.wantStatus(t, cert("revoked"), ok)
	must(t, "trust", "revocation", "hard", "--site", site)
	l.awaitPublication(t, site)

	// A list that is named for an authority serves where its certificates
	// name none that can be had.
	p.publish("lost")
	must(t, "trust", "set", thumbprint(t, p, "lost"), "--crl", p.web.URL+"/lost.crl", "--site", site)
	l.until("the lost list is known", func() error { return l.statusIs(t, cert("unreachable"), ok) })

	t.Run("revoked on a live connection", func(t *testing.T) { l.revokeLive(t, p, site) })
	t.Run("without the inside", func(t *testing.T) {
		l.kill("management-point-1")
		// What is known stays known: revoked is refused at the edge, good
		// passes it and finds nobody behind.
		l.wantStatus(t, cert("revoked"), "403 CMGService_Certificate_Revoked")
		l.wantStatus(t, cert("rsa"), "502 CMGConnector_Unreachable")
	})
}

// revokeLive holds a connection open over which a certificate is revoked.
func (l *lab) revokeLive(t *testing.T, p *pki, site string) {
	client := l.client(false)
	pair, err := tls.LoadX509KeyPair(p.file("later.pem"), p.file("later.key"))
	if err != nil {
		t.Fatal(err)
	}
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
	client.Transport.(*http.Transport).MaxConnsPerHost = 1
	ask := func() (int, string) {
		resp, err := client.Get(l.env["CMG_URL"] + l.env["CMG_MP_MUTUAL"] + "/SMS_MP/.sms_aut?MPLIST")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Header.Get("CMG-Refusal")
	}
	if status, code := ask(); status != 200 {
		t.Fatalf("before: %d %s", status, code)
	}
	p.revoke("issuing", "later")
	p.publish("issuing")
	must(t, "trust", "refresh", "--site", site)
	took := l.until("the revocation arrives", func() error {
		if status, code := ask(); status != 403 || code != "CMGService_Certificate_Revoked" {
			return fmt.Errorf("%d %s", status, code)
		}
		return nil
	})
	t.Logf("revoked on a live connection %v after cmg trust refresh", took.Round(time.Millisecond))
}

// thumbprint is how cmg names an authority.
func thumbprint(t *testing.T, p *pki, name string) string {
	t.Helper()
	b, err := os.ReadFile(p.file(name + ".pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	return fmt.Sprintf("%x", sha256.Sum256(block.Bytes))
}

// wantStatus asks by curl and compares the status line's beginning.
func (l *lab) wantStatus(t *testing.T, args, status string) {
	t.Helper()
	if err := l.statusIs(t, args, status); err != nil {
		t.Error(err)
	}
}

func (l *lab) statusIs(t *testing.T, args, status string) error {
	t.Helper()
	head, body := l.curl(t, args)
	line, _, _ := strings.Cut(head, "\r\n")
	got := strings.TrimPrefix(line, "HTTP/1.1 ") + " "
	if want := strings.TrimSpace(status) + " "; !strings.HasPrefix(got, want) {
		return fmt.Errorf("got %q, want %q\n%s", got, want, body)
	}
	return nil
}

// awaitPublication waits until both gateways have what the site publishes now,
// and the lists of revoked certificates that it names.
func (l *lab) awaitPublication(t *testing.T, site string) {
	t.Helper()
	var now struct{ Publication uint64 }
	if err := json.Unmarshal([]byte(must(t, "trust", "list", "--json", "--site", site)), &now); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gateway-1", "gateway-2"} {
		l.until(name+" has the publication", func() error {
			var g struct {
				Publication struct{ Version uint64 }
				Revocation  struct {
					Lists []struct {
						URL   string
						InUse bool `json:"in_use"`
					}
				}
			}
			if err := l.status(name, &g); err != nil {
				return err
			}
			if g.Publication.Version < now.Publication {
				return fmt.Errorf("it has %d, not %d", g.Publication.Version, now.Publication)
			}
			for _, list := range g.Revocation.Lists {
				if !list.InUse {
					return fmt.Errorf("the list of %s is not there", list.URL)
				}
			}
			return nil
		})
	}
}
