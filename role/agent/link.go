package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// A link carries requests to gateways and stores.
type link struct {
	gateway *http.Client // shows the client certificate, where there is one
	store   *http.Client // never does
	poll    *http.Client // as gateway, for answers that take long

	tries   int           // for one request
	wait    time.Duration // longest before the second try, doubled for each further one
	longest time.Duration // wait at most
	now     func() time.Time
}

func newLink(c Config) (*link, error) {
	l := &link{tries: 6, wait: 500 * time.Millisecond, longest: 20 * time.Second, now: c.Now}
	for to, files := range map[**http.Client]auth.ClientFiles{
		&l.gateway: {Now: c.Now, Roots: c.Roots, Certificate: c.ClientCertificate, Key: c.ClientKey},
		&l.poll:    {Now: c.Now, Roots: c.Roots, Certificate: c.ClientCertificate, Key: c.ClientKey},
		&l.store:   {Now: c.Now, Roots: c.Roots},
	} {
		settings, err := auth.ClientTo(files)
		if err != nil {
			return nil, err
		}
		*to = newClient(settings, lowerKeys(c.Resolve))
	}
	l.poll.Transport.(*http.Transport).ResponseHeaderTimeout = 0
	return l, nil
}

func lowerKeys(resolve map[string][]string) map[string][]string {
	lower := make(map[string][]string, len(resolve))
	for from, to := range resolve {
		lower[strings.ToLower(from)] = to
	}
	return lower
}

// newClient makes a client over HTTP/1.1, which has reason phrases, and which
// follows no redirection: it would take tokens along.
func newClient(settings *tls.Config, resolve map[string][]string) *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	settings.NextProtos = []string{"http/1.1"}
	t := &http.Transport{
		TLSClientConfig:       settings,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   8,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			to, ok := resolve[strings.ToLower(addr)]
			if !ok {
				return dialer.DialContext(ctx, network, addr)
			}
			return dialAny(ctx, dialer, network, to)
		},
		Proxy: func(r *http.Request) (*url.URL, error) {
			port := r.URL.Port()
			if port == "" {
				port = "443"
			}
			if _, ok := resolve[strings.ToLower(net.JoinHostPort(r.URL.Hostname(), port))]; ok {
				return nil, nil // whoever says where a name is means it
			}
			return http.ProxyFromEnvironment(r)
		},
	}
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// dialAny connects to one of addrs, which are tried in random order.
func dialAny(ctx context.Context, d *net.Dialer, network string, addrs []string) (net.Conn, error) {
	var errs []error
	for _, i := range rand.Perm(len(addrs)) {
		c, err := d.DialContext(ctx, network, addrs[i])
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (l *link) close() {
	l.gateway.CloseIdleConnections()
	l.store.CloseIdleConnections()
	l.poll.CloseIdleConnections()
}

// A call is one request, made anew for every try.
type call struct {
	method string
	url    string
	body   []byte
	header func(http.Header) error    // sets what goes beside the body; nil: nothing
	read   func(*http.Response) error // reads an answer below 400
	within time.Duration              // for one try with its answer; 0: 2 minutes
}

// do makes the request until it is answered, as often as it makes sense: a
// refusal that will stand is returned at once.
func (l *link) do(ctx context.Context, c call) error {
	for try := 1; ; try++ {
		err := l.once(ctx, c)
		if err == nil || ctx.Err() != nil || try >= l.tries || !passing(err) {
			return err
		}
		wait := backoff(try, l.wait, l.longest)
		var later *retryLater
		if errors.As(err, &later) {
			wait += min(later.after, l.longest)
		}
		if !sleep(ctx, wait) {
			return err
		}
	}
}

func (l *link) once(ctx context.Context, c call) error { return l.onceBy(ctx, l.gateway, c) }

func (l *link) onceBy(ctx context.Context, by *http.Client, c call) error {
	if c.within == 0 {
		c.within = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, c.within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, c.method, c.url, bytes.NewReader(c.body))
	if err != nil {
		return err
	}
	if c.header != nil {
		if err := c.header(req.Header); err != nil {
			return err
		}
	}
	req.Header.Set(web.RequestIDHeader, web.NewRequestID())
	resp, err := by.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := web.ReadAnswer(resp); err != nil {
		if s, convErr := strconv.Atoi(resp.Header.Get("Retry-After")); convErr == nil && s > 0 {
			return &retryLater{err, time.Duration(min(s, 3600)) * time.Second}
		}
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("unexpected answer %s: %w", resp.Status, cmg.ErrInvalid)
	}
	if err := c.read(resp); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 4096)) // lets the connection be used again
	return err
}

// A retryLater is a refusal that says how long to wait.
type retryLater struct {
	error
	after time.Duration
}

func (r *retryLater) Unwrap() error { return r.error }

// passing says whether err may be gone at the next try: the network failed,
// or someone on the way was not able, rather than not willing.
func passing(err error) bool {
	var refusal *cmg.Refusal
	if errors.As(err, &refusal) {
		return refusal.Status >= 500 || refusal.Status == http.StatusTooManyRequests || refusal.Status == http.StatusRequestTimeout
	}
	var cert *tls.CertificateVerificationError
	if errors.As(err, &cert) {
		return false
	}
	var network net.Error // url.Error is one too
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, cmg.ErrUnavailable)
}

// refusedWith gives the status of the refusal that err is, or 0.
func refusedWith(err error) int {
	var r *cmg.Refusal
	if errors.As(err, &r) {
		return r.Status
	}
	return 0
}
