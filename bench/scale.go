//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencmg/cmg/auth"
)

// A scaleRun parks clients on several instances of one gateway, behind one
// connection point, at a server that speaks HTTP/2: see README.md.
type scaleRun struct {
	run, self, cmg     string
	ports              int
	instances, clients int // in all
	ramp               int
	length             time.Duration
	localPorts         int

	site  *site
	procs map[string]*process
	loads []*holdLoad
}

// Ports of a scale run, above -ports; instance i adds i to the last three.
const (
	scaleBackend = 0
	scaleStatus  = 1 // of the connection point
	scaleFront   = 100
	scaleChannel = 200
	scaleGateway = 300 // status of instances
)

// A holdLoad is one process that parks clients on one instance.
type holdLoad struct {
	cmd *exec.Cmd
	out *bufio.Reader
}

// A scaleResult is one run: one JSON line, and one row of the table.
type scaleResult struct {
	Instances, Clients    int
	Answered, Failed      int64
	Sockets               int     // of the connection point towards the server
	Gateway, Point, Inner float64 // MiB of growth: all instances, connection point, server
	Before, Meanwhile     result  // W1 at 500/s on the first instance
	CPUBefore, CPUWhile   float64 // µs of gateway and connection point for one of its requests
	Parking, Answering    float64 // seconds
	LocalPorts            string
	Load                  float64 // of the machine, before
}

func scaleMain(args []string) error {
	fs := flag.NewFlagSet("scale", flag.ExitOnError)
	s := &scaleRun{procs: map[string]*process{}}
	fs.StringVar(&s.run, "run", "bench/run-scale", "scratch folder, which keeps the logs")
	fs.StringVar(&s.cmg, "cmg", "bin/cmg", "the product")
	fs.IntVar(&s.ports, "ports", 9000, "first port, of 400")
	fs.IntVar(&s.instances, "instances", 1, "gateway instances")
	fs.IntVar(&s.clients, "clients", 16000, "clients that wait, in all")
	fs.IntVar(&s.ramp, "ramp", 1000, "new connections a second, in all")
	fs.DurationVar(&s.length, "d", 6*time.Second, "length of W1, before and meanwhile")
	fs.IntVar(&s.localPorts, "local-ports", 0, "TCP ports that an address may dial from; 0: as many as there are")
	most := fs.Int("max-sockets", 0, "fail if the connection point opens more towards the server; 0: any number")
	results := fs.String("results", "", "folder to add the row to, in DATE-scale.md")
	netns := fs.Bool("netns", true, "a network namespace of its own, when root")
	fs.Parse(args)
	if *netns {
		if done, err := ownNamespace(); done || err != nil {
			return err
		}
	}
	if s.localPorts > 0 {
		if os.Getenv(insideEnv) == "" {
			return errors.New("-local-ports needs a network namespace of its own: it would change this machine's")
		}
		r := fmt.Sprintf("20000 %d", 20000+s.localPorts-1)
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte(r), 0); err != nil {
			return fmt.Errorf("port range: %w", err)
		}
	}
	x, err := s.measure()
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(x); err != nil {
		return err
	}
	switch {
	case x.Failed > 0 || x.Answered != int64(s.clients):
		return fmt.Errorf("%d of %d were answered, %d failed", x.Answered, s.clients, x.Failed)
	case *most > 0 && x.Sockets > *most:
		return fmt.Errorf("%d sockets for %d requests: more than %d", x.Sockets, s.clients, *most)
	case *results != "":
		return keepScale(*results, s.cmg, x)
	}
	return nil
}

// measure starts all, parks, and lets go.
func (s *scaleRun) measure() (x scaleResult, err error) {
	runtime.LockOSThread() // children die with the thread that started them
	defer runtime.UnlockOSThread()
	defer s.stop()
	if err := s.start(); err != nil {
		return x, err
	}
	x = scaleResult{Instances: s.instances, Clients: s.clients, Load: loadAverage()}
	b, _ := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	x.LocalPorts = strings.Join(strings.Fields(string(b)), "–")
	if x.Before, x.CPUBefore, err = s.w1(); err != nil {
		return x, err
	}
	gateway, point, inner := s.memory()
	begun := time.Now()
	fmt.Fprintln(os.Stderr, begun.UTC().Format(time.TimeOnly), "parking")
	if err := s.park(); err != nil {
		return x, err
	}
	fmt.Fprintln(os.Stderr, time.Now().UTC().Format(time.TimeOnly), "all wait")
	x.Parking = time.Since(begun).Seconds()
	time.Sleep(3 * time.Second) // what parking left behind is collected
	g, p, i := s.memory()
	x.Gateway, x.Point, x.Inner = g-gateway, p-point, i-inner
	x.Sockets = s.sockets()
	if x.Meanwhile, x.CPUWhile, err = s.w1(); err != nil {
		return x, err
	}
	x.Answered, x.Failed, x.Answering, err = s.letGo()
	return x, err
}

func (s *scaleRun) port(of int) int { return s.ports + of }

func (s *scaleRun) start() (err error) {
	if s.self, err = os.Executable(); err != nil {
		return err
	}
	for _, p := range []*string{&s.run, &s.cmg} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(s.run); err != nil {
		return err
	}
	certs, backend := filepath.Join(s.run, "certs"), local(s.port(scaleBackend))
	if err := makeCertificates(certs); err != nil {
		return err
	}
	if s.site, err = makeSite(filepath.Join(s.run, "site"), "https://"+backend, s.instances); err != nil {
		return err
	}
	point := "connection_point:\n  identity: {certificate: connection-point.crt, key: connection-point.key, roots: roots.crt}\n" +
		"  map: map.json\n  state_dir: state/connection-point\n  status: " + local(s.port(scaleStatus)) + "\n  gateways:\n"
	for i := range s.instances {
		name := gatewayFile(i)
		text := fmt.Sprintf("gateway:\n  listen: %s\n  channel: %s\n  certificate: %s/server.pem\n  key: %s/server.key\n"+
			"  identity: {certificate: %s.crt, key: %s.key, roots: roots.crt}\n  state_dir: state/%s\n  status: %s\n  drain: 1s\n",
			local(s.port(scaleFront+i)), local(s.port(scaleChannel+i)), certs, certs, name, name, name, local(s.port(scaleGateway+i)))
		if err := os.WriteFile(s.site.file(name+".yaml"), []byte(text), 0o600); err != nil {
			return err
		}
		point += "    - " + local(s.port(scaleChannel+i)) + "\n"
	}
	if err := os.WriteFile(s.site.file("connection-point.yaml"), []byte(point+"  drain: 1s\n"), 0o600); err != nil {
		return err
	}
	if err := s.launch("server", s.self+" waits -addr "+backend+" -site "+s.site.dir); err != nil {
		return err
	}
	for i := range s.instances {
		if err := s.launch(gatewayFile(i), s.cmg+" gateway --config "+s.site.file(gatewayFile(i)+".yaml")); err != nil {
			return err
		}
	}
	if err := s.launch("point", s.cmg+" connection-point --config "+s.site.file("connection-point.yaml")); err != nil {
		return err
	}
	for i := range s.instances {
		if err := s.ready(i); err != nil {
			return err
		}
	}
	return nil
}

func (s *scaleRun) launch(name, line string) error {
	p, err := launch(name, line, s.log(name))
	if err == nil {
		s.procs[name] = p
	}
	return err
}

func (s *scaleRun) log(name string) string { return filepath.Join(s.run, name+".log") }

// ready waits until an instance answers through all.
func (s *scaleRun) ready(i int) error {
	c, err := newClient(local(s.port(scaleFront+i)), s.ca(), s.header())
	if err != nil {
		return err
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		t, err := c.dial()
		if err == nil {
			err = exchange(t, bufio.NewReader(t), c.request("GET", "/s"))
			t.Close()
		}
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not answer, see %s: %w", gatewayFile(i), s.run, err)
		}
	}
}

func (s *scaleRun) ca() string     { return filepath.Join(s.run, "certs", "ca.pem") }
func (s *scaleRun) header() string { return "Authorization: Bearer " + s.site.token }

func (s *scaleRun) load(i int, format string, a ...any) *exec.Cmd {
	args := append([]string{"load", "-addr", local(s.port(scaleFront + i)), "-ca", s.ca(), "-H", s.header(), "-sources", "64"}, strings.Fields(fmt.Sprintf(format, a...))...)
	cmd := exec.Command(s.self, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	return cmd
}

// w1 measures small requests at a low rate on the first instance.
func (s *scaleRun) w1() (r result, cpu float64, err error) {
	spent := func() (secs float64) {
		for name, p := range s.procs {
			if name != "server" {
				secs += cpuOf(p.cmd.Process.Pid)
			}
		}
		return secs
	}
	before := spent()
	out, err := s.load(0, "-mode rate -c 64 -r 500 -d %s", s.length).Output()
	if err != nil {
		return r, 0, fmt.Errorf("w1: %w", err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, 0, fmt.Errorf("w1: %w", err)
	}
	if r.Err > 0 || r.N == 0 {
		return r, 0, fmt.Errorf("w1: %d answers, %d errors: %s", r.N, r.Err, r.First)
	}
	return r, (spent() - before) / float64(r.N) * 1e6, nil
}

// park has all clients ask, and returns when all wait at the server.
func (s *scaleRun) park() error {
	left := s.clients
	for i := range s.instances {
		n := left / (s.instances - i)
		left -= n
		cmd := s.load(i, "-mode hold -c %d -ms 900000 -ramp %d", n, max(1, s.ramp/s.instances))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			return fmt.Errorf("load: %w", err)
		}
		s.loads = append(s.loads, &holdLoad{cmd, bufio.NewReader(out)})
	}
	for i, l := range s.loads {
		line, err := l.out.ReadString('\n')
		if err != nil || !strings.Contains(line, "err=0") {
			return fmt.Errorf("clients of instance %d: %s %w", i, line, errors.Join(err, errors.New("not all could ask")))
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		text, err := s.ask("/waiting")
		if err != nil {
			return err
		}
		if text == strconv.Itoa(s.clients) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s of %d requests wait at the server", text, s.clients)
		}
	}
}

// letGo has the server answer all, and counts what the clients got.
func (s *scaleRun) letGo() (answered, failed int64, secs float64, err error) {
	begun := time.Now()
	if _, err := s.ask("/release"); err != nil {
		return 0, 0, 0, err
	}
	late := time.AfterFunc(answerTime, func() {
		fmt.Fprintln(os.Stderr, "bench: not all were answered within", answerTime, s.state())
		for _, l := range s.loads {
			l.cmd.Process.Signal(syscall.SIGTERM) // it tells what it has, and ends
		}
	})
	defer late.Stop()
	for i, l := range s.loads {
		var r result
		b, err := io.ReadAll(l.out)
		if err == nil {
			err = errors.Join(json.Unmarshal(b, &r), l.cmd.Wait())
		}
		if err != nil {
			return 0, 0, 0, fmt.Errorf("clients of instance %d: %w", i, err)
		}
		if r.First != "" {
			fmt.Fprintf(os.Stderr, "bench: clients of instance %d: %d failed: %s\n", i, r.Err, r.First)
		}
		answered, failed = answered+r.N, failed+r.Err
	}
	s.loads = nil
	return answered, failed, time.Since(begun).Seconds(), nil
}

// answerTime is what the clients together may take to be answered.
const answerTime = time.Minute

// state gives what the roles say of themselves, for a run that goes wrong.
func (s *scaleRun) state() (text string) {
	ports := []int{s.port(scaleStatus)}
	for i := range s.instances {
		ports = append(ports, s.port(scaleGateway+i))
	}
	for _, p := range ports {
		var v map[string]any
		resp, err := http.Get("http://" + local(p) + "/status")
		if err == nil {
			err = json.NewDecoder(resp.Body).Decode(&v)
			resp.Body.Close()
		}
		text += fmt.Sprint("\n", p, ": ", v["role"], " in flight ", v["in_flight"], ", parked ", v["parked"], ", failed ", v["failed"], " ", err)
	}
	return text
}

// ask asks the server itself.
func (s *scaleRun) ask(path string) (string, error) {
	conf, err := auth.ClientTo(auth.ClientFiles{Roots: s.site.file("roots.crt")})
	if err != nil {
		return "", err
	}
	conf.NextProtos = []string{"http/1.1"}
	tr := &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Get("https://" + local(s.port(scaleBackend)) + path)
	if err != nil {
		return "", fmt.Errorf("ask the server: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func (s *scaleRun) memory() (gateway, point, inner float64) {
	for name, p := range s.procs {
		mib := rssOf(p.cmd.Process.Pid)
		switch name {
		case "server":
			inner = mib
		case "point":
			point = mib
		default:
			gateway += mib
		}
	}
	return gateway, point, inner
}

func (s *scaleRun) stop() {
	for _, l := range s.loads {
		l.cmd.Process.Kill()
		l.cmd.Wait()
	}
	for _, p := range s.procs {
		p.end()
	}
}
