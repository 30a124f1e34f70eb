package connectionpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

const (
	mapPath = "/cmg/v1/map"
	mapFile = "map.json"
	maxMap  = 8 << 20
	mapTime = 20 * time.Second
	mapWait = 10 // seconds the site may wait with its answer for a change
)

// A table is one map made ready: an immutable snapshot.
type table struct {
	version     uint64
	publication string // signed, as it goes to the gateways
	mappings    []mapping
}

type mapping struct {
	prefix string // in lower case
	target *target
	base   string // path of the target that takes the prefix's place
	class  cmg.Class
	waits  bool   // requests here may wait long for their answer
	rows   []*row // of the traffic, by the gateway's place
}

// mayWait says whether the route published at a prefix is one whose requests
// may wait long.
func mayWait(routes []cmg.Route, prefix string) bool {
	for _, r := range routes {
		if strings.EqualFold(r.Prefix, prefix) {
			return r.MayWait()
		}
	}
	return cmg.Route{Prefix: prefix}.MayWait()
}

// match finds the mapping with the longest prefix of whole segments of path.
func (t *table) match(path []byte) *mapping {
	for i := range t.mappings { // longest first
		m := &t.mappings[i]
		n := len(m.prefix)
		if len(path) >= n && (len(path) == n || path[n] == '/') && foldEqual(path[:n], m.prefix) {
			return m
		}
	}
	return nil
}

// classOf is that of the route with the mapping's prefix.
func classOf(prefix string, routes []cmg.Route) cmg.Class {
	for _, r := range routes {
		if strings.EqualFold(r.Prefix, prefix) {
			return r.Class
		}
	}
	return cmg.ClassPolicy
}

func foldEqual(b []byte, low string) bool {
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != low[i] {
			return false
		}
	}
	return true
}

// maps follows the site's map.
type maps struct {
	p     *Point
	table atomic.Pointer[table] // nil until one is known

	mu    sync.Mutex
	state string
	etag  string
	raw   []byte
	one   sync.Mutex // map taken at a time
}

func newMaps(p *Point) *maps { return &maps{p: p, state: "not asked yet"} }

func (m *maps) status() any {
	m.mu.Lock()
	defer m.mu.Unlock()
	row := map[string]any{"state": m.state}
	if t := m.table.Load(); t != nil {
		row["version"], row["mappings"] = t.version, len(t.mappings)
	}
	return row
}

// load takes the map kept by an earlier run.
func (m *maps) load() error {
	b, err := os.ReadFile(filepath.Join(m.p.cfg.StateDir, mapFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.take(b)
}

// take checks a map and lets all new requests meet it.
func (m *maps) take(raw []byte) error {
	m.one.Lock()
	defer m.one.Unlock()
	return m.set(raw)
}

// again makes the table anew, for what in it comes from the configuration.
func (m *maps) again() error {
	m.one.Lock()
	defer m.one.Unlock()
	if m.raw == nil {
		return nil
	}
	return m.set(m.raw)
}

// has says that raw is the map in force.
func (m *maps) has(raw []byte) bool {
	m.one.Lock()
	defer m.one.Unlock()
	return string(raw) == string(m.raw)
}

func (m *maps) set(raw []byte) error {
	live := m.p.live.Load()
	var doc cmg.Map
	if err := json.Unmarshal(raw, &doc); err != nil {
		return fmt.Errorf("read map: %w: %w", err, cmg.ErrInvalid)
	}
	pub, err := auth.ReadPublication(live.identity, doc.Publication, m.p.cfg.Now())
	if err != nil {
		return fmt.Errorf("read map: publication: %w", err)
	}
	t := &table{version: pub.Version, publication: doc.Publication}
	for _, e := range m.p.withInside(doc.Mappings) {
		if err := e.Check(); err != nil {
			return err
		}
		target, base, err := live.pool.target(e.Target)
		if err != nil {
			return fmt.Errorf("mapping %q: %w", e.Prefix, err)
		}
		t.mappings = append(t.mappings, mapping{prefix: strings.ToLower(e.Prefix), target: target, base: base,
			class: classOf(e.Prefix, pub.Routes), waits: mayWait(pub.Routes, e.Prefix),
			rows: m.p.traffic.resolve(strings.ToLower(e.Prefix), target, pub.Routes)})
	}
	slices.SortStableFunc(t.mappings, func(a, b mapping) int { return len(b.prefix) - len(a.prefix) })
	m.table.Store(t)
	m.raw = raw
	m.p.updateReadiness()
	m.p.publish()
	return nil
}

// follow asks for the map until ctx ends.
func (m *maps) follow(ctx context.Context) {
	client := newSiteClient(m.p)
	defer client.close()
	failing := false
	for {
		began := time.Now()
		waited, err := m.refresh(ctx, client.now())
		m.mu.Lock()
		m.state = "ok"
		if err != nil {
			m.state = err.Error()
		}
		m.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			m.p.log.Warn("the site's map cannot be had; going on with the last one", "err", err)
		case err == nil && failing:
			m.p.log.Info("the site's map can be had again")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(m.pause(waited, failing, time.Since(began))):
		}
	}
}

// pause is how long to wait before the map is asked for again. A site that
// waited with its answer tells of a change when it happens: it is asked again
// at once.
func (m *maps) pause(waited, failing bool, took time.Duration) time.Duration {
	const least = 100 * time.Millisecond // whatever the site makes of it
	every := m.p.cfg.MapEvery
	switch {
	case waited:
		return max(least-took, 0)
	case failing: // a site that comes back is wanted soon
		every = min(every, 2*time.Second)
	}
	return every*4/5 + rand.N(every*2/5+1)
}

// refresh asks for the map once. waited says that the site held the answer
// back until there was one, or until its time was over.
func (m *maps) refresh(ctx context.Context, client *http.Client) (waited bool, err error) {
	began := time.Now()
	raw, etag, waits, err := m.read(ctx, client)
	if err != nil || raw == nil {
		// One that says "unchanged" at once is about to end.
		return waits && time.Since(began) > time.Second, err
	}
	if m.has(raw) {
		m.etag = etag
		return waits, nil
	}
	if err := m.take(raw); err != nil {
		return false, err
	}
	m.etag = etag
	m.p.log.Info("new map", "version", m.table.Load().version, "mappings", len(m.table.Load().mappings))
	return waits, m.keep(raw)
}

// read gives the map, or nil where it is unchanged; waits says that the site
// waits for changes.
func (m *maps) read(ctx context.Context, client *http.Client) (raw []byte, etag string, waits bool, err error) {
	if !strings.HasPrefix(m.p.cfg.Map, "https://") {
		raw, err := os.ReadFile(m.p.cfg.Map)
		return raw, "", false, err
	}
	req, err := http.NewRequestWithContext(ctx, "GET", strings.TrimSuffix(m.p.cfg.Map, "/")+mapPath, nil)
	if err != nil {
		return nil, "", false, err
	}
	if m.etag != "" {
		req.Header.Set("If-None-Match", m.etag)
	}
	req.Header.Set("Prefer", "wait="+strconv.Itoa(mapWait)) // RFC 7240 section 4.3
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", false, err
	}
	defer resp.Body.Close()
	waits = strings.HasPrefix(resp.Header.Get("Preference-Applied"), "wait")
	if resp.StatusCode == http.StatusNotModified {
		return nil, "", waits, nil
	}
	if err := web.ReadAnswer(resp); err != nil {
		return nil, "", false, fmt.Errorf("ask %s for the map: %w", m.p.cfg.Map, err)
	}
	raw, err = io.ReadAll(io.LimitReader(resp.Body, maxMap+1))
	if err == nil && len(raw) > maxMap {
		err = fmt.Errorf("map of more than %d bytes: %w", maxMap, cmg.ErrTooLarge)
	}
	return raw, resp.Header.Get("ETag"), waits, err
}

func (m *maps) keep(raw []byte) error {
	f, err := os.CreateTemp(m.p.cfg.StateDir, mapFile+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is none of that name
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(m.p.cfg.StateDir, mapFile))
}
