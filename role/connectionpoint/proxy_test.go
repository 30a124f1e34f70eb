package connectionpoint

import (
	"crypto/md5"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// program finds one of Debian's, which the set-up of tests installs. Without
// it a test is skipped, but never in CI.
func program(t testing.TB, name, pkg string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/usr/lib/squid/"} {
		if p, err := exec.LookPath(dir + name); err == nil {
			return p
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: apt-get install %s", name, pkg)
	}
	t.Skipf("SKIPPED, AND IT PROVES NOTHING: %s is not installed: apt-get install %s", name, pkg)
	return ""
}

// A box is a web proxy that runs.
type box struct {
	t      testing.TB
	dir    string
	addr   string
	access string // file of its access log
}

func newBox(t testing.TB) *box {
	dir, err := os.MkdirTemp("", "cmg-proxy-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o777) // squid gives its rights up
	ln := ok[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer ln.Close()
	return &box{t: t, dir: dir, addr: ln.Addr().String(), access: filepath.Join(dir, "access.log")}
}

func (b *box) write(name, text string) string {
	f := filepath.Join(b.dir, name)
	if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return f
}

func (b *box) start(name string, args ...string) {
	b.t.Helper()
	cmd := exec.Command(name, args...)
	out := ok[*os.File](b.t)(os.Create(filepath.Join(b.dir, "output")))
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, b.dir
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		done := make(chan struct{})
		go func() { cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			cmd.Process.Kill()
			<-done
		}
		out.Close()
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", b.addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(filepath.Join(b.dir, "output"))
			b.t.Fatalf("%s does not listen: %v\n%s", name, err, text)
		}
	}
}

// squid starts squid; port is what stands behind http_port's address, rules
// are more lines.
func squid(t testing.TB, port string, rules func(*box) string) *box {
	bin := program(t, "squid", "squid-openssl")
	b := newBox(t)
	conf := "http_port " + b.addr + " " + port + "\npid_filename " + b.dir + "/pid\naccess_log stdio:" + b.access +
		"\ncache_log " + b.dir + "/cache.log\ncache deny all\npinger_enable off\nnetdb_filename none\nshutdown_lifetime 0 seconds\ncoredump_dir " + b.dir + "\n" + rules(b)
	name := fmt.Sprintf("cmg%d%s", os.Getpid(), b.addr[strings.LastIndex(b.addr, ":")+1:])
	b.start(bin, "-f", b.write("squid.conf", conf), "-N", "-n", name)
	return b
}

const onlyUsers = "acl users proxy_auth REQUIRED\nhttp_access allow users\nhttp_access deny all\n"

func (b *box) log() string {
	text, _ := os.ReadFile(b.access)
	return string(text)
}

// TestWebProxies: through real proxies with each kind of login, the channel
// comes by HTTPS; a wrong password is told as what it is; and squid's log
// shows that nothing else was used.
func TestWebProxies(t *testing.T) {
	helper := func(t testing.TB, name string) string { return program(t, name, "squid-openssl") }
	kinds := []struct {
		name  string
		start func(t testing.TB) *box
		user  bool
	}{
		{"squid without a login", func(t testing.TB) *box {
			return squid(t, "", func(*box) string { return "http_access allow all\n" })
		}, false},
		{"squid basic", func(t testing.TB) *box {
			hash := ok[[]byte](t)(exec.Command(program(t, "openssl", "openssl"), "passwd", "-apr1", "pass1").Output())
			return squid(t, "", func(b *box) string {
				return "auth_param basic program " + helper(t, "basic_ncsa_auth") + " " + b.write("users", "user1:"+string(hash)) + "\n" + onlyUsers
			})
		}, true},
		{"squid digest", func(t testing.TB) *box {
			return squid(t, "", func(b *box) string {
				ha1 := fmt.Sprintf("%x", md5.Sum([]byte("user1:house:pass1")))
				return "auth_param digest program " + helper(t, "digest_file_auth") + " -c " + b.write("users", "user1:house:"+ha1+"\n") + "\nauth_param digest realm house\n" + onlyUsers
			})
		}, true},
		{"squid ntlm", func(t testing.TB) *box {
			return squid(t, "", func(b *box) string {
				return "auth_param ntlm program " + helper(t, "ntlm_fake_auth") + "\nauth_param ntlm keep_alive on\n" + onlyUsers
			})
		}, true},
		{"tinyproxy basic", func(t testing.TB) *box {
			bin := program(t, "tinyproxy", "tinyproxy")
			b := newBox(t)
			_, port, _ := net.SplitHostPort(b.addr)
			b.start(bin, "-d", "-c", b.write("tinyproxy.conf", "Port "+port+"\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nBasicAuth user1 pass1\n"))
			return b
		}, true},
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			b, d := k.start(t), newDoor(t)
			tcp, _ := d.listen(transportTCP, "127.0.0.1:0", "gw-1")
			https, _ := d.listen(transportHTTPS, "127.0.0.1:0", "gw-1")
			use := func(password string) (*Point, Config) {
				c := d.config(Gateway{TCP: tcp, HTTPS: https})
				c.Proxy, c.BetterEvery = Proxy{URL: "http://" + b.addr}, time.Minute
				if k.user {
					c.Proxy.User, c.Proxy.PasswordFile, c.Proxy.Domain = "user1", b.write("password", password+"\n"), "HOUSE"
				}
				return d.through(c), c
			}
			if k.user {
				p := ok[*Point](t)(New(d.config(Gateway{HTTPS: https})))
				p.live.Load().dialer = ok[*dialer](t)(newDialer(Proxy{URL: "http://" + b.addr}, p.live.Load().outer))
				if _, err := p.fleet.links()[0].dial(t.Context(), p.fleet.places()[0].ways, ""); !errors.Is(err, cmg.ErrUnauthenticated) || !strings.Contains(err.Error(), "asks for a login") {
					t.Errorf("without a user: %v", err)
				}
				if !strings.Contains(k.name, "ntlm") { // the fake helper takes every password
					p.live.Load().dialer = ok[*dialer](t)(newDialer(Proxy{URL: "http://" + b.addr, User: "user1", PasswordFile: b.write("password", "wrong-secret")}, p.live.Load().outer))
					_, err := p.fleet.links()[0].dial(t.Context(), p.fleet.places()[0].ways, "")
					if !errors.Is(err, cmg.ErrUnauthenticated) || !strings.Contains(err.Error(), "does not take the user and the password") || strings.Contains(err.Error(), "wrong-secret") {
						t.Errorf("wrong password: %v", err)
					}
				}
			}
			p, _ := use("pass1")
			soon(t, "a channel by HTTPS: "+fmt.Sprint(states(p)), 10*time.Second, func() bool { return d.held()[arrival{"gw-1", transportHTTPS}] == 1 })
			for range 20 {
				if err := d.exchange(); err != nil {
					t.Fatal(err)
				}
			}
			r := shown(p)
			if r["proxy"] != b.addr || !strings.Contains(fmt.Sprint(r["instead_of"]), "it is for HTTPS only") {
				t.Errorf("status %v", r)
			}
			if strings.Contains(k.name, "squid") && strings.Contains(b.log(), tcp) {
				t.Errorf("the proxy was asked for the channel's own port:\n%s", b.log())
			}
		})
	}
}

// TestWebProxyRefuses: a proxy that does not let through is told from one
// that wants a login.
func TestWebProxyRefuses(t *testing.T) {
	b, d := squid(t, "", func(*box) string { return "http_access deny all\n" }), newDoor(t)
	https, _ := d.listen(transportHTTPS, "127.0.0.1:0", "gw-1")
	p := ok[*Point](t)(New(d.config(Gateway{HTTPS: https})))
	p.live.Load().dialer = ok[*dialer](t)(newDialer(Proxy{URL: "http://" + b.addr}, p.live.Load().outer))
	_, err := p.fleet.links()[0].dial(t.Context(), p.fleet.places()[0].ways, "")
	if err == nil || errors.Is(err, cmg.ErrUnauthenticated) || !strings.Contains(err.Error(), "does not let through to "+https+": 403") {
		t.Errorf("error %v", err)
	}
}

// TestInspectingProxy: a proxy that opens TLS is refused until its authority
// is named; then the channel, whose own TLS lies within, comes up, and the
// status says who looks on. A proxy that takes Upgrade away is told.
func TestInspectingProxy(t *testing.T) {
	certgen := program(t, "security_file_certgen", "squid-openssl")
	for _, upgrades := range []bool{true, false} {
		t.Run(map[bool]string{true: "with WebSockets", false: "without"}[upgrades], func(t *testing.T) {
			d := newDoor(t)
			ca := ok[*auth.Authority](t)(auth.NewAuthority("inspector", time.Hour))
			bin, b := program(t, "squid", "squid-openssl"), newBox(t)
			if err := ca.Save(filepath.Join(b.dir, "ca.crt"), filepath.Join(b.dir, "ca.key")); err != nil {
				t.Fatal(err)
			}
			both := append(ok[[]byte](t)(os.ReadFile(filepath.Join(b.dir, "ca.crt"))), ok[[]byte](t)(os.ReadFile(filepath.Join(b.dir, "ca.key")))...)
			roots := filepath.Join(b.dir, "ca.crt")
			os.Chmod(roots, 0o644)
			if out, err := exec.Command(certgen, "-c", "-s", filepath.Join(b.dir, "db"), "-M", "4MB").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			exec.Command("chown", "-R", "proxy:proxy", filepath.Join(b.dir, "db")).Run()
			rules := "sslcrtd_program " + certgen + " -s " + b.dir + "/db -M 4MB\nssl_bump bump all\ntls_outgoing_options cafile=" + d.file("roots.crt") + "\nhttp_access allow all\n"
			os.Chmod(d.dir, 0o755)
			rules = strings.Replace(rules, d.file("roots.crt"), b.write("site.crt", string(pemText(d.roots))), 1)
			if upgrades {
				rules += "http_upgrade_request_protocols websocket allow all\n"
			}
			conf := "http_port " + b.addr + " ssl-bump cert=" + b.write("ca.pem", string(both)) + " generate-host-certificates=on\npid_filename " + b.dir + "/pid\naccess_log stdio:" + b.access +
				"\ncache_log " + b.dir + "/cache.log\ncache deny all\npinger_enable off\nnetdb_filename none\nshutdown_lifetime 0 seconds\ncoredump_dir " + b.dir + "\n" + rules
			b.start(bin, "-f", b.write("squid.conf", conf), "-N", "-n", fmt.Sprintf("bump%d%t", os.Getpid(), upgrades))
			https, _ := d.listen(transportHTTPS, "127.0.0.1:0", "gw-1")
			https = strings.Replace(https, "127.0.0.1", "localhost", 1) // squid puts addresses where names belong
			p := ok[*Point](t)(New(d.config(Gateway{HTTPS: https})))
			p.live.Load().dialer = ok[*dialer](t)(newDialer(Proxy{URL: "http://" + b.addr}, p.live.Load().outer))
			if _, err := p.fleet.links()[0].dial(t.Context(), p.fleet.places()[0].ways, ""); err == nil || !strings.Contains(err.Error(), "name its authority in proxy.roots") {
				t.Errorf("an authority that is not named: %v", err)
			}
			c := d.config(Gateway{Service: https})
			c.Proxy, c.StateDir = Proxy{URL: "http://" + b.addr, Roots: roots}, d.file("inspected")
			p = d.through(c)
			if !upgrades {
				soon(t, "it says what is wrong", 10*time.Second, func() bool { return strings.Contains(fmt.Sprint(states(p)), "takes the wish for a WebSocket away") })
				return
			}
			soon(t, "a channel comes up within", 15*time.Second, func() bool { return d.held()[arrival{"gw-1", transportHTTPS}] == 1 })
			if err := d.exchange(); err != nil {
				t.Error(err)
			}
			if r := shown(p); !strings.Contains(fmt.Sprint(r["inspected_by"]), "inspector") {
				t.Errorf("the status does not say who looks on: %v", r)
			}
		})
	}
}

// TestProxyOfEnvironment: HTTPS_PROXY counts where nothing is set, and
// NO_PROXY takes hosts out of it.
func TestProxyOfEnvironment(t *testing.T) {
	outer := (*auth.Outer)(nil)
	d := ok[*dialer](t)(newDialer(Proxy{}, outer))
	d.environment = func(r *http.Request) (*url.URL, error) {
		if r.URL.Scheme != "https" {
			t.Errorf("asked for %s", r.URL)
		}
		if r.URL.Hostname() == "near" {
			return nil, nil
		}
		return url.Parse("http://u:p@box:3128")
	}
	if u, err := d.to("gw:443"); err != nil || u.Host != "box:3128" {
		t.Errorf("gw: %v, %v", u, err)
	}
	u, _ := d.to("gw:443")
	if l, err := d.login(u); err != nil || l.user != "u" || l.password != "p" {
		t.Errorf("login %+v, %v", l, err)
	}
	if u, err := d.to("near:443"); err != nil || u != nil {
		t.Errorf("near: %v, %v", u, err)
	}
	none := ok[*dialer](t)(newDialer(Proxy{URL: "none"}, outer))
	if u, err := none.to("gw:443"); err != nil || u != nil {
		t.Errorf("none: %v, %v", u, err)
	}
	for _, bad := range []Proxy{
		{URL: "socks5://box:1"}, {URL: "box:3128"}, {URL: "http://box/path"}, {Authentication: "kerberos"},
		{Authentication: "ntlm"}, {User: "u"}, {User: "u", PasswordFile: "/nowhere/at/all"}, {URL: "http://u:secret@box/path"},
	} {
		if _, err := newDialer(bad, outer); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
