package main

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// clockVariable moves a process's clock, so that a test need not wait for
// days: by a duration such as 24h1m, or by what stands in a file, whose name
// is an absolute path and which is read again while the process runs. Nothing
// tells of it but this and a warning at the start: nobody who runs a site has
// a use for it.
const clockVariable = "CMG_TEST_CLOCK"

// clockReread is how old, in real time, what was read of the file may be.
const clockReread = 100 * time.Millisecond

// A clock is what a process takes for the time.
type clock struct {
	file   string       // empty: ahead stays as it is
	ahead  atomic.Int64 // nanoseconds
	looked atomic.Int64 // at the file, Unix nanoseconds of real time
	mu     sync.Mutex   // held by whoever looks
}

// now is the clock that every role and command is given.
func (a *app) now() time.Time {
	a.clockOnce.Do(a.setClock)
	if a.clock == nil {
		return time.Now()
	}
	return a.clock.now()
}

func (a *app) setClock() {
	if a.lookup == nil {
		return
	}
	text, _ := a.lookup(clockVariable)
	if text == "" {
		return
	}
	c := new(clock)
	if filepath.IsAbs(text) {
		c.file = text
	} else if d, err := time.ParseDuration(text); err == nil {
		c.ahead.Store(int64(d))
	} else {
		return // a clock that nobody understands is the right one
	}
	a.clock = c
}

func (c *clock) now() time.Time {
	real := time.Now()
	if c.file != "" && real.UnixNano()-c.looked.Load() > int64(clockReread) && c.mu.TryLock() {
		c.looked.Store(real.UnixNano())
		if b, err := os.ReadFile(c.file); err == nil {
			if d, err := time.ParseDuration(strings.TrimSpace(string(b))); err == nil {
				c.ahead.Store(int64(d))
			}
		}
		c.mu.Unlock()
	}
	return real.Add(time.Duration(c.ahead.Load()))
}
