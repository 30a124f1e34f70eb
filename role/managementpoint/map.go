package managementpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
)

// maps keeps the signed map of the newest version. Asking for the version is
// one row of the database; reading and signing is done once a version.
type maps struct {
	mu   sync.Mutex
	v    uint64
	etag string
	body []byte
}

// forget has the map signed anew.
func (m *maps) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.v = 0
}

func (m *maps) version() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.v
}

const (
	lookEvery = 200 * time.Millisecond // for a new version, while somebody waits for one
	maxWait   = 30 * time.Second
)

// connectionMap answers a connection point's poll: a cmg.Map in JSON, or 304
// while If-None-Match names the version it stands at. Who prefers to wait
// (Prefer: wait=10, RFC 7240) is told of a change when it happens, and of
// none when the seconds are over.
func (p *Point) connectionMap(w http.ResponseWriter, r *http.Request) error {
	if _, called := cmg.CallerFrom(r.Context()); called || !p.fromConnectionPoint(r) {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Connection_Point_Required", "only a connection point of this site may have the map", nil)
	}
	etag, body, err := p.currentMap(r.Context())
	if err != nil {
		return err
	}
	if wait := preferredWait(r); wait > 0 {
		w.Header().Set("Preference-Applied", fmt.Sprintf("wait=%d", int(wait/time.Second)))
		if etag, body, err = p.changedMap(r, etag, body, wait); err != nil {
			return err
		}
	}
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "no-cache")
	if hasVersion(r, etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return write(w, r, "application/json", body)
}

func hasVersion(r *http.Request, etag string) bool {
	for _, have := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(have), "W/") == etag {
			return true
		}
	}
	return false
}

// preferredWait reads how long the connection point would wait for a change.
func preferredWait(r *http.Request) time.Duration {
	s, ok := strings.CutPrefix(strings.TrimSpace(r.Header.Get("Prefer")), "wait=")
	if n, err := strconv.Atoi(s); ok && err == nil && n > 0 {
		return min(time.Duration(n)*time.Second, maxWait)
	}
	return 0
}

// changedMap waits until the map is not the one that r's sender has, or the
// time is over, or the management point ends.
func (p *Point) changedMap(r *http.Request, etag string, body []byte, wait time.Duration) (string, []byte, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for hasVersion(r, etag) {
		select {
		case <-look.C:
		case <-over.C:
			return etag, body, nil
		case <-p.ending:
			return etag, body, nil
		case <-r.Context().Done():
			return etag, body, r.Context().Err()
		}
		var err error
		if etag, body, err = p.currentMap(r.Context()); err != nil {
			return etag, body, err
		}
	}
	return etag, body, nil
}

func (p *Point) currentMap(ctx context.Context) (etag string, body []byte, err error) {
	m := &p.maps
	v, err := p.cfg.Site.PublicationVersion(ctx)
	if err != nil {
		return "", nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.v == v {
		return m.etag, m.body, nil
	}
	state, err := p.cfg.Site.PublicationState(ctx)
	if err != nil {
		return "", nil, err
	}
	jws, err := auth.SignPublication(p.live.Load().signing, state.Publication())
	if err != nil {
		return "", nil, err
	}
	if body, err = json.Marshal(cmg.Map{Publication: jws, Mappings: state.Mappings}); err != nil {
		return "", nil, fmt.Errorf("write map: %w", err)
	}
	// The signer's certificate is part of what was signed: when it is renewed
	// the map is another one, though the version is not.
	m.etag = fmt.Sprintf(`"%d-%.16s"`, state.Version, auth.Thumbprint(p.live.Load().signing.Certificate()))
	m.v, m.body = state.Version, body
	return m.etag, m.body, nil
}

// write sends a whole body, or for HEAD its length.
func write(w http.ResponseWriter, r *http.Request, contentType string, body []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(body)
	return err
}
