package managementpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"

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

// connectionMap answers a connection point's poll: a cmg.Map in JSON, or 304
// while If-None-Match names the version it stands at.
func (p *Point) connectionMap(w http.ResponseWriter, r *http.Request) error {
	if _, called := cmg.CallerFrom(r.Context()); called || !p.fromConnectionPoint(r) {
		return cmg.Refuse(http.StatusForbidden, "CMGMP_Connection_Point_Required", "only a connection point of this site may have the map", nil)
	}
	etag, body, err := p.currentMap(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "no-cache")
	for _, have := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimPrefix(strings.TrimSpace(have), "W/") == etag {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	return write(w, r, "application/json", body)
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
