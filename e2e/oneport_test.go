package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestOnePort moves the channels, which share the clients' port in a lab, by
// TLS, by HTTPS alone, and to ports of their own: each connection point finds
// both gateways and serves requests.
func TestOnePort(t *testing.T) {
	l := startLab(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(l.env["CMG_URL"], "https://"), ":")
	for transport, gateways := range map[string]string{
		"tcp-tls": fmt.Sprintf("    - \"127.0.0.1:%d\"\n    - \"127.0.0.1:%d\"\n", l.base+40, l.base+41),
		"https":   "    - name: gateway-1\n      https: \"localhost:" + port + "\"\n    - name: gateway-2\n      https: \"localhost:" + port + "\"\n",
	} {
		for _, name := range []string{"connection-point-1", "connection-point-2"} {
			file := filepath.Join(l.dir, "config", name+".yaml")
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			changed := regexp.MustCompile(`(?m)^  gateways:\n(    .*\n)+`).ReplaceAllLiteralString(string(text), "  gateways:\n"+gateways)
			if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
				t.Fatal(err)
			}
			l.kill(name)
			l.again(name)
		}
		for _, name := range []string{"connection-point-1", "connection-point-2"} {
			l.until(name+" has two channels to each gateway by "+transport, func() error {
				var s struct {
					Gateways map[string][]struct{ State, Transport, Instance string } `json:"gateways"`
				}
				if err := l.status(name, &s); err != nil {
					return err
				}
				n := map[string]int{}
				for _, links := range s.Gateways {
					for _, link := range links {
						if link.State == "up" && link.Transport == transport {
							n[link.Instance]++
						}
					}
				}
				if n["gateway-1"] != 2 || n["gateway-2"] != 2 {
					return fmt.Errorf("%+v", s.Gateways)
				}
				return l.ready(name)
			})
		}
		for range 20 {
			req, err := http.NewRequest("GET", l.env["CMG_URL"]+l.env["CMG_MP_SERVER"]+"/SMS_MP/.sms_aut?MPLIST", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+l.env["CMG_TOKEN"])
			resp, err := l.client(false).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("by %s: %s", transport, resp.Status)
			}
		}
	}
}
