//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is one that the runner started, and its children.
type process struct {
	role string // edge, connector or delay
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// launch starts line with its output going to log.
func launch(role, line, log string, env ...string) (*process, error) {
	f := strings.Fields(line)
	cmd := exec.Command(f[0], f[1:]...)
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", role, err)
	}
	p := &process{role: role, cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait() // how it ended stands in its log
		close(p.done)
	}()
	return p, nil
}

// ended reports whether the process has ended by itself.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// end asks the group to end, and does not ask twice.
func (p *process) end() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Second):
	}
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // also children that outlive it
	<-p.done
}

// tree gives a process and all its descendants.
func tree(pid int) []int {
	pids := []int{pid}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // none once it has gone
	for f := range strings.FieldsSeq(string(b)) {
		if c, err := strconv.Atoi(f); err == nil {
			pids = append(pids, tree(c)...)
		}
	}
	return pids
}

const ticks = 100 // a second, USER_HZ of every Linux port Go has

// cpuOf gives the CPU seconds spent by a process and its descendants
// (proc(5), fields utime and stime of stat).
func cpuOf(pid int) (secs float64) {
	for _, p := range tree(pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:])) // from field 3 on
		secs += (number(f[11]) + number(f[12])) / ticks
	}
	return secs
}

// rssOf gives the resident memory in MiB of a process and its descendants.
func rssOf(pid int) (mib float64) {
	for _, p := range tree(pid) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		for l := range strings.Lines(string(b)) {
			if f := strings.Fields(l); len(f) > 1 && f[0] == "VmRSS:" {
				mib += number(f[1]) / 1024
			}
		}
	}
	return mib
}

func number(s string) float64 {
	v, _ := strconv.ParseFloat(s, 64)
	return v
}

// A snapshot is what has been spent so far, in CPU seconds.
type snapshot struct{ edge, conn, back, other, busy, steal float64 }

func (r *runner) snapshot() (s snapshot) {
	for _, p := range r.procs {
		c := cpuOf(p.cmd.Process.Pid)
		switch p.role {
		case "edge":
			s.edge += c
		case "connector":
			s.conn += c
		default:
			s.other += c
		}
	}
	s.back = cpuOf(r.backend.cmd.Process.Pid)
	b, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(b), "\n")
	for i, v := range strings.Fields(first)[1:] { // proc(5): 3 idle, 4 iowait, 7 steal, then guests, counted before
		if i != 3 && i != 4 && i < 8 {
			s.busy += number(v) / ticks
		}
		if i == 7 {
			s.steal = number(v) / ticks
		}
	}
	return s
}

func (r *runner) rss() (edge, conn float64) {
	for _, p := range r.procs {
		switch p.role {
		case "edge":
			edge += rssOf(p.cmd.Process.Pid)
		case "connector":
			conn += rssOf(p.cmd.Process.Pid)
		}
	}
	return edge, conn
}

func loadAverage() float64 {
	b, _ := os.ReadFile("/proc/loadavg")
	f, _, _ := strings.Cut(string(b), " ")
	return number(f)
}
