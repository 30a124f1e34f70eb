//go:build linux

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var leftOver = regexp.MustCompile(`\$[A-Z]`)

const wrkGood = `Running 3s test @ https://localhost:9443/s
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.19ms    9.77ms 145.10ms   98.08%
  Latency Distribution
     50%    1.20ms
     75%    1.63ms
     90%    2.01ms
     99%  750.00us
  66346 requests in 3.03s, 41.38MB read
Requests/sec:  21896.22
`

const h2loadGood = `finished in 3.57s, 3339.04 req/s, 1.98MB/s
requests: 11921 total, 11985 started, 11921 done, 11920 succeeded, 1 failed, 1 errored, 0 timeout
status codes: 11921 2xx, 0 3xx, 0 4xx, 0 5xx
`

func TestOutput(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(log, []byte("1\t200\t3000\n2\t200\t1000\n3\t200\t2000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h2 := func(x *record, out []byte) { readH2load(x, out, log) }
	for _, c := range []struct {
		name string
		read func(*record, []byte)
		out  string
		want record
	}{
		{"wrk", readWrk, wrkGood, record{N: 66346, Secs: 3.03, P50: 1.2, P99: .75}},
		{"wrk, refused", readWrk, wrkGood + "  Non-2xx or 3xx responses: 66346\n", record{Err: 66346, Secs: 3.03, P50: 1.2, P99: .75, Note: "Non-2xx or 3xx responses: 66346"}},
		{"wrk, cut", readWrk, wrkGood + "  Socket errors: connect 0, read 2, write 0, timeout 1\n", record{N: 66346, Err: 3, Secs: 3.03, P50: 1.2, P99: .75, Note: "Socket errors: connect 0, read 2, write 0, timeout 1"}},
		{"wrk, nothing", readWrk, "unable to\nconnect", record{Note: "unable to connect"}},
		{"h2load", h2, h2loadGood, record{N: 11920, Err: 1, Secs: 3.57, P50: 2, P99: 3, Note: strings.Split(h2loadGood, "\n")[1]}},
		{"h2load, nothing", h2, "oh", record{Note: "oh"}},
		{"own", readResult, "READY\n" + `{"n":7,"err":1,"secs":2,"p50us":1500,"p99us":2000,"first_err":"no"}`, record{N: 7, Err: 1, Secs: 2, P50: 1.5, P99: 2, Note: "no"}},
		{"own, bulk", readResult, `{"n":1,"bytes":1048576,"secs":2}`, record{N: 1 << 20, Secs: 2}},
		{"own, nothing", readResult, "", record{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var x record
			c.read(&x, []byte(c.out))
			if d := cmp.Diff(c.want, x); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestReport has the ratios taken within a round: the second round ran at
// half the speed, and the third, where the base failed, does not count.
func TestReport(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.jsonl")
	lines := `{"round":1,"peer":"cmg","wl":"w1","n":100000,"secs":1,"cpu_edge":1,"cpu_conn":1,"calib_ms":10}
{"round":1,"peer":"nginx2","wl":"w1","n":100000,"secs":1,"cpu_edge":2,"cpu_conn":2,"calib_ms":10}
{"round":2,"peer":"cmg","wl":"w1","n":100000,"secs":1,"cpu_edge":2,"cpu_conn":2,"calib_ms":20}
{"round":2,"peer":"nginx2","wl":"w1","n":100000,"secs":1,"cpu_edge":4,"cpu_conn":4,"calib_ms":20}
{"round":3,"peer":"cmg","wl":"w1","n":100000,"secs":1,"cpu_edge":2,"cpu_conn":2,"calib_ms":20}
{"round":3,"peer":"nginx2","wl":"w1","n":0,"err":5,"secs":1,"calib_ms":20}
{"round":1,"peer":"cmg","wl":"w3","n":1073741824,"secs":2,"cpu_edge":1,"cpu_conn":1,"calib_ms":10}
`
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := reportFiles(&b, "nginx2", false, file); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| cmg | 40.0 (0.50) | 512 |\n", "| nginx2 | 60.0 (1.00) | |\n",
		"| cmg | 3 | 100000 | 0.00 | 0.0 | 40.0 | 20.0 | 20.0 | **0.50** [0.50–0.50] | **0.50** [0.50–0.50] | 0 |",
		"| nginx2 | 3 | 100000 | 0.00 | 0.0 | 60.0 | 30.0 | 30.0 | **1.00** [1.00–1.00] | **1.00** [1.00–1.00] | 5 |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
