//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// works are the workloads, as README.md tells them.
var works = map[string]func(r *runner, name string){
	"w1":     func(r *runner, n string) { r.http1(n, "/s", "") },
	"w1h2":   func(r *runner, n string) { r.http2(n, 64, 1) },
	"w1h2m":  func(r *runner, n string) { r.http2(n, 8, 8) },
	"w1rate": func(r *runner, n string) { r.load(n, "-mode rate -c 64 -r 1500 -d %s", r.length) },
	"w2":     func(r *runner, n string) { r.http1(n, "/p", filepath.Join(r.dir, "conf", "post.lua")) },
	"w3":     func(r *runner, n string) { r.load(n, "-mode dl -c 1 -limit 12s -n %d", r.size) },
	"w3p":    func(r *runner, n string) { r.load(n, "-mode dl -c 16 -limit 15s -n %d", r.size/8) },
	"w3u":    func(r *runner, n string) { r.load(n, "-mode ul -c 1 -n %d", r.size) },
	"w4":     func(r *runner, n string) { r.load(n, "-mode hs -c 32 -d %s", r.length) },
	"w4r":    func(r *runner, n string) { r.load(n, "-mode hs -c 32 -resume -d %s", r.length) },
	"w5":     (*runner).longPolls,
	"w6":     func(r *runner, n string) { r.load(n, "-mode dl -c 1 -limit 6s -n %d", int64(8)<<30) },
	"w6p":    func(r *runner, n string) { r.load(n, "-mode dl -c 16 -limit 6s -n %d", int64(8)<<30) },
	"w6u":    func(r *runner, n string) { r.load(n, "-mode ul -c 1 -n %d", int64(16)<<20) },
	"w6s":    func(r *runner, n string) { r.load(n, "-mode rate -c 64 -r 200 -d %s", r.length) },
}

// bulkWork reports whether bytes are counted in place of requests.
func bulkWork(name string) bool {
	return strings.HasPrefix(name, "w3") || farWork(name) && name != "w6s"
}

// farWork reports whether the delay proxy is in the channel.
func farWork(name string) bool { return strings.HasPrefix(name, "w6") }

// warm has connections and caches there before anything is measured.
func (r *runner) warm() {
	exec.Command(r.self, r.loadArgs("-mode rate -c 64 -r 2000 -d 1s")...).Run() // what goes wrong here goes wrong again, measured
}

func (r *runner) loadArgs(format string, a ...any) []string {
	args := []string{"load", "-addr", r.vars["FRONT"], "-ca", r.vars["CERTS"] + "/ca.pem"}
	if h := r.header(r.peer); h != "" {
		args = append(args, "-H", h)
	}
	return append(args, strings.Fields(fmt.Sprintf(format, a...))...)
}

// load measures our own load.
func (r *runner) load(name, format string, a ...any) {
	r.measure(name, readResult, r.self, r.loadArgs(format, a...)...)
}

func (r *runner) url(path string) string {
	return "https://localhost:" + r.vars["FRONTPORT"] + path
}

// seconds is the length of a measurement for programs that want whole ones.
func (r *runner) seconds() string { return strconv.Itoa(max(1, int(r.length.Seconds()))) }

// http1 measures 64 connections in a closed loop: with wrk, which costs
// little, or where it is not there with our own.
func (r *runner) http1(name, path, script string) {
	if _, err := exec.LookPath("wrk"); err != nil || r.own {
		size := 0
		if script != "" {
			size = 8 << 10
		}
		r.load(name, "-mode closed -c 64 -d %s -path %s -n %d", r.length, path, size)
		return
	}
	args := []string{"-t1", "-c64", "-d" + r.seconds() + "s", "--latency"}
	if h := r.header(r.peer); h != "" {
		args = append(args, "-H", h)
	}
	if script != "" {
		args = append(args, "-s", script)
	}
	r.measure(name, readWrk, "wrk", append(args, r.url(path))...)
}

// http2 measures a closed loop with h2load.
func (r *runner) http2(name string, conns, streams int) {
	log := filepath.Join(r.run, "h2load.log")
	os.Remove(log) // of the measurement before: it only grows
	args := []string{"-t1", "-c" + strconv.Itoa(conns), "-m" + strconv.Itoa(streams), "-D" + r.seconds(), "--log-file=" + log}
	if h := r.header(r.peer); h != "" {
		args = append(args, "-H", h)
	}
	r.measure(name, func(x *record, out []byte) { readH2load(x, out, log) }, "h2load", append(args, r.url("/s"))...)
}

// measure runs one load and records what it cost. read takes N, Err, Secs
// and latencies from what the load printed.
func (r *runner) measure(name string, read func(*record, []byte), program string, args ...string) {
	x := record{Round: r.round, Peer: r.peer.name, Work: name, Load: loadAverage()}
	before := calibrate()
	a := r.snapshot()
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "OPENSSL_CONF="+filepath.Join(r.run, "openssl.cnf"))
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	x.Secs = time.Since(begin).Seconds()
	b := r.snapshot()
	if err != nil {
		x.Note = clip(err.Error() + " " + string(out))
	} else {
		read(&x, out)
	}
	if s := cmd.ProcessState; s != nil {
		x.CPULoad = (s.UserTime() + s.SystemTime()).Seconds()
	}
	x.CPUEdge, x.CPUConn, x.CPUBack, x.Steal = b.edge-a.edge, b.conn-a.conn, b.back-a.back, b.steal-a.steal
	x.Foreign = b.busy - a.busy - x.CPUEdge - x.CPUConn - x.CPUBack - x.CPULoad - (b.other - a.other) - x.Steal
	x.RSSEdge, x.RSSConn = r.rss()
	x.Calib = (before + calibrate()) / 2
	r.emit(x)
}

func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return s[:min(len(s), 200)]
}

// longPolls parks W5's requests and measures W1 at 1,000/s before and
// meanwhile. Memory is the growth over the idle state.
func (r *runner) longPolls(name string) {
	const small = "-mode rate -c 64 -r 1000 -d %s"
	r.load("w5base", small, 2*r.length)
	edge, conn := r.rss()
	a := r.snapshot()
	cmd := exec.Command(r.self, r.loadArgs("-mode hold -c %d -ms %d -ramp 1500", r.polls, r.hold*1000)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	x := record{Round: r.round, Peer: r.peer.name, Work: name, Load: loadAverage()}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		x.Note = err.Error()
		r.emit(x)
		return
	}
	br := bufio.NewReader(out)
	ready, _ := br.ReadString('\n') // without it the result is missing too
	time.Sleep(3 * time.Second)
	edgeFull, connFull := r.rss()
	r.load("w5hold", small, 2*r.length)
	rest, _ := io.ReadAll(br)
	cmd.Wait() // a failure shows in rest
	b := r.snapshot()
	readResult(&x, rest)
	x.RSSEdge, x.RSSConn = edgeFull-edge, connFull-conn
	x.CPUEdge, x.CPUConn = b.edge-a.edge, b.conn-a.conn
	x.Note = clip(ready + " " + x.Note)
	r.emit(x)
}
