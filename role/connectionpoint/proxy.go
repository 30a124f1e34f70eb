package connectionpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// Proxy says which web proxy leads outward, and how to log in there.
type Proxy struct {
	URL            string `json:"url"`            // http://host:port or https://…; none: go without; empty: HTTPS_PROXY and NO_PROXY of the environment
	User           string `json:"user"`           // empty: no login
	PasswordFile   string `json:"password_file"`  // read at each login; a closing line end is taken off
	Domain         string `json:"domain"`         // of the user, for NTLM
	Authentication string `json:"authentication"` // none, basic, digest or ntlm; empty: the best that the proxy offers
	Roots          string `json:"roots"`          // PEM file: authorities of a proxy that opens TLS, or of its own certificate
}

const maxPassword = 4 << 10

// errProxyOnly is why a way is not tried.
var errProxyOnly = errors.New("not tried: a web proxy is to be used, and it is for HTTPS only")

// A dialer makes the network connections to gateways.
type dialer struct {
	net    net.Dialer
	proxy  Proxy
	fixed  *url.URL // nil: as the environment says, unless direct
	direct bool
	outer  *auth.Outer
	// environment is http.ProxyFromEnvironment, save in tests.
	environment func(*http.Request) (*url.URL, error)
}

func newDialer(p Proxy, outer *auth.Outer) (*dialer, error) {
	d := &dialer{proxy: p, outer: outer, environment: http.ProxyFromEnvironment}
	bad := func(format string, a ...any) error {
		return fmt.Errorf(format+": %w", append(a, cmg.ErrInvalid)...)
	}
	switch p.Authentication {
	case "", schemeNone, schemeBasic, schemeDigest, schemeNTLM:
	default:
		return nil, bad("authentication %q is not none, basic, digest or ntlm", p.Authentication)
	}
	if p.Authentication != "" && p.Authentication != schemeNone && p.User == "" {
		return nil, bad("authentication is %s, and user is empty", p.Authentication)
	}
	if p.User != "" && p.PasswordFile == "" {
		return nil, bad("there is a user, and no password_file")
	}
	if _, err := p.password(); err != nil {
		return nil, err
	}
	switch p.URL {
	case "":
		return d, nil
	case "none":
		d.direct = true
		return d, nil
	}
	var err error
	if d.fixed, err = readProxyURL(p.URL); err != nil {
		return nil, err
	}
	return d, nil
}

// readProxyURL keeps what stands in a URL out of errors: it may hold a
// password.
func readProxyURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("url is not http://host:port or https://host:port: %w", cmg.ErrInvalid)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "":
		return nil, fmt.Errorf("url has more than a host and a port: %w", cmg.ErrInvalid)
	}
	return u, nil
}

func (p Proxy) password() (string, error) {
	if p.PasswordFile == "" {
		return "", nil
	}
	f, err := os.Open(p.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password_file: %w", err)
	}
	defer f.Close()
	b := make([]byte, maxPassword+1)
	n, err := readFull(f, b)
	switch {
	case err != nil:
		return "", fmt.Errorf("password_file %s: %w", p.PasswordFile, err)
	case n == 0 || n > maxPassword:
		return "", fmt.Errorf("password_file %s: it is empty or longer than %d bytes: %w", p.PasswordFile, maxPassword, cmg.ErrInvalid)
	}
	return strings.TrimRight(string(b[:n]), "\r\n"), nil
}

// to says which proxy leads to addr; nil: none.
func (d *dialer) to(addr string) (*url.URL, error) {
	switch {
	case d.direct:
		return nil, nil
	case d.fixed != nil:
		return d.fixed, nil
	}
	u, err := d.environment(&http.Request{URL: &url.URL{Scheme: "https", Host: addr}})
	if err != nil || u == nil {
		return nil, err
	}
	if u, err = readProxyURL(u.String()); err != nil {
		return nil, fmt.Errorf("proxy of the environment: %w", err)
	}
	return u, nil
}

// dial makes a connection for a way, through the web proxy if there is one;
// via names it.
func (d *dialer) dial(ctx context.Context, w *way) (c net.Conn, via string, err error) {
	proxy, err := d.to(w.addr)
	if err != nil {
		return nil, "", err
	}
	if proxy == nil {
		c, err = d.net.DialContext(ctx, "tcp", w.addr)
		return c, "", err
	}
	if !w.proxied {
		return nil, "", errProxyOnly
	}
	if c, err = d.connect(ctx, proxy, w.addr); err != nil {
		return nil, "", fmt.Errorf("web proxy %s: %w", proxy.Host, err)
	}
	return c, proxy.Host, nil
}

// open makes a connection to the proxy itself.
func (d *dialer) open(ctx context.Context, proxy *url.URL) (net.Conn, error) {
	port := proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[proxy.Scheme]
	}
	c, err := d.net.DialContext(ctx, "tcp", net.JoinHostPort(proxy.Hostname(), port))
	if err != nil || proxy.Scheme == "http" {
		return c, err
	}
	t := tls.Client(c, d.outer.Settings(proxy.Hostname()))
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("tls: %w", err)
	}
	return t, nil
}

// login gives who is to log in at the proxy. What stands in its URL counts
// where the configuration says nothing.
func (d *dialer) login(proxy *url.URL) (login, error) {
	l := login{user: d.proxy.User, domain: d.proxy.Domain, only: d.proxy.Authentication}
	if l.user == "" && proxy.User != nil {
		l.user = proxy.User.Username()
		l.password, _ = proxy.User.Password()
		return l, nil
	}
	var err error
	l.password, err = d.proxy.password()
	return l, err
}
