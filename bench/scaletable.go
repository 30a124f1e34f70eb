//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// sockets counts the TCP connections that the connection point holds towards
// the server, as the kernel lists them: of the server's port, seen from
// outside of it, and established.
func (s *scaleRun) sockets() (n int) {
	b, _ := os.ReadFile("/proc/net/tcp") // one that cannot be read shows none: the caller sees it
	port := fmt.Sprintf(":%04X", s.port(scaleBackend))
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l) // number, local address, remote address, state
		if len(f) > 3 && strings.HasSuffix(f[2], port) && f[3] == "01" {
			n++
		}
	}
	return n
}

const scaleHead = `| instances | clients | gateway, KiB each | connection point, KiB each | server, KiB each | sockets to the server | W1 p99 before, ms | meanwhile | W1 µs/req before | meanwhile | parked in, s | answered in, s | lost | local ports | load before |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
`

func (x scaleResult) row() string {
	each := func(mib float64) float64 { return mib * 1024 / float64(x.Clients) }
	return fmt.Sprintf("| %d | %d | %.1f | %.1f | %.1f | %d | %.1f | %.1f | %.0f | %.0f | %.0f | %.1f | %d | %s | %.1f |\n",
		x.Instances, x.Clients, each(x.Gateway), each(x.Point), each(x.Inner), x.Sockets,
		x.Before.P99/1e3, x.Meanwhile.P99/1e3, x.CPUBefore, x.CPUWhile, x.Parking, x.Answering,
		int64(x.Clients)-x.Answered, x.LocalPorts, x.Load)
}

// keepScale adds the run to the day's table.
func keepScale(dir, binary string, x scaleResult) error {
	now := time.Now().UTC()
	f, err := os.OpenFile(filepath.Join(dir, now.Format("2006-01-02")+"-scale.md"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("keep table: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() == 0 {
		r := &runner{vars: map[string]string{"CMG": binary, "NGINX": "nginx"}}
		r.conditions(f, now)
		fmt.Fprint(f, "Clients that wait, over TLS, at a server of HTTP/2 behind one connection point, all on this machine with the load. Memory is growth over the idle state; W1 runs at 500/s on the first instance. Then all are answered at once.\n\n"+scaleHead)
	}
	_, err = f.WriteString(x.row())
	return err
}
