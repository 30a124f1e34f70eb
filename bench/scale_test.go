//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// builtProduct gives the binary to measure.
func builtProduct(t *testing.T) string {
	t.Helper()
	if b := os.Getenv("CMG_BINARY"); b != "" {
		return b
	}
	binary := filepath.Join(t.TempDir(), "cmg")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/cmg").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// TestScaleSmoke parks a few clients on two instances: all are answered.
func TestScaleSmoke(t *testing.T) {
	const clients = 200
	dir := t.TempDir()
	s := &scaleRun{run: filepath.Join(dir, "run"), cmg: builtProduct(t), ports: freePorts(t), instances: 2, clients: clients,
		ramp: 500, length: time.Second, procs: map[string]*process{}}
	x, err := s.measure()
	if err != nil {
		t.Fatal(err)
	}
	if x.Answered != clients || x.Failed != 0 || x.Sockets == 0 || x.Before.N == 0 || x.Meanwhile.N == 0 {
		t.Errorf("%+v", x)
	}
	for range 2 {
		if err := keepScale(dir, s.cmg, x); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, time.Now().UTC().Format("2006-01-02")+"-scale.md"))
	if n := strings.Count(string(b), "\n| 2 | 200 |"); err != nil || n != 2 {
		t.Errorf("%d rows, %v:\n%s", n, err, b)
	}
}

// TestFewSockets has thousands of clients wait behind a connection point that
// has few ports to dial from, in a network namespace of its own. With
// CMG_LONG=1 they are 15,000 and the ports 1,000: fewer than 200 sockets to
// the server have to do.
func TestFewSockets(t *testing.T) {
	_, noIP := exec.LookPath("ip")
	if os.Getuid() == 0 && noIP != nil && os.Getenv("CI") == "true" {
		t.Fatal(noIP)
	}
	if os.Getuid() != 0 || noIP != nil {
		t.Skip("SKIPPED, NOT PROVEN: a network namespace needs root and ip (iproute2)")
	}
	clients, ports, most, ramp := 1500, 250, 199, 1500
	if os.Getenv("CMG_LONG") != "" {
		clients, ports, ramp = 15000, 1000, 1000
	}
	cmd := exec.Command("/proc/self/exe", "scale", "-cmg", builtProduct(t), "-run", filepath.Join(t.TempDir(), "run"), "-d", "1s",
		"-clients", fmt.Sprint(clients), "-local-ports", fmt.Sprint(ports), "-max-sockets", fmt.Sprint(most), "-ramp", fmt.Sprint(ramp))
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if strings.Contains(said.String(), "needs a network namespace") && os.Getenv("CI") != "true" {
		t.Skipf("SKIPPED, NOT PROVEN: %s", said.String())
	}
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, said.String())
	}
	var x scaleResult
	if err := json.Unmarshal(out, &x); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if x.Answered != int64(clients) || x.Sockets == 0 || x.Sockets > most {
		t.Errorf("%+v", x)
	}
	if want := fmt.Sprintf("20000–%d", 20000+ports-1); x.LocalPorts != want {
		t.Errorf("the ports were %s, not %s", x.LocalPorts, want)
	}
	t.Logf("%d clients, %d sockets", clients, x.Sockets)
}
