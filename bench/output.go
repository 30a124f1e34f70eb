//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// readResult reads the JSON line of our own load.
func readResult(x *record, out []byte) {
	var res result
	i := bytes.LastIndex(out, []byte(`{"n"`))
	if i < 0 || json.Unmarshal(out[i:], &res) != nil {
		x.Note = clip(string(out))
		return
	}
	x.N, x.Err, x.Secs, x.P50, x.P99, x.Note = res.N, res.Err, res.Secs, res.P50/1e3, res.P99/1e3, clip(res.First)
	if res.Bytes > 0 {
		x.N = res.Bytes
	}
}

var (
	wrkCount   = regexp.MustCompile(`(\d+) requests in ([\d.]+)(us|ms|s|m)`)
	wrkLatency = regexp.MustCompile(`(50|99)%\s+([\d.]+)(us|ms|s)`)
	wrkStatus  = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	wrkSocket  = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	h2Time     = regexp.MustCompile(`finished in ([\d.]+)(us|ms|s)`)
	h2Count    = regexp.MustCompile(`requests: (\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout`)
)

func millis(value, unit []byte) float64 {
	return number(string(value)) * map[string]float64{"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}[string(unit)]
}

func count(digits []byte) int64 {
	n, _ := strconv.ParseInt(string(digits), 10, 64)
	return n
}

// readWrk reads what wrk prints with --latency. Answers that were refusals do
// not count as answers.
func readWrk(x *record, out []byte) {
	m := wrkCount.FindSubmatch(out)
	if m == nil {
		x.Note = clip(string(out))
		return
	}
	x.N, x.Secs = count(m[1]), millis(m[2], m[3])/1e3
	for _, m := range wrkLatency.FindAllSubmatch(out, -1) {
		if v := millis(m[2], m[3]); string(m[1]) == "50" {
			x.P50 = v
		} else {
			x.P99 = v
		}
	}
	if m := wrkStatus.FindSubmatch(out); m != nil {
		x.Err = count(m[1])
		x.N -= x.Err
		x.Note = string(m[0])
	}
	if m := wrkSocket.FindSubmatch(out); m != nil {
		for _, n := range m[1:] {
			x.Err += count(n)
		}
		x.Note = strings.TrimSpace(x.Note + " " + string(m[0]))
	}
}

// readH2load reads what h2load prints, and latencies from its log: start,
// status and µs, one line an answer.
func readH2load(x *record, out []byte, log string) {
	m := h2Count.FindSubmatch(out)
	if m == nil {
		x.Note = clip(string(out))
		return
	}
	x.N, x.Err = count(m[4]), count(m[5])
	if x.Err > 0 {
		x.Note = string(m[0])
	}
	if m := h2Time.FindSubmatch(out); m != nil {
		x.Secs = millis(m[1], m[2]) / 1e3
	}
	f, err := os.Open(log)
	if err != nil {
		x.Note = clip(x.Note + " " + err.Error())
		return
	}
	defer f.Close()
	var ms []float64
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if c := strings.Fields(sc.Text()); len(c) == 3 {
			ms = append(ms, number(c[2])/1e3)
		}
	}
	slices.Sort(ms)
	x.P50, x.P99 = quantile(ms, .50), quantile(ms, .99)
}
