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
	fmt.Fprintf(w, "µs of CPU (edge + connector) for a request, for w3 and w6 MiB for a CPU-second; in brackets the median ratio to %s.\n\n", t.base)
	fmt.Fprintf(w, "| peer | %s |\n|---|%s\n", strings.Join(t.works, " | "), strings.Repeat("---|", len(t.works)))
	for _, p := range t.peers {
		fmt.Fprintf(w, "| %s |", p)
		for _, work := range t.works {
			c := cell{work, p}
			switch costs := column(t.cells[c], cost); {
			case len(costs) == 0:
				fmt.Fprint(w, " |")
			case len(t.ratios(c, cost)) == 0:
				fmt.Fprintf(w, " %s |", significant(median(costs)))
			default:
				fmt.Fprintf(w, " %s (%.2f) |", significant(median(costs)), median(t.ratios(c, cost)))
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

// work prints one workload, a row a peer: medians over the rounds, and
// [lowest–highest].
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
			spread(t.ratios(c, cost)), spread(t.ratios(c, t.evened)), errs,
			mid(func(x record) float64 { return x.RSSEdge }), mid(func(x record) float64 { return x.RSSConn }),
			mid(func(x record) float64 { return x.Foreign / x.Secs / float64(runtime.NumCPU()) * 100 }))
	}
	fmt.Fprintln(w)
	if bulkWork(work) {
		fmt.Fprint(w, "Edge and connector: CPU-seconds a GiB.\n\n")
	}
	if work == "w5" {
		fmt.Fprint(w, "RSS is what the long polls added.\n\n")
	}
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
