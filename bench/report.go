//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
)

// A table is the records of some runs, by workload and peer.
type table struct {
	base         string
	works, peers []string // in the order in which they came
	cells        map[cell][]record
	speed        float64 // the median calibration
	calibs       []float64
}

type cell struct{ work, peer string }

func reportMain(args []string) error {
	fs := flag.NewFlagSet("report", flag.ExitOnError)
	base := fs.String("base", "nginx2", "peer that ratios are to")
	matrix := fs.Bool("matrix", false, "only the one table of all peers and workloads")
	fs.Parse(args)
	return reportFiles(os.Stdout, *base, *matrix, fs.Args()...)
}

// reportFiles prints, in Markdown, a matrix of all that the files hold and
// below it a table for each workload.
func reportFiles(w io.Writer, base string, matrix bool, files ...string) error {
	t := &table{base: base, cells: map[cell][]record{}}
	for _, f := range files {
		if err := t.read(f); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	slices.Sort(t.calibs)
	t.speed = median(t.calibs)
	t.matrix(w)
	if !matrix {
		for _, work := range t.works {
			t.work(w, work)
		}
	}
	return nil
}

func (t *table) read(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var x record
		if err := json.Unmarshal(sc.Bytes(), &x); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if !slices.Contains(t.works, x.Work) {
			t.works = append(t.works, x.Work)
		}
		if !slices.Contains(t.peers, x.Peer) {
			t.peers = append(t.peers, x.Peer)
		}
		c := cell{x.Work, x.Peer}
		t.cells[c] = append(t.cells[c], x)
		if x.Calib > 0 {
			t.calibs = append(t.calibs, x.Calib)
		}
	}
	return nil
}

// cost is µs of CPU for a request, or for bulk MiB for a CPU-second.
func cost(x record) float64 {
	cpu := x.CPUEdge + x.CPUConn
	if bulkWork(x.Work) {
		return float64(x.N) / (1 << 20) / cpu
	}
	return cpu / float64(x.N) * 1e6
}

// evened is the cost had the host been as fast as its median.
func (t *table) evened(x record) float64 {
	switch {
	case x.Calib == 0:
		return cost(x)
	case bulkWork(x.Work):
		return cost(x) * x.Calib / t.speed
	}
	return cost(x) * t.speed / x.Calib
}

// A figure is what a workload is about.
type figure struct {
	unit string
	of   func(record) float64
}

func figureOf(work string) figure {
	switch {
	case work == "w5":
		return figure{"KiB a poll", func(x record) float64 { return (x.RSSEdge + x.RSSConn) * 1024 / float64(x.N) }}
	case work == "w6s":
		return figure{"p50 ms", func(x record) float64 { return x.P50 }}
	case farWork(work):
		return figure{"MiB/s", func(x record) float64 { return float64(x.N) / (1 << 20) / x.Secs }}
	case bulkWork(work):
		return figure{"MiB/CPU-s", cost}
	}
	return figure{"µs/req", cost}
}

// ratios gives the quotients to the base in the same round, which hold
// although the host's speed does not.
func (t *table) ratios(c cell, of func(record) float64) (v []float64) {
	base := map[int]float64{}
	for _, x := range t.cells[cell{c.work, t.base}] {
		if !x.failed() {
			base[x.Round] = of(x)
		}
	}
	for _, x := range t.cells[c] {
		if b := base[x.Round]; b > 0 && x.N > 0 {
			v = append(v, of(x)/b)
		}
	}
	return v
}

func column(xs []record, of func(record) float64) (v []float64) {
	for _, x := range xs {
		if x.N > 0 {
			v = append(v, of(x))
		}
	}
	return v
}

// matrix prints the median cost of each peer in each workload, and in
// brackets the median ratio to the base.
func (t *table) matrix(w io.Writer) {
	if len(t.calibs) > 0 {
		fmt.Fprintf(w, "Host speed: calibration median %.1f ms CPU, 5 %%–95 %% %.1f–%.1f.\n\n", t.speed, quantile(t.calibs, .05), quantile(t.calibs, .95))
	}
	fmt.Fprintf(w, "The median of the rounds, and in brackets that of the ratios to %s in the same round. CPU and memory are of edge and connector together.\n\n| peer |", t.base)
	for _, work := range t.works {
		fmt.Fprintf(w, " %s, %s |", work, figureOf(work).unit)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(t.works)))
	for _, p := range t.peers {
		fmt.Fprintf(w, "| %s |", p)
		for _, work := range t.works {
			c, of := cell{work, p}, figureOf(work).of
			switch values := column(t.cells[c], of); {
			case len(values) == 0:
				fmt.Fprint(w, " |")
			case len(t.ratios(c, of)) == 0:
				fmt.Fprintf(w, " %s |", significant(median(values)))
			default:
				fmt.Fprintf(w, " %s (%.2f) |", significant(median(values)), median(t.ratios(c, of)))
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

// work prints one workload, a row a peer: medians over the rounds, and
// [lowest–highest]. The ratio is that of the workload's figure.
func (t *table) work(w io.Writer, work string) {
	rate, unit, scale := "req/s", "µs/req", 1.0
	if bulkWork(work) {
		rate, unit, scale = "MiB/s", "MiB/CPU-s", 1<<20
	}
	fmt.Fprintf(w, "### %s\n\n| peer | rounds | %s | p50 ms | p99 ms | %s | edge | connector | × %s | evened | errors | RSS MiB | others' CPU |\n|%s\n",
		work, rate, unit, t.base, strings.Repeat("---|", 13))
	for _, p := range t.peers {
		c := cell{work, p}
		xs := t.cells[c]
		if len(xs) == 0 {
			continue
		}
		var errs int64
		for _, x := range xs {
			errs += x.Err
		}
		evened := ""
		if u := figureOf(work).unit; u == "µs/req" || u == "MiB/CPU-s" {
			evened = spread(t.ratios(c, t.evened))
		}
		mid := func(of func(record) float64) float64 { return median(column(xs, of)) }
		share := func(cpu func(record) float64) string { // of one process
			return significant(mid(func(x record) float64 {
				if bulkWork(work) {
					return cpu(x) / float64(x.N) * (1 << 30)
				}
				return cpu(x) / float64(x.N) * 1e6
			}))
		}
		fmt.Fprintf(w, "| %s | %d | %.0f | %.2f | %.1f | %s | %s | %s | %s | %s | %d | %.0f+%.0f | %.0f %% |\n", p, len(xs),
			mid(func(x record) float64 { return float64(x.N) / x.Secs / scale }),
			mid(func(x record) float64 { return x.P50 }), mid(func(x record) float64 { return x.P99 }),
			significant(mid(cost)),
			share(func(x record) float64 { return x.CPUEdge }), share(func(x record) float64 { return x.CPUConn }),
			spread(t.ratios(c, figureOf(work).of)), evened, errs,
			mid(func(x record) float64 { return x.RSSEdge }), mid(func(x record) float64 { return x.RSSConn }),
			mid(func(x record) float64 { return x.Foreign / x.Secs / float64(runtime.NumCPU()) * 100 }))
	}
	fmt.Fprintln(w)
	if bulkWork(work) {
		fmt.Fprint(w, "Edge and connector: CPU-seconds a GiB.\n\n")
	}
	if work == "w5" {
		t.polls(w)
	}
}

// polls says what one long poll costs, and what they all do to W1.
func (t *table) polls(w io.Writer) {
	fmt.Fprint(w, "RSS is what the long polls added. One of them:\n\n| peer | edge KiB | connector KiB | W1's CPU meanwhile, × before |\n|---|---|---|---|\n")
	for _, p := range t.peers {
		xs := t.cells[cell{"w5", p}]
		if len(xs) == 0 {
			continue
		}
		w1 := func(work string) float64 { return median(column(t.cells[cell{work, p}], cost)) }
		fmt.Fprintf(w, "| %s | %.1f | %.1f | %.2f |\n", p,
			median(column(xs, func(x record) float64 { return x.RSSEdge * 1024 / float64(x.N) })),
			median(column(xs, func(x record) float64 { return x.RSSConn * 1024 / float64(x.N) })),
			w1("w5hold")/w1("w5base"))
	}
	fmt.Fprintln(w)
}

// significant writes three digits or so.
func significant(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func spread(v []float64) string {
	if len(v) == 0 {
		return ""
	}
	return fmt.Sprintf("**%.2f** [%.2f–%.2f]", median(v), slices.Min(v), slices.Max(v))
}

// quantile gives the value at p of a sorted slice.
func quantile(v []float64, p float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return v[min(int(p*float64(len(v))), len(v)-1)]
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
