package main

import (
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/opencmg/cmg/web"
)

// TestReloadCommand asks a role that answers as roles do.
func TestReloadCommand(t *testing.T) {
	h := web.NewHealth("gateway")
	var wrong error
	web.NewReloader(h, nil, web.Again[string]{Read: func() (string, error) { return "", wrong }},
		func() string { return "" }, func(string) ([]string, []string, error) { return []string{"drain", "listen"}, []string{"listen"}, nil }, func() []string { return nil })
	page := httptest.NewServer(h.Handler())
	defer page.Close()
	address := strings.TrimPrefix(page.URL, "http://")
	code, stdout, stderr := cmgRun(t, "reload", address)
	if code != exitOK || !strings.Contains(stdout, "taken; changed: drain, listen") || !strings.Contains(stdout, "after a restart: listen") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	wrong = usage("gateway.yaml:2:3: unknown key")
	if code, _, stderr := cmgRun(t, "reload", address); code == exitOK || !strings.Contains(stderr, "gateway.yaml:2:3: unknown key") {
		t.Errorf("a wrong one: exit code %d: %s", code, stderr)
	}
	page.Close()
	if code, _, stderr := cmgRun(t, "reload", address); code != exitUnavailable {
		t.Errorf("nobody there: exit code %d: %s", code, stderr)
	}
}

func TestGatewaysPorts(t *testing.T) {
	for args, want := range map[string]string{
		"gw.test":                                  "0 tcp-tls to gw.test:443 https to gw.test:443",
		"gw.test --instances 3":                    "any of 3 tcp-tls to gw.test:443 https to gw.test:443",
		"gw.test --mode multi-port":                "0 tcp-tls to gw.test:10140 https to gw.test:443",
		"gw.test --instances 16 --mode multi-port": "15 tcp-tls to gw.test:10155 https to gw.test:10139",
		"gw.test --instances 2 --mode tcp":         "1 tcp-tls to gw.test:10141",
		"gw.test --instances 17 --mode multi-port": "!mode multi-port has 16 ports",
		"gw.test:8443 --mode tcp":                  "!has ports of its own",
	} {
		code, stdout, stderr := cmgRun(t, append([]string{"gateways", "ports"}, strings.Fields(args)...)...)
		if part, bad := strings.CutPrefix(want, "!"); bad {
			if code != exitUsage || !strings.Contains(stderr, part) {
				t.Errorf("%s: exit code %d: %s", args, code, stderr)
			}
			continue
		}
		if got := strings.Join(strings.Fields(stdout), " "); code != exitOK || !strings.HasSuffix(got, want) {
			t.Errorf("%s: exit code %d: %s%s", args, code, got, stderr)
		}
	}
}

// TestSiteOnePort shows that a new site's connection point goes to the
// clients' port.
func TestSiteOnePort(t *testing.T) {
	dir := newSite(t, "--gateway", "gw.test:8443", "--gateway", "gw2.test", "--instances", "2")
	text, err := os.ReadFile(siteFolder(dir).configFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`service: "gw.test:8443"`, `service: "gw2.test"`, "instances: 2"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "10140") {
		t.Errorf("a port of its own:\n%s", text)
	}
}
