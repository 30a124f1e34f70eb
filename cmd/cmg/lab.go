package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/site"
)

// What the lab is called.
const (
	labSite    = "LAB"
	labService = "gw.cmg.test" // the gateway's service name
)

// labOptions is what the command line says of a lab.
type labOptions struct {
	dir       string
	portBase  int
	realPorts bool
	content   string
	maps      []string
	once      bool
	asJSON    bool
	timeout   time.Duration
}

func labCommand(a *app) *cobra.Command {
	var o labOptions
	c := &cobra.Command{Use: "lab", Short: "Run everything on this machine: try it here", Args: takes(),
		Long: `Makes a throw-away site in a folder, starts two gateway instances, two
connection points, a management point, a content store and three agents as
processes of their own, and walks through what they do. It stays up until
Ctrl-C; with --once it makes one full pass and exits 0 or 1. Ctrl-C before the
pass is done exits 130.

In the folder: env.sh for trying things by hand, and for each process
run/NAME.log, run/NAME.pid, and run/NAME.sh that starts it again after you
killed it.

Ports, N being --port-base: clients N+43, channels N+40 and N+41, management
point N+44, content store N+45, status listeners N+51 to N+93. With
--real-ports clients 443 and channels 10140 and 10141.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runLab(cmd.Context(), a, o) }}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", "", "the lab's folder: a new one, an empty one or that of an earlier lab (default: a new temporary one)")
	f.IntVar(&o.portBase, "port-base", 18000, "first of a hundred ports, so that labs can run side by side")
	f.BoolVar(&o.realPorts, "real-ports", false, "the field's own ports for clients and channels")
	f.StringVar(&o.content, "content", "", "folder to make the package of (default: one of 40 files, 24 MiB)")
	f.StringArrayVar(&o.maps, "map", nil, "PREFIX=URL publishes an HTTP(S) server of yours; may be repeated")
	f.BoolVar(&o.once, "once", false, "one full pass, then stop")
	f.BoolVar(&o.asJSON, "json", false, "the summary as JSON on stdout, all else on stderr")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long the pass may take")
	return c
}

// A lab is one run of it.
type lab struct {
	opt   labOptions
	dir   string // absolute
	temp  bool   // nobody asked for the folder
	ports labPorts
	maps  []site.PublishedRoute
	self  string // this binary
	now   func() time.Time
	began time.Time
	out   io.Writer // what people read
	site  siteFolder
	role  cmg.RoleID // of the management point
	pack  site.Package
	crew  *labProcesses
}

// runLab makes a lab, makes its pass and, unless it is for once, waits until
// ctx ends.
func runLab(ctx context.Context, a *app, o labOptions) (err error) {
	// Children end with the thread that started them (PR_SET_PDEATHSIG), so
	// this one has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l := &lab{opt: o, began: time.Now(), out: a.stdout, now: a.now}
	if o.asJSON {
		l.out = a.stderr
	}
	if err := l.prepare(); err != nil {
		return err
	}
	sum, err := l.pass(ctx)
	cut := err != nil && ctx.Err() != nil
	switch {
	case cut:
		sum.OK, sum.Wrong = false, append(sum.Wrong, "stopped before the pass was done")
	case err != nil:
		sum.OK, sum.Wrong = false, append(sum.Wrong, err.Error())
		err = fmt.Errorf("the pass broke off: %v", err) // exit code 1, whatever the kind
	default:
		sum.print(l)
	}
	if o.asJSON {
		err = errors.Join(err, writeJSON(a.stdout, sum))
	}
	up := err == nil && !o.once
	if up {
		l.printHints()
		l.crew.watch(ctx, l.out)
	}
	l.crew.stop(l.out)
	switch {
	case cut:
		return errors.Join(&saidError{fmt.Errorf("stop the lab: %w", context.Canceled)}, l.leave("stopped before the pass was done; "))
	case err == nil && o.once && !sum.OK:
		err = &saidError{errors.New("the pass did not succeed")}
	case up: // Ctrl-C is how a lab ends
		return l.leave("stopped; ")
	}
	if err != nil {
		fmt.Fprintf(l.out, "the logs are in %s\n", filepath.Join(l.dir, "run"))
		return err
	}
	return l.leave("")
}

// leave removes the folder that nobody asked for, and tells in one line, after
// what happened, where the lab is or was.
func (l *lab) leave(what string) error {
	switch {
	case l.temp:
		if err := os.RemoveAll(l.dir); err != nil {
			return err
		}
		l.say("%sremoved %s: --dir names a folder that stays", what, l.dir)
	case what != "":
		l.say("%sthe lab's folder stays: %s", what, l.dir)
	}
	return nil
}

// prepare checks all that can be checked before anything is made.
func (l *lab) prepare() (err error) {
	if l.ports, err = newLabPorts(l.opt.portBase, l.opt.realPorts); err != nil {
		return err
	}
	if l.maps, err = parseMaps(l.opt.maps); err != nil {
		return err
	}
	if l.opt.content != "" {
		if l.opt.content, err = filepath.Abs(l.opt.content); err != nil {
			return usage("--content: %w", err)
		}
		if i, err := os.Stat(l.opt.content); err != nil {
			return usage("--content: %w", err)
		} else if !i.IsDir() {
			return usage("--content %s is not a folder", l.opt.content)
		}
	}
	if l.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	if err := l.ports.free(); err != nil {
		return err
	}
	if l.dir, l.temp, err = openLabFolder(l.opt.dir, l.ports); err != nil {
		return err
	}
	l.site = siteFolder(filepath.Join(l.dir, "site"))
	l.crew = newLabProcesses(l.dir, l.self)
	return nil
}

// pass makes the site, starts everything and walks.
func (l *lab) pass(ctx context.Context) (sum labSummary, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.opt.timeout)
	defer cancel()
	sum = labSummary{Dir: l.dir, URL: l.url(), Wrong: []string{}}
	l.say("lab in %s", l.dir)
	if err := l.makeSite(ctx); err != nil {
		return sum, fmt.Errorf("make the lab's site: %w", err)
	}
	sum.Package = string(l.pack.ID)
	l.stage("site %s and package %s (%d files, %s)", labSite, l.pack.ID, l.pack.Files, size(l.pack.Size))
	if err := l.startRoles(ctx); err != nil {
		return sum, err
	}
	l.stage("two gateways, two connection points, management point and content store are up")
	if err := l.showChannels(ctx, &sum); err != nil {
		return sum, err
	}
	if err := l.startAgents(ctx, &sum); err != nil {
		return sum, err
	}
	if err := l.writeEnvironment(ctx, &sum); err != nil {
		return sum, err
	}
	if err := l.walk(ctx, &sum); err != nil {
		return sum, err
	}
	return sum, l.count(ctx, &sum)
}

func (l *lab) say(format string, a ...any) { fmt.Fprintf(l.out, format+"\n", a...) }

// stage tells what stands now, and since when.
func (l *lab) stage(format string, a ...any) {
	l.say("%6.2fs  "+format, append([]any{time.Since(l.began).Seconds()}, a...)...)
}

func (l *lab) url() string {
	return fmt.Sprintf("https://%s:%d", labService, l.ports.client)
}
