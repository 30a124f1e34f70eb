// Package handover lets a process give its listeners to the process that
// takes its place.
//
// A listener that is closed resets the connections that wait in its queue,
// and those whose handshake is under way, even where another process listens
// on the same port. So the socket is not closed: the successor gets it from
// its predecessor, or both get it from systemd, and the queue lives on.
//
//  1. The predecessor runs [Sockets.Replace]: its own program is started
//     again, with every listener it has open.
//  2. The successor takes them with [Sockets.Listen], by the same names and
//     addresses as ever, and says [Sockets.Up].
//  3. Replace returns, and the predecessor drains and ends. Until then it has
//     changed nothing: a successor that does not come up is ended.
//
// On Windows there is no such thing: two instances behind a balancer take
// turns.
package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencmg/cmg"
)

// variable holds what a successor inherits, in JSON. Its file descriptors
// mean nothing to any other process.
const variable = "CMG_HANDOVER"

const (
	firstFile = 3  // behind stdin, stdout, stderr
	maxFiles  = 64 // that are inherited
)

// inheritance is the value of variable.
type inheritance struct {
	Sockets []socket `json:"sockets"`
	Up      int      `json:"up"` // where the successor says that it is
}

type socket struct {
	Name    string `json:"name"`
	Address string `json:"address"` // as it was asked for; empty: any
	File    int    `json:"file"`
}

// Sockets are the listeners of a process: those it inherited and those it
// has opened. A nil *Sockets opens plain ones. It may be used by many
// goroutines at once.
type Sockets struct {
	up       *os.File // nil: nobody waits
	replaced atomic.Bool

	mu    sync.Mutex
	given []given
	open  []*held
}

type given struct {
	socket
	file *os.File
}

// held is a listener that is open.
type held struct {
	net.Listener
	name, address string
	from          *Sockets
}

// Inherit takes what the environment says was inherited, from a predecessor
// or by systemd's protocol (sd_listen_fds), and takes those variables out of
// the environment. Where there is nothing the Sockets are empty.
func Inherit() (*Sockets, error) {
	in, err := read(os.Getenv, os.Getpid())
	for _, name := range []string{variable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if err != nil {
		return nil, err
	}
	s := &Sockets{}
	for _, k := range in.Sockets {
		keepFromChildren(k.File)
		s.given = append(s.given, given{k, os.NewFile(uintptr(k.File), k.Name)})
	}
	if in.Up > 0 {
		keepFromChildren(in.Up)
		s.up = os.NewFile(uintptr(in.Up), "up")
	}
	return s, nil
}

// read finds out what was inherited. Descriptors are checked for their range
// only.
func read(getenv func(string) string, pid int) (in inheritance, err error) {
	bad := func(format string, a ...any) (inheritance, error) {
		return inheritance{}, fmt.Errorf("inherited listeners: "+format+": %w", append(a, cmg.ErrInvalid)...)
	}
	if text := getenv(variable); text != "" {
		if err := json.Unmarshal([]byte(text), &in); err != nil {
			return bad("%s is not what a predecessor writes", variable)
		}
		if len(in.Sockets) > maxFiles || in.Up != 0 && (in.Up < firstFile || in.Up > firstFile+maxFiles) {
			return bad("%s names too many", variable)
		}
		seen := map[int]bool{in.Up: true}
		for _, k := range in.Sockets {
			if k.File < firstFile || k.File > firstFile+maxFiles || seen[k.File] {
				return bad("%s gives the descriptor %d to %.40q", variable, k.File, k.Name)
			}
			seen[k.File] = true
		}
		return in, nil
	}
	if getenv("LISTEN_PID") != strconv.Itoa(pid) { // none, or meant for another process
		return in, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 || n > maxFiles {
		return bad("LISTEN_FDS is %.40q", getenv("LISTEN_FDS"))
	}
	var names []string
	if text := getenv("LISTEN_FDNAMES"); text != "" {
		names = strings.Split(text, ":")
	}
	if n > 0 && len(names) != n {
		return bad("%d descriptors and %d names: set FileDescriptorName= in each socket unit", n, len(names))
	}
	for i, name := range names {
		in.Sockets = append(in.Sockets, socket{Name: name, File: firstFile + i})
	}
	return in, nil
}

// Listen gives the listener of that name and address: the one that was
// inherited, or what make opens. One that systemd opened goes by its name
// alone. Closing it here does not end one that a successor has too.
func (s *Sockets) Listen(ctx context.Context, name, address string, open func(ctx context.Context, address string) (net.Listener, error)) (net.Listener, error) {
	if open == nil {
		open = Plain
	}
	if s == nil {
		return open(ctx, address)
	}
	ln, err := s.take(name, address)
	if ln == nil && err == nil {
		ln, err = open(ctx, address)
	}
	if err != nil {
		return nil, err
	}
	h := &held{Listener: ln, name: name, address: address, from: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, h)
	return h, nil
}

// Plain listens on a TCP address.
func Plain(ctx context.Context, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

// take gives an inherited listener; nil: there is none.
func (s *Sockets) take(name, address string) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, g := range s.given {
		if g.Name != name || g.Address != "" && g.Address != address {
			continue
		}
		s.given = append(s.given[:i:i], s.given[i+1:]...)
		defer g.file.Close() // FileListener has one of its own
		ln, err := net.FileListener(g.file)
		if err != nil {
			return nil, fmt.Errorf("inherited listener %s: %w", name, err)
		}
		return ln, nil
	}
	return nil, nil
}

// Up says that this process serves: whoever started it to take its place may
// drain now. Inherited listeners that nobody took are closed.
func (s *Sockets) Up() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.given {
		g.file.Close()
	}
	s.given = nil
	if s.up == nil {
		return nil
	}
	_, err := s.up.Write([]byte{'u'})
	err = errors.Join(err, s.up.Close())
	s.up = nil
	if err != nil {
		return fmt.Errorf("tell the predecessor: %w", err)
	}
	return nil
}

// Replaced says that another process has taken over: this one is to go.
func (s *Sockets) Replaced() bool { return s != nil && s.replaced.Load() }

func (h *held) Close() error {
	h.from.mu.Lock()
	for i, o := range h.from.open {
		if o == h {
			h.from.open = append(h.from.open[:i:i], h.from.open[i+1:]...)
			break
		}
	}
	h.from.mu.Unlock()
	return h.Listener.Close()
}

// A File is a listener's descriptor, doubled.
type filer interface{ File() (*os.File, error) }

// Unwrap gives the listener as the network package made it.
func (h *held) Unwrap() net.Listener { return h.Listener }

// files doubles the descriptors of all open listeners, and says what a
// successor has to be told of them.
func (s *Sockets) files() (fs []*os.File, in inheritance, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.open {
		l, ok := h.Listener.(filer)
		if !ok {
			continue
		}
		f, err := l.File()
		if err != nil {
			closeAll(fs)
			return nil, in, fmt.Errorf("hand over %s: %w", h.name, err)
		}
		in.Sockets = append(in.Sockets, socket{h.name, h.address, firstFile + len(fs)})
		fs = append(fs, f)
	}
	return fs, in, nil
}

func closeAll(fs []*os.File) {
	for _, f := range fs {
		f.Close()
	}
}
