package auth

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/opencmg/cmg"
)

const (
	fetchTime     = 30 * time.Second
	fetchHeads    = 10 * time.Second
	fetchRedirect = 3
)

// A Fetcher fetches what proofs rest on and others publish: lists of revoked
// certificates, responders' answers, tenants' keys. It works inside, by the
// proxy that the environment names (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
type Fetcher struct {
	client  *http.Client
	reading sync.Mutex // one list at a time: a long one takes much memory
}

// NewFetcher makes a Fetcher that believes servers under roots (PEM); empty is
// the system's.
func NewFetcher(roots []byte) (*Fetcher, error) {
	c := floor()
	if len(roots) > 0 {
		certs, err := certificatesIn(roots)
		if err != nil {
			return nil, fmt.Errorf("roots: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		for _, r := range certs {
			c.RootCAs.AddCert(r)
		}
	}
	return &Fetcher{client: &http.Client{
		Timeout: fetchTime,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: c, ForceAttemptHTTP2: true,
			DialContext:         (&net.Dialer{Timeout: fetchHeads}).DialContext,
			TLSHandshakeTimeout: fetchHeads, ResponseHeaderTimeout: fetchHeads, IdleConnTimeout: fetchTime,
			MaxResponseHeaderBytes: 64 << 10, MaxIdleConnsPerHost: 2,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > fetchRedirect || r.URL.Scheme != via[0].URL.Scheme && r.URL.Scheme != "https" {
				return fmt.Errorf("redirected too often, or away from https: %w", cmg.ErrInvalid)
			}
			return nil
		},
	}}, nil
}

// Close ends connections that are idle.
func (f *Fetcher) Close() { f.client.CloseIdleConnections() }

// errUnchanged says that what is kept of a document is still the newest.
var errUnchanged = errors.New("unchanged")

// get fetches at most limit bytes. etag, where it is not empty, is that of
// what the caller has.
func (f *Fetcher) get(ctx context.Context, url, etag string, limit int) (b []byte, tag string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, "", fmt.Errorf("fetch %s: %w", url, err)
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	b, resp, err := f.do(req, limit)
	if err != nil {
		return nil, "", err
	}
	return b, resp.Header.Get("ETag"), nil
}

// post sends a body and reads at most limit bytes.
func (f *Fetcher) post(ctx context.Context, url, contentType string, body []byte, limit int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", url, err)
	}
	req.Header.Set("Content-Type", contentType)
	b, _, err := f.do(req, limit)
	return b, err
}

func (f *Fetcher) do(req *http.Request, limit int) ([]byte, *http.Response, error) {
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", err, cmg.ErrUnavailable) // it names method and address
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		return nil, resp, errUnchanged
	default:
		return nil, nil, fmt.Errorf("%s %s: %s: %w", req.Method, req.URL, resp.Status, cmg.ErrUnavailable)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%s %s: %w: %w", req.Method, req.URL, err, cmg.ErrUnavailable)
	case len(b) > limit:
		return nil, nil, fmt.Errorf("%s %s: more than %d bytes: %w", req.Method, req.URL, limit, cmg.ErrTooLarge)
	}
	return b, resp, nil
}

// CRL fetches the list of issuer. nil without an error: the one whose etag the
// caller has is still the newest.
func (f *Fetcher) CRL(ctx context.Context, url, etag string, issuer *x509.Certificate, at time.Time) (c *CRL, tag string, err error) {
	b, tag, err := f.get(ctx, url, etag, MaxCRL)
	if errors.Is(err, errUnchanged) {
		return nil, etag, nil
	} else if err != nil {
		return nil, "", err
	}
	f.reading.Lock()
	list, err := ReadCRL(b, issuer, at)
	f.reading.Unlock()
	if err != nil {
		return nil, "", fmt.Errorf("fetch %s: %w", url, err)
	}
	return &list, tag, nil
}

// OCSP asks a responder whether c, which issuer issued, is revoked.
func (f *Fetcher) OCSP(ctx context.Context, url string, c, issuer *x509.Certificate, at time.Time) (Status, error) {
	req, err := ocspRequest(c, issuer)
	if err != nil {
		return Status{}, fmt.Errorf("ask %s: %w", url, err)
	}
	b, err := f.post(ctx, url, "application/ocsp-request", req, maxOCSP)
	if err != nil {
		return Status{}, err
	}
	s, err := readOCSP(b, c, issuer, at)
	if err != nil {
		return Status{}, fmt.Errorf("ask %s: %w", url, err)
	}
	return s, nil
}
