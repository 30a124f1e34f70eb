//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A runner starts one peer at a time, peers alternating within a round, and
// measures workloads on it.
type runner struct {
	dir, run, self string // the bench's folder, a scratch folder, this program
	ports          int
	own            bool // our own load also where wrk would do
	length         time.Duration
	hold, polls    int
	size           int64

	vars    map[string]string
	site    *site
	backend *process
	out     *os.File

	round  int
	peer   *peer
	procs  []*process
	faults int // measurements that failed
}

func (r *runner) port(of int) int { return r.ports + of }

func runMain(args []string) error {
	fs := flag.NewFlagSet("run", flag.ExitOnError)
	r := &runner{}
	peers := fs.String("peers", "cmg,nginx2", "files in peers/, by comma; cmg:BINARY is another build of ours")
	workloads := fs.String("wl", "w1", "workloads, by comma, or all; beside others w5 is measured in the first round only")
	rounds := fs.Int("rounds", 3, "")
	from := fs.Int("from", 1, "number of the first round")
	out := fs.String("o", "", "JSON lines are added to this file; empty: they replace results.jsonl in -run")
	base := fs.String("base", "nginx2", "peer that the ratios at the end are to")
	results := fs.String("results", "", "folder to keep the table in, as DATE.md")
	run := fs.String("run", "", "scratch folder, which keeps the peers' logs; empty: run in -dir")
	limit := fs.Duration("limit", 60*time.Minute, "start no further peer after this long")
	netns := fs.Bool("netns", true, "a network namespace of its own, when root")
	fs.StringVar(&r.dir, "dir", "bench", "folder with peers/ and conf/")
	fs.IntVar(&r.ports, "ports", 9000, "first port, of 604")
	fs.BoolVar(&r.own, "own", false, "our own load in place of wrk")
	fs.DurationVar(&r.length, "d", 3*time.Second, "length of a timed measurement")
	fs.IntVar(&r.hold, "hold", 45, "seconds a long poll of w5 waits")
	fs.IntVar(&r.polls, "polls", 10000, "long polls of w5")
	fs.Int64Var(&r.size, "bulk", 512<<20, "bytes of one stream of w3")
	fs.Parse(args)
	if *netns {
		if done, err := ownNamespace(); done || err != nil {
			return err
		}
	}
	if r.run = *run; r.run == "" {
		r.run = filepath.Join(r.dir, "run")
	}
	if *out == "" {
		*out = filepath.Join(r.run, "results.jsonl")
		if err := os.Remove(*out); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := r.prepare(*out); err != nil {
		return err
	}
	if *workloads == "all" {
		*workloads = everything
	}
	err := r.rounds(strings.Split(*peers, ","), strings.Split(*workloads, ","), *from, *rounds, *limit)
	err = errors.Join(err, r.finish(), reportFiles(os.Stdout, *base, false, *out))
	if *results != "" {
		err = errors.Join(err, r.keepTable(*results, *base, *out))
	}
	return err
}

const everything = "w1,w1h2,w1h2m,w1rate,w2,w3,w3p,w3u,w4,w4r,w5,w6,w6p,w6u,w6s"

// prepare makes what all peers need: certificates, a site, the backend.
func (r *runner) prepare(out string) (err error) {
	// Children die with the thread that started them: this one stays.
	runtime.LockOSThread()
	if r.self, err = os.Executable(); err != nil {
		return err
	}
	if r.run, err = filepath.Abs(r.run); err != nil {
		return err
	}
	if err := os.MkdirAll(r.run, 0o700); err != nil {
		return err
	}
	for _, dir := range []string{"certs", "site"} { // of an earlier run
		if err := os.RemoveAll(filepath.Join(r.run, dir)); err != nil {
			return err
		}
	}
	certs := filepath.Join(r.run, "certs")
	backend := local(r.port(portBackend))
	if err := makeCertificates(certs); err != nil {
		return err
	}
	if r.site, err = makeSite(filepath.Join(r.run, "site"), "http://"+backend, 1); err != nil {
		return err
	}
	r.vars = map[string]string{
		"RUN": r.run, "CERTS": certs, "SITE": r.site.dir, "BENCH": r.self, "BACKEND": backend, "BACKENDPORT": fmt.Sprint(r.port(portBackend)),
		"FRONT": local(r.port(portFront)), "FRONTPORT": fmt.Sprint(r.port(portFront)),
		"LISTEN": local(r.port(portChannel)), "LISTENPORT": fmt.Sprint(r.port(portChannel)),
		"INNER": local(r.port(portInner)), "INNERPORT": fmt.Sprint(r.port(portInner)),
	}
	for name, file := range programs {
		r.vars[name] = file
		if v := os.Getenv(name); v != "" {
			r.vars[name] = v
		}
	}
	if err := os.WriteFile(filepath.Join(r.run, "openssl.cnf"), []byte(opensslClient), 0o600); err != nil {
		return err
	}
	if r.out, err = os.OpenFile(out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err != nil {
		return err
	}
	r.backend, err = launch("backend", r.self+" backend -addr "+backend, filepath.Join(r.run, "backend.log"))
	return err
}

// finish ends the backend. A measurement that failed makes the run fail,
// after all others were made.
func (r *runner) finish() (err error) {
	r.backend.end()
	if r.faults > 0 {
		err = fmt.Errorf("%d measurements had errors", r.faults)
	}
	runtime.UnlockOSThread()
	return errors.Join(err, r.out.Close())
}

func (r *runner) rounds(names, workloads []string, from, rounds int, limit time.Duration) error {
	for _, wl := range workloads {
		if works[wl] == nil {
			return fmt.Errorf("there is no workload %q", wl)
		}
	}
	var peers []*peer
	for _, n := range names {
		p, err := readPeer(r.dir, n)
		if err != nil {
			return err
		}
		if missing := p.missing(r.vars); len(missing) > 0 {
			fmt.Fprintf(os.Stderr, "bench: LEFT OUT: %s: this machine has no %s\n", n, strings.Join(missing, ", "))
			continue
		}
		peers = append(peers, p)
	}
	begin := time.Now()
	for k := range rounds {
		r.round = from + k
		for _, p := range peers {
			if time.Since(begin) > limit {
				return errors.New("the time is up")
			}
			if err := r.measurePeer(p, workloads); err != nil {
				r.faults++
				fmt.Fprintln(os.Stderr, "bench:", err)
			}
		}
		slices.Reverse(peers) // every other round backwards, so that drift favours none
	}
	return nil
}

// measurePeer starts the peer twice where far work is to be done as well as
// near.
func (r *runner) measurePeer(p *peer, workloads []string) (err error) {
	r.peer = p
	var near, far []string
	for _, wl := range workloads {
		switch {
		case !p.serves(wl) || wl == "w5" && r.round > 1 && len(workloads) > 1:
		case farWork(wl):
			far = append(far, wl)
		default:
			near = append(near, wl)
		}
	}
	for _, list := range [][]string{near, far} {
		if len(list) == 0 {
			continue
		}
		if serr := r.start(p, farWork(list[0])); serr != nil {
			return errors.Join(err, serr, r.stop())
		}
		r.warm()
		for _, wl := range list {
			works[wl](r, wl)
		}
		err = errors.Join(err, r.stop())
	}
	return err
}

// A record is one measurement: one JSON line.
type record struct {
	Time    string  `json:"time"`
	Round   int     `json:"round"`
	Peer    string  `json:"peer"`
	Work    string  `json:"wl"`
	N       int64   `json:"n"` // requests, or bytes for W3 and W6
	Err     int64   `json:"err"`
	Secs    float64 `json:"secs"`
	P50     float64 `json:"p50ms"`
	P99     float64 `json:"p99ms"`
	CPUEdge float64 `json:"cpu_edge"` // seconds, as all that is called cpu
	CPUConn float64 `json:"cpu_conn"`
	CPUBack float64 `json:"cpu_back"`
	CPULoad float64 `json:"cpu_load"`
	Foreign float64 `json:"cpu_foreign"` // machine busy time that is none of ours
	Steal   float64 `json:"cpu_steal"`
	Load    float64 `json:"load1"`
	RSSEdge float64 `json:"rss_edge_mib"` // W5: what the long polls added
	RSSConn float64 `json:"rss_conn_mib"`
	Calib   float64 `json:"calib_ms"` // CPU time of a fixed piece of work, before and after (mean)
	Note    string  `json:"note,omitempty"`
}

// failed reports whether x is no measurement, or one with errors.
func (x record) failed() bool { return x.N == 0 || x.Err > 0 }

func (r *runner) emit(x record) {
	if x.failed() {
		r.faults++
	}
	x.Time = time.Now().UTC().Format("15:04:05")
	b, err := json.Marshal(x)
	if err == nil {
		_, err = r.out.Write(append(b, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: write record:", err)
	}
	n := max(1, float64(x.N)) // where nothing came, the note says why
	fmt.Printf("%s r%d %-12s %-6s n=%-10d err=%-3d %6.2fs rate=%-10.0f p50=%-7.2f p99=%-8.2f", x.Time, x.Round, x.Peer, x.Work, x.N, x.Err, x.Secs, n/x.Secs, x.P50, x.P99)
	if bulkWork(x.Work) {
		fmt.Printf(" MiB/CPU-s=%-7.0f", n/(1<<20)/(x.CPUEdge+x.CPUConn))
	} else {
		fmt.Printf(" µs/req e+c=%.1f+%.1f=%-6.1f", x.CPUEdge/n*1e6, x.CPUConn/n*1e6, (x.CPUEdge+x.CPUConn)/n*1e6)
	}
	fmt.Printf(" foreign=%.2f cal=%.1f load1=%.1f rss=%.0f+%.0f %s\n", x.Foreign, x.Calib, x.Load, x.RSSEdge, x.RSSConn, x.Note)
}
