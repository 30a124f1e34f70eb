package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencmg/cmg"
)

const labStopTime = 15 * time.Second // for a process that was told to end

// labProcesses are the processes of a lab.
type labProcesses struct {
	dir, binary string
	all         []*labProcess
	died        chan *labProcess
	wait        sync.WaitGroup
}

// A labProcess is one role: this binary again, with absolute paths, so that
// its command line alone can start it anew.
type labProcess struct {
	name   string
	args   []string // the first is the binary
	status string   // host:port of its status listener
	cmd    *exec.Cmd
	ended  chan struct{} // closed when it has
	how    error         // why it ended, once it has
}

func newLabProcesses(dir, binary string) *labProcesses {
	return &labProcesses{dir: dir, binary: binary, died: make(chan *labProcess, 16)}
}

// start starts a role: verb is its subcommand, text its configuration.
func (ps *labProcesses) start(name string, verb []string, text string, status int) error {
	file := filepath.Join(ps.dir, "config", name+".yaml")
	if err := writeWhole(file, text, 0o600); err != nil {
		return err
	}
	p := &labProcess{name: name, status: local(status), ended: make(chan struct{})}
	p.args = append(append([]string{ps.binary}, verb...), "--config", file)
	if err := writeWhole(ps.run(name, ".sh"), p.script(ps.dir), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(ps.run(name, ".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = ps.dir, cleanEnvironment(os.Environ()), log, log
	p.cmd.SysProcAttr = childAttributes()
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	ps.all = append(ps.all, p)
	ps.wait.Go(func() {
		p.how = p.cmd.Wait()
		close(p.ended)
		ps.died <- p
	})
	return writeWhole(ps.run(name, ".pid"), strconv.Itoa(p.cmd.Process.Pid)+"\n", 0o600)
}

func (ps *labProcesses) run(name, ext string) string {
	return filepath.Join(ps.dir, "run", name+ext)
}

// cleanEnvironment leaves out what would configure the roles: they are to be
// as their files say.
func cleanEnvironment(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, "CMG_") })
}

// script starts p by hand, after it was killed.
func (p *labProcess) script(dir string) string {
	command := make([]string, len(p.args))
	for i, a := range p.args {
		command[i] = inShellQuotes(a)
	}
	// A process is known by its command line where there is one to be read:
	// a number may belong to another by now, or to one that is dead and not
	// yet collected.
	return strings.NewReplacer("NAME", p.name, "DIR", inShellQuotes(dir), "COMMAND", strings.Join(command, " "), "CONFIG", command[len(command)-1]).Replace(`#!/bin/sh
# Starts NAME of this lab again and notes its process id.
cd DIR || exit 1
lives() {
	if [ -r /proc/self/cmdline ]; then
		tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline" | grep -qxF CONFIG
	else
		kill -0 "$1"
	fi 2>/dev/null
}
n=0
while pid=$(cat run/NAME.pid 2>/dev/null) && lives "$pid"; do
	n=$((n + 1))
	if [ $n -gt 20 ]; then
		echo "NAME runs already, as process $pid" >&2
		exit 1
	fi
	sleep 0.1
done
nohup COMMAND >>run/NAME.log 2>&1 </dev/null &
echo $! >run/NAME.pid
echo "NAME runs as process $!"
`)
}

// await waits until every process answers at /livez or /readyz that it is.
func (ps *labProcesses) await(ctx context.Context, path string) error {
	for _, p := range ps.all {
		err := poll(ctx, func() error {
			if p.hasEnded() {
				return fmt.Errorf("%s ended: %w: %w\n%s", p.name, p.how, errGivenUp, ps.tail(p))
			}
			_, err := getLocal(ctx, p.status, path)
			return err
		})
		if err != nil {
			return fmt.Errorf("wait for %s: %w", p.name, err)
		}
	}
	return nil
}

func (p *labProcess) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// errGivenUp ends a poll that can no longer succeed.
var errGivenUp = errors.New("there is nothing to wait for")

// poll asks again and again until f is content, gives up or ctx ends; then
// its error is what was wrong the last time.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil || errors.Is(err, errGivenUp) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", cmg.ErrUnavailable, errors.Join(ctx.Err(), err))
		}
	}
}

// tail gives the last lines of a process's log.
func (ps *labProcesses) tail(p *labProcess) string {
	text, err := os.ReadFile(ps.run(p.name, ".log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// watch tells what dies until ctx ends. Nothing is started again: killing is
// what a lab is for.
func (ps *labProcesses) watch(ctx context.Context, out io.Writer) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-ps.died:
			fmt.Fprintf(out, "%s ended (%s). Start it again:  sh %s\n", p.name, endOf(p.how), shellWord(ps.run(p.name, ".sh")))
		}
	}
}

func endOf(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// stop ends all processes in order, also those started again by hand:
// whoever asks before whoever answers.
func (ps *labProcesses) stop(out io.Writer) {
	for _, kind := range []string{"agent", "gateway", "connection-point", "management-point", "content-store"} {
		var group sync.WaitGroup
		for _, p := range ps.all {
			if strings.HasPrefix(p.name, kind+"-") {
				group.Go(func() { ps.end(p, out) })
			}
		}
		group.Wait()
	}
	ps.wait.Wait()
}

func (ps *labProcesses) end(p *labProcess, out io.Writer) {
	if !p.hasEnded() {
		endProcess(p.cmd.Process)
		late := time.NewTimer(labStopTime)
		defer late.Stop()
		select {
		case <-p.ended:
		case <-late.C:
			fmt.Fprintf(out, "%s did not end within %s: killed\n", p.name, labStopTime)
			p.cmd.Process.Kill()
			<-p.ended
		}
	}
	ps.endOther(p)
	os.Remove(ps.run(p.name, ".pid"))
}

// endOther ends the process that was started by hand, or as its successor, in
// p's place.
func (ps *labProcesses) endOther(p *labProcess) {
	config := p.args[len(p.args)-1]
	pid := readPid(ps.run(p.name, ".pid"))
	if successor := successorOf(p); successor > 0 {
		pid = successor
	}
	if pid <= 0 || pid == p.cmd.Process.Pid || !runs(pid, config) {
		return
	}
	other, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	endProcess(other)
	ctx, cancel := context.WithTimeout(context.Background(), labStopTime)
	defer cancel()
	gone := poll(ctx, func() error {
		if runs(pid, config) {
			return cmg.ErrUnavailable
		}
		return nil
	})
	if gone != nil {
		other.Kill()
	}
}

// successorOf gives the process that answers in p's place: p may have been
// replaced (SIGUSR2). 0: none does.
func successorOf(p *labProcess) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var status struct {
		Process int `json:"process"`
	}
	if getStatus(ctx, p.status, &status) != nil {
		return 0
	}
	return status.Process
}

// endProcess asks a process to drain and end; where that cannot be asked, it
// is killed.
func endProcess(p *os.Process) {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.Kill()
	}
}
