package main

import (
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
)

// logger makes the process's logger as --log-format and --log-level say. It
// writes to stderr: stdout is for what was asked for.
func (a *app) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return nil, usage("--log-level %q is not debug, info, warn or error", a.logLevel)
	}
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, at slog.Attr) slog.Attr {
		if at.Value.Kind() == slog.KindDuration { // JSON would say nanoseconds
			at.Value = slog.StringValue(at.Value.Duration().String())
		}
		return at
	}}
	switch a.logFormat {
	case "json":
		return slog.New(slog.NewJSONHandler(a.stderr, o)), nil
	case "text":
		return slog.New(slog.NewTextHandler(a.stderr, o)), nil
	case "auto":
		if isTerminal(a.stderr) {
			return slog.New(slog.NewTextHandler(a.stderr, o)), nil
		}
		return slog.New(slog.NewJSONHandler(a.stderr, o)), nil
	}
	return nil, usage("--log-format %q is not auto, text or json", a.logFormat)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
