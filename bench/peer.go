//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// programs are what peers are made of: the variable that names the binary,
// and where it is looked for else.
var programs = map[string]string{
	"CMG": "bin/cmg", "NGINX": "nginx", "HAPROXY": "haproxy", "FRPS": "frps", "FRPC": "frpc", "CHISEL": "chisel", "YARDSTICK": "yardstick",
}

// A peer is one way of doing it, as its file in peers/ describes it:
//
//	set: NAME=value        a variable for its configuration
//	edge: COMMAND          what runs outside, one line a process
//	connector: COMMAND     what runs inside
//	lacks: w2 w4r          workloads it does not serve
//	only: w5               the one it is there for
//
// Variables begin with $, here and in conf/.
type peer struct {
	name  string // with a binary of its own: cmg:/path/to/another
	vars  map[string]string
	procs [][2]string // role, command
	lacks []string
	only  []string
}

// serves reports whether a workload is to be measured on p.
func (p *peer) serves(wl string) bool {
	return !slices.Contains(p.lacks, wl) && (len(p.only) == 0 || slices.Contains(p.only, wl))
}

// readPeer reads peers/NAME.peer under dir. What follows a colon in name is
// the binary to use in place of $CMG: two builds are two peers.
func readPeer(dir, name string) (*peer, error) {
	file, binary, _ := strings.Cut(name, ":")
	text, err := os.ReadFile(filepath.Join(dir, "peers", file+".peer"))
	if err != nil {
		return nil, fmt.Errorf("peer %s: %w", name, err)
	}
	p := &peer{name: name, vars: map[string]string{}}
	if binary != "" {
		p.vars["CMG"] = binary
	}
	for l := range strings.Lines(string(text)) {
		l = strings.TrimSpace(l)
		if l == "" || l[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(l, ": ")
		switch key {
		case "set":
			n, v, _ := strings.Cut(value, "=")
			p.vars[n] = v
		case "lacks":
			p.lacks = strings.Fields(value)
		case "only":
			p.only = strings.Fields(value)
		case "edge", "connector":
			p.procs = append(p.procs, [2]string{key, value})
		default:
			return nil, fmt.Errorf("peer %s: %q is not set, edge, connector, lacks or only", name, key)
		}
	}
	return p, nil
}

// ours reports whether p is the product: clients show it a token.
func (p *peer) ours() bool { return strings.HasPrefix(p.name, "cmg") }

// missing gives the programs that p needs and this machine has not.
func (p *peer) missing(vars map[string]string) (names []string) {
	for n := range programs {
		used := slices.ContainsFunc(p.procs, func(l [2]string) bool { return slices.Contains(strings.Fields(l[1]), "$"+n) })
		if !used {
			continue
		}
		if _, err := exec.LookPath(expand("$"+n, p.vars, vars)); err != nil {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

// expand puts in the variables, longer names first; earlier maps win.
func expand(s string, from ...map[string]string) string {
	all := map[string]string{}
	for _, m := range slices.Backward(from) {
		maps.Copy(all, m)
	}
	names := slices.SortedFunc(maps.Keys(all), func(a, b string) int { return len(b) - len(a) })
	for _, n := range names {
		s = strings.ReplaceAll(s, "$"+n, all[n])
	}
	return s
}

// start starts a peer, with the delay proxy in its channel if asked for, and
// waits until it answers.
func (r *runner) start(p *peer, delay bool) error {
	dial := r.port(portChannel)
	if delay {
		dial = r.port(portDelay)
		if err := r.launch("delay", r.self+" delay -addr "+local(dial)+" -to "+local(r.port(portChannel))); err != nil {
			return err
		}
	}
	r.vars["CHAN"], r.vars["CHANPORT"] = local(dial), fmt.Sprint(dial)
	if p.ours() {
		err := r.site.configure(siteMeeting{
			Front: r.vars["FRONT"], Channel: r.vars["LISTEN"], Dial: r.vars["CHAN"], Certs: r.vars["CERTS"],
			GatewayStatus: local(r.port(portGatewayStatus)), ConnectionPointStatus: local(r.port(portConnectionPointStatus)),
		})
		if err != nil {
			return err
		}
	}
	confs, err := filepath.Glob(filepath.Join(r.dir, "conf", "*"))
	if err != nil {
		return err
	}
	for _, c := range confs {
		b, err := os.ReadFile(c)
		if err == nil {
			err = os.WriteFile(filepath.Join(r.run, filepath.Base(c)), []byte(expand(string(b), p.vars, r.vars)), 0o600)
		}
		if err != nil {
			return fmt.Errorf("configure %s: %w", p.name, err)
		}
	}
	for _, l := range p.procs {
		if err := r.launch(l[0], expand(l[1], p.vars, r.vars)); err != nil {
			return err
		}
		time.Sleep(300 * time.Millisecond) // connectors of some peers give up when nobody listens yet
	}
	return r.ready(p)
}

func (r *runner) launch(role, line string) error {
	p, err := launch(role, line, r.log())
	if err == nil {
		r.procs = append(r.procs, p)
	}
	return err
}

// log gives where the output of the present peer's processes goes.
func (r *runner) log() string {
	return filepath.Join(r.run, strings.ReplaceAll(r.peer.name, "/", "_")+".log")
}

// ready waits until the peer answers through both ends.
func (r *runner) ready(p *peer) error {
	c, err := newClient(r.vars["FRONT"], r.vars["CERTS"]+"/ca.pem", r.header(p))
	if err != nil {
		return err
	}
	once := func() error {
		t, err := c.dial()
		if err != nil {
			return err
		}
		defer t.Close()
		return exchange(t, bufio.NewReader(t), c.request("GET", "/s"))
	}
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if err = once(); err == nil {
			break
		}
		for _, x := range r.procs {
			if x.ended() {
				return fmt.Errorf("%s: %s has ended, see %s", p.name, x.role, r.log())
			}
		}
		if time.Since(begin) > 15*time.Second {
			return fmt.Errorf("%s does not answer, see %s: %w", p.name, r.log(), err)
		}
	}
	time.Sleep(500 * time.Millisecond) // further connections of the channel
	return nil
}

// header gives the line that the load sends along to p.
func (r *runner) header(p *peer) string {
	if !p.ours() {
		return ""
	}
	return "Authorization: Bearer " + r.site.token
}

// stop ends the peer. One that did not outlive its measurement is an error.
func (r *runner) stop() error {
	var err error
	for _, p := range r.procs {
		if p.ended() {
			err = errors.Join(err, fmt.Errorf("%s: %s had ended: see %s", r.peer.name, p.role, r.log()))
		}
	}
	for _, p := range slices.Backward(r.procs) {
		p.end()
	}
	r.procs = nil
	return err
}
