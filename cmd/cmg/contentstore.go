package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/blob"
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
		run: func(ctx context.Context, s *setup, c contentStoreSection) error {
			cs, err := newContentStore(c, s.log)
			if err != nil {
				return err
			}
			defer cs.disk.Close()
			return cs.run(ctx)
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

	requests, bytes atomic.Int64
}

// newContentStore checks c, opens the store and listens to nothing.
func newContentStore(c contentStoreSection, log *slog.Logger) (*contentStore, error) {
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
	cs := &contentStore{cfg: c, log: log, health: web.NewHealth(string(cmg.RoleContentStore))}
	if cs.disk, err = blob.NewDisk(blob.DiskConfig{Dir: c.Dir, URL: c.URL, Key: key}); err != nil {
		return nil, fmt.Errorf("content store: %w", err)
	}
	cs.server = &http.Server{Handler: cs.counted(cs.disk.Handler(log)), TLSConfig: front}
	cs.health.Publish("requests", func() any { return cs.requests.Load() })
	cs.health.Publish("bytes", func() any { return cs.bytes.Load() })
	return cs, nil
}

// run serves until ctx ends.
func (cs *contentStore) run(ctx context.Context) error {
	ln, err := net.Listen("tcp", cs.cfg.Listen)
	if err != nil {
		return fmt.Errorf("content store: %w", err)
	}
	parts := []func(context.Context) error{func(ctx context.Context) error { return web.Serve(ctx, cs.server, ln, cs.cfg.Drain) }}
	if cs.cfg.Status != "" {
		status, err := net.Listen("tcp", cs.cfg.Status)
		if err != nil {
			ln.Close()
			return fmt.Errorf("content store: status: %w", err)
		}
		parts = append(parts, func(ctx context.Context) error {
			return web.Serve(ctx, &http.Server{Handler: cs.health.Handler()}, status, time.Second)
		})
	}
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
