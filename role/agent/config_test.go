package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencmg/cmg"
)

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(c *Config){
		"no url":                  func(c *Config) { c.URL = "" },
		"http":                    func(c *Config) { c.URL = "http://gw.example" },
		"path in url":             func(c *Config) { c.URL = "https://gw.example/x" },
		"no state folder":         func(c *Config) { c.StateDir = "" },
		"no site":                 func(c *Config) { c.SiteCode = "" },
		"no prefix":               func(c *Config) { c.PrefixServer = "" },
		"prefix without slash":    func(c *Config) { c.PrefixServer = "x" },
		"certificate without key": func(c *Config) { c.ClientCertificate = "x" },
		"no prefix for it":        func(c *Config) { c.ClientCertificate, c.ClientKey = "x", "y" },
		"resolve to nothing":      func(c *Config) { c.Resolve = map[string][]string{"a:1": nil} },
		"resolve without port":    func(c *Config) { c.Resolve = map[string][]string{"a:1": {"b"}} },
		"status for all":          func(c *Config) { c.Status = ":8080" },
		"status outside":          func(c *Config) { c.Status = "192.0.2.1:80" },
		"negative interval":       func(c *Config) { c.PolicyInterval = -1 },
	} {
		c := Config{URL: "https://gw.example", PrefixServer: "/CCM_Proxy_ServerAuth/1", SiteCode: "LAB", StateDir: t.TempDir()}
		change(&c)
		if _, err := New(c); !errors.Is(err, cmg.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestStateSurvives(t *testing.T) {
	s, err := openState(filepath.Join(t.TempDir(), "new", "folder"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.load()
	if err != nil || st.Policies == nil {
		t.Fatalf("empty folder: %+v, %v", st, err)
	}
	st.Device = "GUID:X"
	if err := s.save(st); err != nil {
		t.Fatal(err)
	}
	if st, err = s.load(); err != nil || st.Device != "GUID:X" {
		t.Errorf("got %+v, %v", st, err)
	}
	// What cannot be read is not overwritten: a person has to decide.
	if err := os.WriteFile(filepath.Join(s.dir, stateFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.load(); err == nil {
		t.Error("a broken state was read")
	}
}

func TestPolicyPath(t *testing.T) {
	for location, want := range map[string]string{
		"http://<mp>/SMS_MP/.sms_pol?{A}.SHA256:00":               "/SMS_MP/.sms_pol?%7BA%7D.SHA256%3A00",
		"https://<mp>/sms_mp/.sms_pol?x":                          "/sms_mp/.sms_pol?x",
		"http://evil.example/SMS_MP/.sms_pol?x":                   "",
		"http://<mp>/CCM_STS?x":                                   "",
		"http://<mp>.evil.example/SMS_MP/.sms_pol?x":              "",
		"http://<mp>/SMS_MP/../x/.sms_pol?x":                      "",
		"":                                                        "",
		"http://<mp>/SMS_MP/.sms_pol?" + strings.Repeat("x", 600): "",
	} {
		got, err := policyPath(location)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: got %q, %v", location, got, err)
		}
	}
}

func TestRegistrationToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cfg  Config
		want string
		err  bool
	}{
		{Config{RegistrationTokenFile: file, RegistrationToken: "inline"}, "from file", false},
		{Config{RegistrationToken: "inline"}, "inline", false},
		{Config{RegistrationTokenFile: file + "x"}, "", true},
		{Config{}, "", true},
	} {
		if got, err := c.cfg.registrationToken(); got != c.want || (err != nil) != c.err {
			t.Errorf("got %q, %v", got, err)
		}
	}
}
