package e2e

import (
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// program finds one that the set-up of tests installs. Without it a story is
// skipped, but never in CI.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err == nil {
		return p
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: apt-get install %s", name, pkg)
	}
	t.Skipf("SKIPPED, AND IT PROVES NOTHING: %s is not installed: apt-get install %s", name, pkg)
	return ""
}

// explained gives the first column of a table in docs/security.md that stands
// under a marker.
func explained(t *testing.T, marker string) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "<!-- "+marker+" -->\n")
	table, _, ended := strings.Cut(rest, "<!-- end -->")
	if !ok || !ended {
		t.Fatalf("docs/security.md has no table of %s", marker)
	}
	names := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1) {
		names[m[1]] = true
	}
	return names
}

// h2spec runs the conformance test and gives the cases that fail.
func h2spec(program, port, report string) (map[string]bool, error) {
	out, _ := exec.Command(program, "-h", "localhost", "-p", port, "-t", "-k", "-o", "3", "-j", report).CombinedOutput()
	b, err := os.ReadFile(report)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	var suites struct {
		Suites []struct {
			Cases []struct {
				Package string    `xml:"package,attr"`
				Name    string    `xml:"classname,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b, &suites); err != nil {
		return nil, err
	}
	failed, n := map[string]bool{}, 0
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			if n++; c.Failure != nil || c.Error != nil {
				failed[c.Package+": "+c.Name] = true
			}
		}
	}
	if n < 140 {
		return nil, fmt.Errorf("only %d cases ran\n%s", n, out)
	}
	return failed, nil
}

// TestH2Spec: no case of the HTTP/2 conformance test fails that Go's own
// server passes, and each that is left is explained in docs/security.md. A
// case counts as failed that fails each time: the machine may be busy.
func TestH2Spec(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "h2spec")
	if out, err := exec.Command("go", "build", "-C", "..", "-modfile=tools/go.mod", "-o", tool, "github.com/summerwind/h2spec/cmd/h2spec").CombinedOutput(); err != nil {
		t.Fatalf("build h2spec: %v\n%s", err, out)
	}
	l := startLab(t)
	pair, err := tls.LoadX509KeyPair(l.env["CMG_CLIENT_CERT"], l.env["CMG_CLIENT_KEY"])
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "CMGService_Not_Published: nothing is published at this path", http.StatusForbidden)
	})}
	served := make(chan error, 1)
	go func() { served <- own.ServeTLS(ln, "", "") }()
	defer func() { own.Close(); <-served }()
	reports := t.TempDir()
	always := func(port string) (failed map[string]bool) {
		for round := range 3 {
			now, err := h2spec(tool, port, filepath.Join(reports, port+".xml"))
			if err != nil {
				t.Error(err)
				return nil
			}
			if round == 0 {
				failed = now
			}
			for c := range failed {
				if !now[c] {
					delete(failed, c)
				}
			}
			if len(failed) <= 4 {
				break
			}
		}
		return failed
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	var base, ours map[string]bool
	var both sync.WaitGroup
	both.Go(func() { base = always(port) })
	both.Go(func() { ours = always(fmt.Sprint(l.base + 43)) })
	both.Wait()
	t.Logf("Go's server fails %d cases, the gateway %d", len(base), len(ours))
	known := explained(t, "h2spec")
	for c := range ours {
		if !base[c] {
			t.Errorf("the gateway fails what Go's server passes: %s", c)
		}
		if !known[c] {
			t.Errorf("docs/security.md does not explain: %s", c)
		}
	}
}

// TestTLSAudit has testssl.sh look at the clients' listener. What it finds
// that is MEDIUM or worse is explained in docs/security.md. CMG_LONG=1 has it
// make all of its checks.
func TestTLSAudit(t *testing.T) {
	tool := program(t, "testssl", "testssl.sh")
	l := startLab(t)
	report := filepath.Join(t.TempDir(), "report.json")
	args := []string{"--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--add-ca", l.env["CMG_CA"], "--jsonfile", report}
	if os.Getenv("CMG_LONG") == "" {
		args = append(args, "-p", "-s", "-S", "-R", "-C", "-H", "-I") // protocols, ciphers, server's defaults, renegotiation, compression, heartbleed, early CCS
	}
	out, err := exec.Command(tool, append(args, "localhost:"+fmt.Sprint(l.base+43))...).CombinedOutput()
	b, readErr := os.ReadFile(report)
	if readErr != nil {
		t.Fatalf("%v, %v\n%s", err, readErr, out)
	}
	var findings []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(b, &findings); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	known := explained(t, "testssl")
	seen := map[string]string{}
	for _, f := range findings {
		seen[f.ID] = f.Severity
		if f.Finding == "not offered" && f.Severity == "INFO" {
			seen[f.ID] = "OK"
		}
		switch f.Severity {
		case "MEDIUM", "HIGH", "CRITICAL", "FATAL":
			if id, _, _ := strings.Cut(f.ID, " <"); !known[id] {
				t.Errorf("%s %s: %s", f.Severity, f.ID, f.Finding)
			}
		}
	}
	for _, id := range []string{"SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "cipherlist_NULL", "heartbleed"} {
		if seen[id] != "OK" {
			t.Errorf("%s: %q, want OK of %d findings", id, seen[id], len(findings))
		}
	}
}
