//go:build linux

package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/web"
)

// waitsMain is the server inside of scale runs: HTTPS with the settings of
// our management point, at which requests wait until all are let go.
//
//	GET /s        512 B
//	GET /hold     512 B once released
//	GET /waiting  how many wait
//	GET /release  releases them
func waitsMain(args []string) error {
	fs := flag.NewFlagSet("waits", flag.ExitOnError)
	addr := fs.String("addr", "127.0.0.1:9000", "listen address, on loopback")
	dir := fs.String("site", "site", "folder with management-point.crt and .key, roots.crt")
	fs.Parse(args)
	file := func(name string) string { return filepath.Join(*dir, name) }
	id, err := auth.LoadIdentity(auth.IdentityFiles{Certificate: file("management-point.crt"), Key: file("management-point.key"), Roots: file("roots.crt")})
	if err != nil {
		return fmt.Errorf("waits: %w", err)
	}
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	srv := &http.Server{Handler: newHall(), TLSConfig: id.Server(), HTTP2: web.Waits()}
	return web.Serve(ctx, srv, ln, time.Second)
}

// A hall is where requests wait.
type hall struct {
	*http.ServeMux
	waiting atomic.Int64

	door chan struct{} // closed to let those out that wait, and that come
	mu   sync.Mutex
	open bool
}

var smallBody = bytes.Repeat([]byte{'x'}, 512)

func newHall() *hall {
	h := &hall{ServeMux: http.NewServeMux(), door: make(chan struct{})}
	small := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(smallBody)
	}
	h.HandleFunc("/s", small)
	h.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		h.waiting.Add(1)
		defer h.waiting.Add(-1)
		select {
		case <-h.door:
			small(w, r)
		case <-r.Context().Done():
		}
	})
	h.HandleFunc("/waiting", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, h.waiting.Load()) })
	h.HandleFunc("/release", func(w http.ResponseWriter, _ *http.Request) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if !h.open {
			close(h.door)
		}
		h.open = true // for those too that are sent again
		io.WriteString(w, "released")
	})
	return h
}
