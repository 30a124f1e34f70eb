//go:build linux

// Command bench measures gateways that carry HTTP through a channel, against
// one another, on one machine: see README.md.
//
// One binary is the runner, the server inside, the load that wrk and h2load
// do not make, and a proxy that adds delay.
package main

import (
	"fmt"
	"os"
	"slices"
)

var commands = map[string]func(args []string) error{
	"backend": backendMain,
	"load":    loadMain,
	"delay":   delayMain,
	"calib":   calibMain,
	"run":     runMain,
	"report":  reportMain,
	"scale":   scaleMain,
	"waits":   waitsMain,
}

func main() {
	var names []string
	for n := range commands {
		names = append(names, n)
	}
	slices.Sort(names)
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench COMMAND [-help]; commands:", names)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
