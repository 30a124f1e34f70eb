package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/opencmg/cmg"
)

// A Program is what a process was started as.
type Program struct {
	Path string   // of the program; looked up again each time, so that a new one is found
	Args []string // with the name it was called by
	Dir  string
}

// ThisProgram says how this process was started. It has to be asked before
// anything changes the current folder.
func ThisProgram() (p Program, err error) {
	p.Args = slices.Clone(os.Args)
	if p.Dir, err = os.Getwd(); err != nil {
		return p, fmt.Errorf("this program: %w", err)
	}
	// Not os.Executable: where the name leads to a new program by now, it is
	// the name that counts.
	if p.Path, err = exec.LookPath(p.Args[0]); err != nil {
		return p, fmt.Errorf("this program: %w", err)
	}
	if p.Path, err = filepath.Abs(p.Path); err != nil {
		return p, fmt.Errorf("this program: %w", err)
	}
	return p, nil
}

// ErrUnsupported says that this system cannot hand listeners over.
var ErrUnsupported = fmt.Errorf("this system cannot hand listeners over: %w", errors.ErrUnsupported)

// Replace starts p with every listener that is open here, and waits until it
// says that it is up. Then it gives the process, which nobody waits for: it
// outlives this one. Where it ends before, or ctx does, it is ended, and
// everything is as before.
func (s *Sockets) Replace(ctx context.Context, p Program) (successor *os.Process, err error) {
	if runtime.GOOS == "windows" {
		return nil, ErrUnsupported
	}
	files, in, err := s.files()
	if err != nil {
		return nil, err
	}
	defer func() { closeAll(files) }()
	told, tell, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("hand over: %w", err)
	}
	defer told.Close()
	in.Up = firstFile + len(files)
	files = append(files, tell)
	text, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("hand over: %w", err)
	}
	cmd := exec.Command(p.Path)
	cmd.Args, cmd.Dir, cmd.ExtraFiles = p.Args, p.Dir, files
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, variable+"=") }), variable+"="+string(text))
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the successor: %w", err)
	}
	tell.Close() // the successor's end is the only one now
	up := make(chan bool, 1)
	go func() {
		n, _ := told.Read(make([]byte, 1))
		up <- n == 1
	}()
	stop := context.AfterFunc(ctx, func() { told.Close() })
	defer stop()
	if <-up {
		s.replaced.Store(true)
		return cmd.Process, nil
	}
	cmd.Process.Kill()
	how := cmd.Wait()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("the successor was not up in time: %w: %w", ctx.Err(), cmg.ErrUnavailable)
	}
	return nil, fmt.Errorf("the successor ended before it was up (%v): %w", how, cmg.ErrUnavailable)
}
