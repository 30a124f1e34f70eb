// Command cmg is OpenCMG: every role of it, the administrators' verbs, and a
// lab that runs the whole on one machine.
//
// This is the only place that wires. A role's file here reads its section of
// the configuration, makes the role and runs it; nothing else happens in it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/handover"
)

func main() {
	limitMemory("/", os.LookupEnv)
	profiled := profileCPU(os.LookupEnv, os.Stderr)
	ctx, stop := untilSignal(context.Background())
	a := &app{stdout: os.Stdout, stderr: os.Stderr, lookup: os.LookupEnv}
	if err := a.inherit(); err != nil {
		fmt.Fprintln(os.Stderr, "cmg:", err)
		os.Exit(exitFailed)
	}
	code := execute(ctx, a, os.Args[1:])
	stop()
	profiled()
	os.Exit(code)
}

// An app is what a command has of the world around it.
type app struct {
	stdout, stderr io.Writer
	lookup         func(string) (string, bool) // the environment

	configFile          string
	logFormat, logLevel string

	sockets   *handover.Sockets // nil: listeners are neither inherited nor handed on
	program   handover.Program  // how this process was started
	clockOnce sync.Once
	clock     *clock // nil: the machine's
}

// execute runs one command line and gives its exit code. What went wrong is
// one paragraph on stderr.
func execute(ctx context.Context, a *app, args []string) int {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	var said *saidError
	if !errors.As(err, &said) {
		fmt.Fprintf(a.stderr, "%s: %s\n", cmd.CommandPath(), indented(explain(err)))
	}
	return exitCode(err)
}

// A saidError is one that the command has told already, in its own way.
type saidError struct{ error }

func (e *saidError) Unwrap() error { return e.error }

// explain gives the text of err, and what to do where only the kind of error
// can tell.
func explain(err error) string {
	text := err.Error()
	var u *usageError
	if errors.As(err, &u) {
		return text
	}
	switch {
	case errors.Is(err, cmg.ErrConflict):
		text += "\nnothing was overwritten"
	case errors.Is(err, os.ErrPermission):
		text += "\nit belongs to another user: use that account, or give this one the right"
	}
	return text
}

func indented(text string) string { return strings.ReplaceAll(text, "\n", "\n  ") }

func newRoot(a *app) *cobra.Command {
	root := group("cmg", "OpenCMG, an open cloud management gateway", `OpenCMG brings management to devices on the internet: a gateway outside, an
inside that opens channels outward only, content from a store by a token.

See it work on this machine:  cmg lab

`+exitCodesHelp,
		gatewayCommand(a), connectionPointCommand(a), managementPointCommand(a), agentCommand(a),
		contentCommand(a), siteCommand(a), tokenCommand(a), trustCommand(a), tenantCommand(a), routeCommand(a), deviceCommand(a), uploadCommand(a), collectionCommand(a), deployCommand(a),
		certificateCommand(a), blocksCommand(a), auditCommand(a), explainCommand(a),
		gatewaysCommand(a), statusCommand(a), reloadCommand(a), labCommand(a), configCommand(a), versionCommand(a))
	root.Version = cmg.BuildInfo().Version // makes the flag --version
	root.SetVersionTemplate(versionText(cmg.BuildInfo()))
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentFlags().StringVar(&a.logFormat, "log-format", "auto", "auto (text on a terminal, else json), text or json")
	root.PersistentFlags().StringVar(&a.logLevel, "log-level", "info", "debug, info, warn or error")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w\nsee %s --help", err, cmd.CommandPath())
	})
	return root
}

// group makes a command that only holds others.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Long: long, Args: cobra.ArbitraryArgs}
	c.AddCommand(commands...)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		var known []string
		for _, sub := range cmd.Commands() {
			known = append(known, sub.Name())
		}
		return usage("unknown command %q%s\nsee %s --help", args[0], didYouMean(args[0], known), cmd.CommandPath())
	}
	return c
}

// takes says how many arguments a command takes, by name.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage("%s is missing\nusage: %s", names[len(args)], cmd.UseLine())
		case len(args) > len(names):
			return usage("unexpected argument %q\nusage: %s", args[len(names)], cmd.UseLine())
		}
		return nil
	}
}
