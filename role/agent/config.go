package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// Config says what an agent needs. Fields with a JSON name come from the
// config file; main sets the rest.
type Config struct {
	URL          string `json:"url"`           // https://<gateway's service name>[:port]
	PrefixMutual string `json:"prefix_mutual"` // the management point's prefix for certificates; needed with a client certificate
	PrefixServer string `json:"prefix_server"` // the management point's prefix for tokens; needed without
	SiteCode     string `json:"site_code"`     // the site the agent belongs to
	StateDir     string `json:"state_dir"`     // where the agent keeps its key, tokens and what it has done

	Roots             string              `json:"roots"`              // PEM file: who vouches for gateways and content stores; empty: the system's roots
	SiteCertificate   string              `json:"site_certificate"`   // PEM file: the site's signing certificate; empty: the one it shows first
	ClientCertificate string              `json:"client_certificate"` // PEM file: proof at the gateway; empty: tokens are
	ClientKey         string              `json:"client_key"`         // PEM file: key of the client certificate
	Resolve           map[string][]string `json:"resolve"`            // host:port and the host:port to connect to instead, one of them at random; empty: DNS

	RegistrationTokenFile string `json:"registration_token_file"` // read whenever the agent registers without a certificate
	RegistrationToken     Secret `json:"registration_token"`      // the token itself, where no file is named

	Name           string        `json:"name"`            // host name the agent reports; empty: the machine's
	ContentDir     string        `json:"content_dir"`     // where folders named by policy are made; empty: content in state_dir
	AllowAbsolute  bool          `json:"allow_absolute"`  // policy may name folders anywhere on the machine
	PolicyInterval time.Duration `json:"policy_interval"` // between two looks for policy, ± 10 %; 0: 1h
	Notification   SwitchedOff   `json:"notification"`    // false: no request is kept waiting at the management point, so policy takes effect at the next look; zero: it is kept
	Parallel       int           `json:"parallel"`        // files downloaded at once; 0: 4
	Status         string        `json:"status"`          // loopback host:port of /livez, /readyz and /status over HTTP; empty: none
	Once           bool          `json:"once"`            // one full pass, then Run returns what went wrong in it

	// EntraToken gives a directory token that proves the device where it has no
	// client certificate that can be used; nil: there is none.
	EntraToken func(context.Context) (string, error) `json:"-"`

	// Tasks says what is done with tasks that devices are notified of, by kind,
	// beside getting policy (see package ccm). Each has to return soon; an
	// error is told to the management point as a failure. nil: others are
	// answered as unknown.
	Tasks map[int]func(ctx context.Context, param []byte) error `json:"-"`

	Log *slog.Logger     `json:"-"` // nil is silent
	Now func() time.Time `json:"-"` // nil: time.Now
}

// A Secret is a text that prints as a placeholder.
type Secret string

func (s Secret) String() string       { return "(secret)" }
func (s Secret) GoString() string     { return `agent.Secret("(secret)")` }
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// mutual says whether the agent is proven by a client certificate.
func (c Config) mutual() bool { return c.ClientCertificate != "" }

func (c Config) proof() cmg.Proof {
	if c.mutual() {
		return cmg.ProofCertificate
	}
	return cmg.ProofToken
}

// prefix is the management point's prefix, without a slash at its end.
func (c Config) prefix() string {
	if c.mutual() {
		return strings.TrimSuffix(c.PrefixMutual, "/")
	}
	return strings.TrimSuffix(c.PrefixServer, "/")
}

// withDefaults checks c and fills in what zero means.
func (c Config) withDefaults() (Config, error) {
	if err := c.check(); err != nil {
		return c, fmt.Errorf("agent: %w", err)
	}
	c.URL = strings.TrimSuffix(c.URL, "/")
	if c.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return c, fmt.Errorf("agent: find the machine's name: %w", err)
		}
		c.Name = name
	}
	if c.ContentDir == "" {
		c.ContentDir = filepath.Join(c.StateDir, "content")
	}
	if c.PolicyInterval == 0 {
		c.PolicyInterval = time.Hour
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c, nil
}

func (c Config) check() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil:
		return fmt.Errorf("url %.200q is not https://host[:port]: %w", c.URL, cmg.ErrInvalid)
	case c.StateDir == "":
		return fmt.Errorf("state_dir is not set: %w", cmg.ErrInvalid)
	case c.SiteCode == "":
		return fmt.Errorf("site_code is not set: %w", cmg.ErrInvalid)
	case (c.ClientCertificate == "") != (c.ClientKey == ""):
		return fmt.Errorf("client_certificate and client_key go together: %w", cmg.ErrInvalid)
	case c.PolicyInterval < 0:
		return fmt.Errorf("policy_interval %s is negative: %w", c.PolicyInterval, cmg.ErrInvalid)
	case c.Parallel < 0:
		return fmt.Errorf("parallel %d is negative: %w", c.Parallel, cmg.ErrInvalid)
	}
	if err := checkPrefix(c.prefix(), c.mutual()); err != nil {
		return err
	}
	for from, to := range c.Resolve {
		if len(to) == 0 {
			return fmt.Errorf("resolve %s: nothing to connect to: %w", from, cmg.ErrInvalid)
		}
		for _, addr := range append(to[:len(to):len(to)], from) {
			if _, _, err := net.SplitHostPort(addr); err != nil {
				return fmt.Errorf("resolve %s: %q is not host:port: %w", from, addr, cmg.ErrInvalid)
			}
		}
	}
	return checkLoopback(c.Status)
}

func checkPrefix(prefix string, mutual bool) error {
	name := "prefix_server"
	if mutual {
		name = "prefix_mutual"
	}
	if !strings.HasPrefix(prefix, "/") || strings.ContainsAny(prefix, "?#% ") {
		return fmt.Errorf("%s %.200q is not a path such as /CCM_Proxy_…/<id>: %w", name, prefix, cmg.ErrInvalid)
	}
	return nil
}

// checkLoopback refuses a status listener that others could reach: what it
// tells is for the machine's administrators.
func checkLoopback(addr string) error {
	if addr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("status %q is not host:port: %w", addr, cmg.ErrInvalid)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("status %q is not on a loopback address: %w", addr, cmg.ErrInvalid)
	}
	return nil
}

var errNoRegistrationToken = errors.New("neither a client certificate nor a registration token is configured")

// registrationToken reads the token anew each time: an administrator may have
// replaced it.
func (c Config) registrationToken() (string, error) {
	if c.RegistrationTokenFile == "" {
		if c.RegistrationToken == "" {
			return "", fmt.Errorf("%w: %w", errNoRegistrationToken, cmg.ErrUnauthenticated)
		}
		return strings.TrimSpace(string(c.RegistrationToken)), nil
	}
	b, err := os.ReadFile(c.RegistrationTokenFile)
	if err != nil {
		return "", fmt.Errorf("read registration token: %w", err)
	}
	if len(b) > 8<<10 {
		return "", fmt.Errorf("read registration token: %s holds %d bytes: %w", c.RegistrationTokenFile, len(b), cmg.ErrTooLarge)
	}
	return strings.TrimSpace(string(b)), nil
}
