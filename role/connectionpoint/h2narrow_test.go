package connectionpoint

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestNarrowServers meets servers of HTTP/2 that take no stream, or no body,
// for a beginning: a request that can never go on a connection to them goes
// over HTTP/1.1, and no connection is made for it again and again.
func TestNarrowServers(t *testing.T) {
	t.Parallel()
	for name, setting := range map[string]http2.Setting{
		"no body":   {ID: http2.SettingInitialWindowSize, Val: 0},
		"no stream": {ID: http2.SettingMaxConcurrentStreams, Val: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := must[net.Listener](t)(tls.Listen("tcp", "127.0.0.1:0", getSite(t).inner.Server()))
			var running sync.WaitGroup
			var wide, plain atomic.Int64
			running.Go(func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					running.Go(func() {
						defer c.Close()
						c.SetDeadline(time.Now().Add(patience))
						if c.(*tls.Conn).Handshake() != nil {
							return
						}
						if c.(*tls.Conn).ConnectionState().NegotiatedProtocol == "h2" {
							wide.Add(1)
							io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
							f := http2.NewFramer(c, c)
							f.WriteSettings(setting)
							for err := error(nil); err == nil; { // until the client closes
								_, err = f.ReadFrame()
							}
							return
						}
						plain.Add(1)
						c.Read(make([]byte, 64<<10))
						io.WriteString(c, empty)
					})
				}
			})
			t.Cleanup(func() {
				ln.Close()
				running.Wait()
			})
			g, _ := start(t, "/bgb", "https://"+ln.Addr().String())
			if a := g.do("POST", "/bgb/x", []byte("body")); a.status != http.StatusOK || a.err != nil {
				t.Errorf("%+v", a)
			}
			if wide.Load() > 1 || plain.Load() != 1 {
				t.Errorf("%d connections of HTTP/2 and %d of HTTP/1.1 were made, want at most 1 and 1", wide.Load(), plain.Load())
			}
		})
	}
}
