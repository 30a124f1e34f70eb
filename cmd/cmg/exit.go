package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/opencmg/cmg"
)

// What the process exits with. Scripts may rely on these numbers.
const (
	exitOK          = 0   // done
	exitFailed      = 1   // anything that has no number of its own; a lab's pass that did not succeed
	exitUsage       = 2   // wrong command line or configuration: nothing was done
	exitUnavailable = 3   // somebody who is needed cannot be reached, or said: try again later
	exitRefused     = 4   // somebody said no: not proven, or not allowed
	exitNotFound    = 5   // what was named does not exist
	exitConflict    = 6   // what is there does not permit it, such as a site that exists already
	exitStopped     = 130 // SIGINT or SIGTERM came before the work was done, or a second one ended the process at once
)

const exitCodesHelp = `Exit codes: 0 done, 1 failed, 2 wrong command line or configuration,
3 cannot reach or try later, 4 refused, 5 not found, 6 in conflict with what is
there, 130 stopped by a signal before the work was done.`

// exitCode gives the exit code for what a command returned.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	for _, k := range []struct {
		kind error
		code int
	}{
		{context.Canceled, exitStopped}, // only a signal cancels a command
		{cmg.ErrInvalid, exitUsage},
		{cmg.ErrUnauthenticated, exitRefused},
		{cmg.ErrForbidden, exitRefused},
		{cmg.ErrNotFound, exitNotFound},
		{cmg.ErrConflict, exitConflict},
		{cmg.ErrUnavailable, exitUnavailable},
		{context.DeadlineExceeded, exitUnavailable},
		{fs.ErrNotExist, exitNotFound},
	} {
		if errors.Is(err, k.kind) {
			return k.code
		}
	}
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return exitUnavailable
	}
	return exitFailed
}

// usage makes an error of a wrong command line or configuration.
func usage(format string, a ...any) error {
	return &usageError{fmt.Errorf(format, a...)}
}

// A usageError is an ErrInvalid whose text does not end in the kind's name:
// it is read by the person who typed the command.
type usageError struct{ error }

func (e *usageError) Unwrap() []error { return []error{e.error, cmg.ErrInvalid} }
