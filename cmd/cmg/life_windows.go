package main

import "os"

// Windows has no such signals: cmg reload asks by the status listener.
var (
	reloadSignal os.Signal
	lifeSignals  = []os.Signal{neverSent{}}
)

// neverSent keeps signal.Notify from taking an empty list for all signals.
type neverSent struct{}

func (neverSent) Signal()        {}
func (neverSent) String() string { return "never sent" }
