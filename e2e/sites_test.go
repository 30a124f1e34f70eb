package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSharedGateway makes a second site, lets it use the lab's gateways, and
// publishes another server there under the same path: each site's clients
// reach their own site's, also while the other site is away.
func TestSharedGateway(t *testing.T) {
	origin := func(says string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, says) }))
		t.Cleanup(s.Close)
		return s.URL
	}
	l := startLab(t, "--map", "/shop="+origin("the lab's"))
	two := filepath.Join(t.TempDir(), "two")
	inside := fmt.Sprintf("127.0.0.1:%d", l.base+46)
	must(t, "site", "init", "--dir", two, "--code", "TWO", "--management-point", "localhost", "--listen", inside)
	must(t, "route", "add", "/shop", origin("the second's"), "--site", two)
	must(t, "route", "add", "/own", origin("its own"), "--site", two)
	for _, name := range []string{"gateway-1", "gateway-2"} {
		files := filepath.Join(l.dir, "config", name+"-two")
		must(t, "site", "issue", "gateway", "--site", two, "--name", name, "--host", "localhost", "--out", files)
		extend(t, filepath.Join(l.dir, "config", name+".yaml"), "gateway:\n", fmt.Sprintf(`gateway:
  sites:
    - certificate: %q
      key: %q
      roots: %q
`, filepath.Join(files, name+".crt"), filepath.Join(files, name+".key"), filepath.Join(files, "roots.crt")))
	}
	l.withSettings(nil, "gateway-1", "gateway-2")
	extend(t, filepath.Join(two, "cmg.yaml"), "management_point:\n", fmt.Sprintf(`connection_point:
  gateways: ["127.0.0.1:%d", "127.0.0.1:%d"]
  identity: {certificate: issued/connection-point-1.crt, key: issued/connection-point-1.key, roots: ca/site.crt}
  map: "https://localhost:%d"
  state_dir: state/connection-point-1

management_point:
`, l.base+40, l.base+41, l.base+46))
	stop := l.runSite(filepath.Join(two, "cmg.yaml"), inside)

	client := l.client(false)
	get := func(path, token string) string {
		client.CloseIdleConnections() // the kernel then chooses another instance
		req, err := http.NewRequest("GET", l.env["CMG_URL"]+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		if code := resp.Header.Get("CMG-Refusal"); code != "" {
			return code
		}
		return string(b)
	}
	tokens := map[string]string{"LAB": l.env["CMG_TOKEN"], "TWO": sessionToken(t, two, "TWO", "GUID:6A5C7A92-5A3C-4A57-9F0E-2F3F3F1F0B11")}
	bulk := strings.TrimSpace(must(t, "token", "new", "--site", two))
	want := func(path, site, says string) {
		t.Helper()
		if got := get(path, tokens[site]); got != says {
			t.Errorf("%s for a client of %s: %q, want %q", path, site, got, says)
		}
	}
	for _, name := range []string{"gateway-1", "gateway-2"} {
		l.until(name+" serves both sites", func() error {
			var s struct {
				Sites map[string]struct {
					Publication *struct{ Site string }
					Points      map[string]struct{ Channels int } `json:"connection_points"`
				}
			}
			if err := l.status(name, &s); err != nil {
				return err
			}
			for code, points := range map[string]int{"LAB": 2, "TWO": 1} {
				if site := s.Sites[code]; site.Publication == nil || site.Publication.Site != code || len(site.Points) != points {
					return fmt.Errorf("%s: %+v", code, site)
				}
			}
			return nil
		})
	}
	for range 10 {
		want("/shop/x", "LAB", "the lab's")
		want("/shop/x", "TWO", "the second's")
		want("/own/x", "TWO", "its own")
		want("/own/x", "LAB", "CMGService_Invalid_Token_Unknown_Key")
	}
	if got := get("/own/x", bulk); got != "CMGService_Invalid_Token_Wrong_Kind" {
		t.Errorf("a registration token opens a server: %q", got)
	}
	stop()
	want("/shop/x", "TWO", "CMGService_NoConnectionPoint")
	want("/shop/x", "LAB", "the lab's")
	stop = l.runSite(filepath.Join(two, "cmg.yaml"), inside)
	l.until("the second site is back", func() error {
		if got := get("/shop/x", tokens["TWO"]); got != "the second's" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	stop()
}

// extend puts text in the place of a part of a file.
func extend(t *testing.T, file, part, text string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), part) {
		t.Fatalf("%s does not hold %q:\n%s", file, part, b)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), part, text, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// runSite runs the inside of a site, whose management point listens at an
// address, until the function it gives is called.
func (l *lab) runSite(config, address string) (stop func()) {
	t := l.t
	t.Helper()
	b, err := built()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(b, "site", "run", "--config", config)
	var out strings.Builder
	c.Stderr = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		c.Process.Signal(syscall.SIGTERM)
		if err := c.Wait(); err != nil {
			t.Errorf("site run: %v\n%s", err, out.String())
		}
	}
	t.Cleanup(stop)
	l.until("the management point listens", func() error {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err
	})
	return stop
}
