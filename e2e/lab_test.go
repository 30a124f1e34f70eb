// Package e2e tells stories against the built binary: a lab of real
// processes on this machine, used, killed and started again as a person
// would.
package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// built is what the stories run: CMG_BINARY, or built here.
var built = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("CMG_BINARY"); b != "" {
		return filepath.Abs(b)
	}
	dir, err := os.MkdirTemp("", "cmg-e2e-")
	if err != nil {
		return "", err
	}
	b := filepath.Join(dir, "cmg")
	out, err := exec.Command("go", "build", "-o", b, "github.com/opencmg/cmg/cmd/cmg").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return b, nil
})

// cmg runs a command to its end.
func cmg(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	b, err := built()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(b, args...)
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil && c.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// must is cmg for a command that has to succeed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, code := cmg(t, args...)
	if code != 0 {
		t.Fatalf("cmg %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// A lab is a running cmg lab.
type lab struct {
	t    *testing.T
	dir  string
	base int
	env  map[string]string
	cmd  *exec.Cmd

	mu  sync.Mutex
	out strings.Builder
}

// freeBase finds a hundred ports of which none is in use.
func freeBase(t *testing.T) int {
	t.Helper()
	first := rand.IntN(100) // another run on this machine may be looking as well
	for n := range 100 {
		base := 20000 + (first+n)%100*100
		free := true
		for n := base + 40; n < base+94 && free; n++ {
			ln, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(n))
			if free = err == nil; free {
				ln.Close()
			}
		}
		if free {
			return base
		}
	}
	t.Fatal("no hundred free ports")
	return 0
}

// startLab starts a lab, waits until its first pass is done, and sees to it
// that it ends cleanly, leaving no process behind.
func startLab(t *testing.T, args ...string) *lab {
	t.Helper()
	b, err := built()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, dir: filepath.Join(t.TempDir(), "lab"), base: freeBase(t)}
	l.cmd = exec.Command(b, append([]string{"lab", "--dir", l.dir, "--port-base", strconv.Itoa(l.base)}, args...)...)
	pipe, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.cmd.Stderr = l.cmd.Stdout
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		lines, once := bufio.NewScanner(pipe), sync.Once{}
		for lines.Scan() {
			l.mu.Lock()
			l.out.WriteString(lines.Text() + "\n")
			l.mu.Unlock()
			if strings.HasPrefix(lines.Text(), "up until Ctrl-C") {
				once.Do(func() { close(up) })
			}
		}
	}()
	t.Cleanup(func() { l.stop(done) })
	select {
	case <-up:
	case <-done:
		t.Fatalf("the lab ended early:\n%s", l.output())
	case <-time.After(3 * time.Minute):
		t.Fatalf("the lab did not come up:\n%s", l.output())
	}
	l.readEnv()
	return l
}

func (l *lab) output() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.String()
}

func (l *lab) stop(done chan struct{}) {
	pids := l.pids()
	l.cmd.Process.Signal(syscall.SIGTERM)
	<-done
	if err := l.cmd.Wait(); err != nil {
		l.t.Errorf("the lab ended with %v:\n%s", err, l.output())
	}
	for name, pid := range pids {
		if alive(pid) {
			l.t.Errorf("%s (process %d) outlived the lab", name, pid)
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	if l.t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(l.dir, "run", "*.log"))
		for _, f := range logs {
			b, _ := os.ReadFile(f)
			l.t.Logf("%s:\n%s", filepath.Base(f), b[max(0, len(b)-3000):])
		}
	}
}

// alive says that a process runs: one that has ended and that nobody has
// waited for has no command line.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && len(b) > 0
}

func (l *lab) readEnv() {
	b, err := os.ReadFile(filepath.Join(l.dir, "env.sh"))
	if err != nil {
		l.t.Fatal(err)
	}
	l.env = map[string]string{}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "="); ok {
			l.env[k] = strings.Trim(v, `'"`)
		}
	}
	for _, k := range []string{"CMG_URL", "CMG_RESOLVE", "CMG_CA", "CMG_CLIENT_CERT", "CMG_CLIENT_KEY", "CMG_TOKEN", "CMG_MP_MUTUAL", "CMG_MP_SERVER", "CMG_PACKAGE"} {
		if l.env[k] == "" {
			l.t.Fatalf("env.sh does not set %s:\n%s", k, b)
		}
	}
}

// pids gives the process of each role, by name such as gateway-1.
func (l *lab) pids() map[string]int {
	files, _ := filepath.Glob(filepath.Join(l.dir, "run", "*.pid"))
	m := map[string]int{}
	for _, f := range files {
		b, _ := os.ReadFile(f)
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			m[strings.TrimSuffix(filepath.Base(f), ".pid")] = n
		}
	}
	return m
}

// kill ends a process as a power cut would.
func (l *lab) kill(name string) {
	l.t.Helper()
	pid := l.pids()[name]
	if pid == 0 {
		l.t.Fatalf("no process %s", name)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		l.t.Fatalf("kill %s: %v", name, err)
	}
}

// again starts a killed process with the script the lab wrote for it.
func (l *lab) again(name string) {
	l.t.Helper()
	out, err := exec.Command("sh", filepath.Join(l.dir, "run", name+".sh")).CombinedOutput()
	if err != nil {
		l.t.Fatalf("start %s again: %v\n%s", name, err, out)
	}
}

// statusPorts are the offsets of the status listeners, as cmg lab --help
// tells them.
var statusPorts = map[string]int{"gateway-1": 51, "gateway-2": 52, "connection-point-1": 61, "connection-point-2": 62,
	"management-point-1": 71, "content-store-1": 81, "agent-1": 91, "agent-2": 92, "agent-3": 93}

// status asks a role's status page.
func (l *lab) status(name string, into any) error {
	return l.local(name, "/status", into)
}

func (l *lab) local(name, path string, into any) error {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", l.base+statusPorts[name], path))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s%s: %s: %s", name, path, resp.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// until waits for something that has to come true. The limit is no
// measurement: it only ends a story that hangs.
func (l *lab) until(what string, f func() error) time.Duration {
	l.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return time.Since(began)
		}
		select {
		case <-ctx.Done():
			l.t.Fatalf("%s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *lab) ready(name string) error { return l.local(name, "/readyz", nil) }

// client makes an HTTP client on the internet: it trusts the lab's roots,
// finds the service name as curl --resolve does, and shows a certificate if
// asked to.
func (l *lab) client(certificate bool) *http.Client {
	l.t.Helper()
	roots, err := os.ReadFile(l.env["CMG_CA"])
	if err != nil {
		l.t.Fatal(err)
	}
	conf := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	conf.RootCAs.AppendCertsFromPEM(roots)
	if certificate {
		pair, err := tls.LoadX509KeyPair(l.env["CMG_CLIENT_CERT"], l.env["CMG_CLIENT_KEY"])
		if err != nil {
			l.t.Fatal(err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	tr := &http.Transport{TLSClientConfig: conf, MaxIdleConnsPerHost: 64, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, "127.0.0.1:"+strconv.Itoa(l.base+43))
	}}
	l.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 60 * time.Second}
}
