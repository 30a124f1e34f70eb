package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A pki is a company's public key infrastructure as OpenSSL makes it: its
// authorities keep books, revoke, and publish lists on a web server; one has a
// responder.
type pki struct {
	t   *testing.T
	dir string
	web *httptest.Server // its folder, where the lists are
}

// needs skips a story whose programs are missing; CI may not skip.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skipf("SKIPPED: this story needs %s: %v", program, err)
		}
	}
}

func newPKI(t *testing.T) *pki {
	p := &pki{t: t, dir: t.TempDir()}
	lists := filepath.Join(p.dir, "lists")
	if err := os.Mkdir(lists, 0o700); err != nil {
		t.Fatal(err)
	}
	p.web = httptest.NewServer(http.FileServer(http.Dir(lists)))
	t.Cleanup(p.web.Close)
	return p
}

func (p *pki) file(name string) string { return filepath.Join(p.dir, name) }

func (p *pki) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(p.file(name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pki) openssl(args ...string) {
	p.t.Helper()
	c := exec.Command("openssl", args...)
	c.Dir = p.dir
	if out, err := c.CombinedOutput(); err != nil {
		p.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

const (
	keyRSA  = "rsa:2048"
	keyEC   = "ec -pkeyopt ec_paramgen_curve:P-256"
	keyWeak = "rsa:1024"
)

// request makes a key and a request for a certificate.
func (p *pki) request(name, subject, key string) {
	p.openssl(append([]string{"req", "-nodes", "-keyout", name + ".key", "-out", name + ".csr", "-subj", subject, "-newkey"}, strings.Fields(key)...)...)
}

// books makes an authority able to issue: its index, and its settings.
func (p *pki) books(ca string) {
	p.write(ca+".index", "")
	p.write(ca+".index.attr", "unique_subject = no\n")
	p.write(ca+".cnf", fmt.Sprintf(`[ca]
default_ca = this
[this]
database = %[1]s.index
serial = %[1]s.serial
new_certs_dir = .
certificate = %[1]s.pem
private_key = %[1]s.key
default_md = sha256
policy = any
copy_extensions = none
crl_extensions = crl
[any]
commonName = supplied
organizationName = optional
[crl]
authorityKeyIdentifier = keyid
`, ca))
	p.write(ca+".serial", "1000\n")
}

const caExtensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"

func (p *pki) root(name string) {
	p.write("root.ext", "[req]\ndistinguished_name=dn\nx509_extensions=x\n[dn]\n[x]\n"+caExtensions)
	p.openssl("req", "-x509", "-newkey", "rsa:3072", "-nodes", "-config", "root.ext", "-keyout", name+".key", "-out", name+".pem", "-days", "60", "-subj", "/O=Example/CN="+name)
	p.books(name)
}

// authority makes an intermediate; key is keyRSA or keyEC.
func (p *pki) authority(under, name, key, more string) {
	p.request(name, "/O=Example/CN="+name, key)
	p.issue(under, name, caExtensions+"authorityKeyIdentifier=keyid\n"+more)
	p.books(name)
}

// issue signs the request of name with these extensions, and dates or digests
// in args.
func (p *pki) issue(ca, name, extensions string, args ...string) {
	p.write(name+".ext", extensions)
	if len(args) == 0 {
		args = []string{"-days", "30"}
	}
	p.openssl(append([]string{"ca", "-batch", "-notext", "-config", ca + ".cnf", "-extfile", name + ".ext", "-in", name + ".csr", "-out", name + ".pem"}, args...)...)
}

// client makes a client's certificate.
func (p *pki) client(ca, name, key, extensions string, args ...string) {
	p.request(name, "/O=Example/CN="+name, key)
	p.issue(ca, name, extensions, args...)
}

func (p *pki) revoke(ca, name string) {
	p.openssl("ca", "-config", ca+".cnf", "-revoke", name+".pem")
}

// publish makes an authority's list anew, in DER as authorities publish it.
func (p *pki) publish(ca string) {
	p.openssl("ca", "-config", ca+".cnf", "-gencrl", "-crlhours", "2", "-out", ca+".crl.pem")
	p.openssl("crl", "-in", ca+".crl.pem", "-outform", "DER", "-out", "lists/"+ca+".crl")
}

// where is the extension that names an authority's list.
func (p *pki) where(ca string) string {
	return "crlDistributionPoints=URI:" + p.web.URL + "/" + ca + ".crl\n"
}

// responder starts OpenSSL's OCSP responder for an authority.
func (p *pki) responder(ca, port string) {
	p.request("responder", "/CN=responder", keyRSA)
	p.issue(ca, "responder", "extendedKeyUsage=OCSPSigning\n")
	log, err := os.Create(p.file("responder.log"))
	if err != nil {
		p.t.Fatal(err)
	}
	c := exec.Command("openssl", "ocsp", "-index", ca+".index", "-port", port, "-rsigner", "responder.pem", "-rkey", "responder.key", "-CA", ca+".pem", "-nmin", "10", "-ignore_err")
	c.Dir, c.Stdout, c.Stderr = p.dir, log, log
	if err := c.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Process.Kill(); c.Wait(); log.Close() })
	// Not by a connection: it waits for ever for one that says nothing.
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		said, err := os.ReadFile(log.Name())
		if err == nil && strings.Contains(string(said), "waiting for OCSP client connections") {
			return
		}
		if time.Since(began) > 30*time.Second {
			p.t.Fatalf("the responder does not start: %v\n%s", err, said)
		}
	}
}

// bundle concatenates certificates.
func (p *pki) bundle(into string, names ...string) string {
	p.t.Helper()
	var all []byte
	for _, name := range names {
		b, err := os.ReadFile(p.file(name + ".pem"))
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, b...)
	}
	p.write(into, string(all))
	return p.file(into)
}

// freePort finds a port that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}
