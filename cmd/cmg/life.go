package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/handover"
	"github.com/opencmg/cmg/web"
)

// upTime is how long a successor may take to be up.
const upTime = time.Minute

// inherit takes the listeners that a predecessor or systemd left this
// process, and notes how it was started.
func (a *app) inherit() (err error) {
	if a.sockets, err = handover.Inherit(); err != nil {
		return err
	}
	a.program, err = handover.ThisProgram()
	return err
}

// A life is what happens to the roles of this process beside their running:
// they are told to take their configuration anew (SIGHUP), and replaced by a
// new process that has their listeners (SIGUSR2). Windows has neither signal.
type life struct {
	app *app
	log *slog.Logger

	roles []aliveRole
}

type aliveRole struct {
	health *web.Health
	check  string // that has to be good before a predecessor may go; empty: all
	asked  chan struct{}
}

func (s *setup) life() *life { return &life{app: s.app, log: s.log} }

// add takes a role in: it is up once the check is good, or all are where none
// is named.
func (l *life) add(role cmg.RoleKind, check string) (*web.Health, <-chan struct{}) {
	r := aliveRole{health: web.NewHealth(string(role)), check: check, asked: make(chan struct{}, 1)}
	r.health.Set("up", errStarting)
	l.roles = append(l.roles, r)
	return r.health, r.asked
}

var errStarting = errors.New("it does not listen yet")

// run runs the roles until ctx ends or another process has taken over.
func (l *life) run(ctx context.Context, roles func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	watch, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, lifeSignals...)
	var watching sync.WaitGroup
	watching.Go(func() { l.tellUp(watch) })
	watching.Go(func() {
		select {
		case <-ctx.Done():
			if !l.app.sockets.Replaced() {
				l.notify("STOPPING=1")
			}
		case <-watch.Done():
		}
	})
	watching.Go(func() {
		for {
			select {
			case s := <-signals:
				if l.hear(watch, s) {
					stop()
				}
			case <-watch.Done():
				return
			}
		}
	})
	err := roles(ctx)
	signal.Stop(signals)
	endWatch()
	stop()
	watching.Wait()
	return err
}

// tellUp tells systemd that the roles listen, and a predecessor that it may
// go.
func (l *life) tellUp(ctx context.Context) {
	for _, r := range l.roles {
		if r.health.Await(ctx, "up") != nil {
			return
		}
	}
	l.notify("READY=1")
	for _, r := range l.roles {
		if r.health.Await(ctx, r.check) != nil {
			return
		}
	}
	if err := l.app.sockets.Up(); err != nil {
		l.log.Warn("the predecessor cannot be told", "err", err)
	}
}

// hear does what a signal asks for, and says whether this process is to go.
func (l *life) hear(ctx context.Context, s os.Signal) (replaced bool) {
	if s == reloadSignal {
		for _, r := range l.roles {
			select {
			case r.asked <- struct{}{}:
			default: // it was asked already
			}
		}
		return false
	}
	if l.app.sockets == nil || l.app.sockets.Replaced() {
		return false
	}
	l.log.Info("starting a successor", "program", l.app.program.Path)
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	p, err := l.app.sockets.Replace(ctx, l.app.program)
	if err != nil {
		l.log.Error("not replaced: going on as before", "err", err)
		return false
	}
	l.log.Info("a successor has taken over", "process", p.Pid)
	l.notify("MAINPID=" + strconv.Itoa(p.Pid))
	p.Release()
	return true
}

func (l *life) notify(state string) {
	if err := handover.Notify(state); err != nil {
		l.log.Warn("systemd cannot be told", "state", state, "err", err)
	}
}
