package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/blob"
	"github.com/opencmg/cmg/handover"
	"github.com/opencmg/cmg/web"
)

// A contentStoreSection says what the disk store's listener needs.
type contentStoreSection struct {
	Listen      string        `json:"listen"`      // clients and gateways, HTTPS; empty: :8444
	Certificate string        `json:"certificate"` // PEM file: what clients see, with its chain
	Key         string        `json:"key"`         // PEM file
	Dir         string        `json:"dir"`         // folder of the store
	URL         string        `json:"url"`         // base address as clients reach it
	KeyFile     string        `json:"key_file"`    // the store's signing key
	Status      string        `json:"status"`      // health and status, plain HTTP: keep it on loopback; empty: none
	Drain       time.Duration `json:"drain"`       // for downloads under way when told to stop; 0: 20s
}

func contentServeCommand(a *app) *cobra.Command {
	return roleCommand[contentStoreSection]{
		use: "serve", section: "content_store",
		short: "Run the listener of a disk store: downloads by signed URL",
		long: `Serves the packages of a disk store to whoever holds a signed URL that has not
expired: nothing is listed, nothing can be written.`,
		run: func(ctx context.Context, s *setup, c contentStoreSection, again func() (contentStoreSection, error)) error {
			cs, err := newContentStore(c, s.log)
			if err != nil {
				return err
			}
			defer cs.disk.Close()
			l := s.life()
			health, asked := l.add(cmg.RoleContentStore, "up")
			cs.live(health, s.app.sockets, web.Again[contentStoreSection]{Read: again, Asked: asked})
			return l.run(ctx, cs.run)
		},
	}.command(a)
}

// A contentStore is a disk store and its listener.
type contentStore struct {
	cfg    contentStoreSection
	log    *slog.Logger
	disk   *blob.Disk
	server *http.Server
	health *web.Health

	given   atomic.Pointer[contentStoreSection] // as it came
	front   atomic.Pointer[tls.Config]
	sockets *handover.Sockets
	reload  *web.Reloader // nil: its configuration stays

	requests, bytes atomic.Int64
}

// newContentStore checks c, opens the store and listens to nothing.
func newContentStore(c contentStoreSection, log *slog.Logger) (*contentStore, error) {
	given := c
	if c.Listen == "" {
		c.Listen = ":8444"
	}
	if c.Drain == 0 {
		c.Drain = 20 * time.Second
	}
	front, err := auth.GatewayFront(c.Certificate, c.Key)
	if err != nil {
		return nil, fmt.Errorf("content store: %w", err)
	}
	key, err := blob.LoadKey(c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("content store: %w", err)
	}
	if c.URL == "" {
		return nil, fmt.Errorf("content store: url is empty: %w", cmg.ErrInvalid)
	}
	cs := &contentStore{cfg: c, log: log}
	cs.front.Store(front)
	cs.given.Store(&given)
	if cs.disk, err = blob.NewDisk(blob.DiskConfig{Dir: c.Dir, URL: c.URL, Key: key}); err != nil {
		return nil, fmt.Errorf("content store: %w", err)
	}
	cs.server = &http.Server{Handler: cs.counted(cs.disk.Handler(log)), TLSConfig: auth.Following(cs.front.Load)}
	cs.live(web.NewHealth(string(cmg.RoleContentStore)), nil, web.Again[contentStoreSection]{})
	return cs, nil
}

// live tells cs where to say how it fares, and how it is told to change.
func (cs *contentStore) live(h *web.Health, sockets *handover.Sockets, again web.Again[contentStoreSection]) {
	cs.health, cs.sockets = h, sockets
	h.Publish("requests", func() any { return cs.requests.Load() })
	h.Publish("bytes", func() any { return cs.bytes.Load() })
	cs.reload = web.NewReloader(h, cs.log, again, func() contentStoreSection { return *cs.given.Load() }, cs.install,
		func() []string { c := cs.given.Load(); return []string{c.Certificate, c.Key} })
}

// install takes the certificate and its key anew; nothing else can change.
func (cs *contentStore) install(c contentStoreSection) (changed, later []string, err error) {
	changed, later = web.Differences(*cs.given.Load(), &c, "listen", "dir", "url", "key_file", "status", "drain")
	front, err := auth.GatewayFront(c.Certificate, c.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("content store: %w", err)
	}
	cs.front.Store(front)
	cs.given.Store(&c)
	return changed, later, nil
}

// run serves until ctx ends.
func (cs *contentStore) run(ctx context.Context) error {
	ln, err := cs.sockets.Listen(ctx, "content-store", cs.cfg.Listen, nil)
	if err != nil {
		return fmt.Errorf("content store: %w", err)
	}
	parts := []func(context.Context) error{func(ctx context.Context) error { return web.Serve(ctx, cs.server, ln, cs.cfg.Drain) }}
	if cs.cfg.Status != "" {
		status, err := cs.sockets.Listen(ctx, "status", cs.cfg.Status, nil)
		if err != nil {
			ln.Close()
			return fmt.Errorf("content store: status: %w", err)
		}
		parts = append(parts, func(ctx context.Context) error {
			return web.Serve(ctx, &http.Server{Handler: cs.health.Handler()}, status, time.Second)
		})
	}
	parts = append(parts, func(ctx context.Context) error { cs.reload.Run(ctx); return nil })
	cs.health.Set("up", nil)
	cs.log.Info("content store is up", "addr", ln.Addr().String(), "url", cs.cfg.URL)
	return together(ctx, parts...)
}

// counted counts requests and bytes sent.
func (cs *contentStore) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cs.requests.Add(1)
		h.ServeHTTP(&countingWriter{w, &cs.bytes}, r)
	})
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.n.Add(int64(n))
	return n, err
}

func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// together runs all of fs at once until ctx ends or one of them does, then
// ends the others, and returns when all have.
func together(ctx context.Context, fs ...func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, len(fs))
	for _, f := range fs {
		go func() {
			defer stop()
			ended <- f(ctx)
		}()
	}
	var errs []error
	for range fs {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}
