//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The runner starts its own binary for the backend and the load: here that
// is the test's.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && commands[os.Args[1]] != nil {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestSmoke measures each kind of work for a moment, with our own load, so
// that the harness cannot rot: no figure is judged, but nothing may fail.
func TestSmoke(t *testing.T) {
	t.Setenv("CMG", builtProduct(t))
	dir := t.TempDir()
	lines := filepath.Join(dir, "out.jsonl")
	r := &runner{dir: ".", run: filepath.Join(dir, "run"), ports: freePorts(t), own: true,
		length: time.Second, hold: 7, polls: 50, size: 4 << 20}
	if err := r.prepare(lines); err != nil {
		t.Fatal(err)
	}
	works := []string{"w1", "w2", "w3", "w3u", "w4r", "w5", "w6u"}
	rerr := r.rounds([]string{"cmg"}, works, 1, 1, time.Minute)
	if err := r.finish(); err != nil || rerr != nil {
		log, _ := os.ReadFile(filepath.Join(r.run, "cmg.log"))
		t.Errorf("%v, %v\n%s", rerr, err, log)
	}
	f, err := os.Open(lines)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]bool{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var x record
		if err := json.Unmarshal(sc.Bytes(), &x); err != nil {
			t.Fatal(err)
		}
		if x.failed() || x.CPUEdge < 0 {
			t.Errorf("%s: %s", x.Work, sc.Text())
		}
		seen[x.Work] = true
	}
	for _, w := range append(works, "w5base", "w5hold") {
		if !seen[w] {
			t.Errorf("%s: no record", w)
		}
	}
	if err := r.keepTable(filepath.Join(dir, "results"), "cmg", lines); err != nil {
		t.Error(err)
	}
}

// freePorts finds a first port for a run that nobody else uses just now.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		base, free := 20000+rand.IntN(10000), true
		for _, of := range []int{portBackend, portFront, portChannel, portDelay, portInner, portGatewayStatus, portConnectionPointStatus, scaleStatus, scaleFront, scaleFront + 1, scaleChannel, scaleChannel + 1, scaleGateway, scaleGateway + 1} {
			ln, err := net.Listen("tcp", local(base+of))
			if err != nil {
				free = false
				continue
			}
			ln.Close()
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// TestPeers reads every peer and fills every configuration: no variable may
// be left over.
func TestPeers(t *testing.T) {
	files, err := filepath.Glob("peers/*.peer")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d peers, %v", len(files), err)
	}
	vars := map[string]string{}
	for _, v := range []string{"RUN", "CERTS", "SITE", "BENCH", "BACKEND", "BACKENDPORT", "FRONT", "FRONTPORT", "LISTEN", "LISTENPORT", "INNER", "INNERPORT", "CHAN", "CHANPORT"} {
		vars[v] = "x"
	}
	for name := range programs {
		vars[name] = "/nowhere"
	}
	for _, f := range files {
		p, err := readPeer(".", filepath.Base(f[:len(f)-len(".peer")]))
		if err != nil {
			t.Error(err)
			continue
		}
		if len(p.procs) == 0 || len(p.missing(vars)) == 0 {
			t.Errorf("%s: starts %d programs, %v of them missing", f, len(p.procs), p.missing(vars))
		}
		for _, l := range p.procs {
			if s := expand(l[1], p.vars, vars); leftOver.MatchString(s) {
				t.Errorf("%s: %s", f, s)
			}
		}
	}
}
