//go:build unix

package handover

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/opencmg/cmg"
)

// TestMain is also the successor of the tests: what it does stands in ROLE.
func TestMain(m *testing.M) {
	switch os.Getenv("HANDOVER_TEST_ROLE") {
	case "serve":
		succeed()
	case "die":
		os.Exit(3)
	case "hang":
		time.Sleep(time.Hour)
	default:
		goleak.VerifyTestMain(m)
	}
}

// succeed takes the listener over, answers one connection and ends.
func succeed() {
	s, err := Inherit()
	if err != nil {
		panic(err)
	}
	ln, err := s.Listen(context.Background(), "door", os.Getenv("HANDOVER_TEST_ADDRESS"), func(context.Context, string) (net.Listener, error) {
		return nil, errors.New("there is nothing inherited")
	})
	if err != nil {
		panic(err)
	}
	if err := s.Up(); err != nil {
		panic(err)
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			panic(err)
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		fmt.Fprintf(c, "successor %s", line)
		c.Close()
		if line == "end\n" {
			os.Exit(0)
		}
	}
}

func program(t *testing.T, role, address string) Program {
	t.Helper()
	t.Setenv("HANDOVER_TEST_ROLE", role)
	t.Setenv("HANDOVER_TEST_ADDRESS", address)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Program{Path: exe, Args: []string{exe}, Dir: t.TempDir()}
}

// TestReplace hands a listener over with connections in its queue: the
// successor answers them.
func TestReplace(t *testing.T) {
	s := &Sockets{}
	ln, err := s.Listen(t.Context(), "door", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	say := func(text string) net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(c, text)
		return c
	}
	early := say("early") // nobody has accepted it when its door changes hands
	p, err := s.Replace(t.Context(), program(t, "serve", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	if !s.Replaced() {
		t.Error("not replaced")
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{early, say("end")} {
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(b), "successor e") {
			t.Errorf("%q, %v", b, err)
		}
		c.Close()
	}
	if state, err := p.Wait(); err != nil || !state.Success() {
		t.Errorf("%v, %v", state, err)
	}
}

// TestReplaceFails leaves everything as it is where the successor does not
// come up.
func TestReplaceFails(t *testing.T) {
	s := &Sockets{}
	ln, err := s.Listen(t.Context(), "door", "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := s.Replace(t.Context(), program(t, "die", "")); !errors.Is(err, cmg.ErrUnavailable) || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("one that dies: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Replace(ctx, program(t, "hang", "")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that hangs: %v", err)
	}
	if _, err := s.Replace(t.Context(), Program{Path: filepath.Join(t.TempDir(), "none"), Args: []string{"none"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if s.Replaced() {
		t.Error("replaced all the same")
	}
	accepted := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			c.Close()
		}
		accepted <- err
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := <-accepted; err != nil {
		t.Errorf("the door is closed: %v", err)
	}
}

func TestRead(t *testing.T) {
	const pid = 77
	for name, tt := range map[string]struct {
		env  map[string]string
		want string // names and descriptors; "!" and part of the error
	}{
		"nothing":         {nil, ""},
		"predecessor":     {map[string]string{variable: `{"sockets":[{"name":"a","address":":1","file":3},{"name":"b","address":":2","file":4}],"up":5}`}, "a:1=3 b:2=4 up=5"},
		"systemd":         {map[string]string{"LISTEN_PID": "77", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "clients:status"}, "clients=3 status=4"},
		"for another":     {map[string]string{"LISTEN_PID": "78", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"}, ""},
		"no names":        {map[string]string{"LISTEN_PID": "77", "LISTEN_FDS": "1"}, "!FileDescriptorName="},
		"too few names":   {map[string]string{"LISTEN_PID": "77", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b"}, "!3 descriptors and 2 names"},
		"not a number":    {map[string]string{"LISTEN_PID": "77", "LISTEN_FDS": "x"}, "!LISTEN_FDS"},
		"negative":        {map[string]string{"LISTEN_PID": "77", "LISTEN_FDS": "-1"}, "!LISTEN_FDS"},
		"too many":        {map[string]string{"LISTEN_PID": "77", "LISTEN_FDS": "100000"}, "!LISTEN_FDS"},
		"not JSON":        {map[string]string{variable: "x"}, "!not what a predecessor writes"},
		"stdin":           {map[string]string{variable: `{"sockets":[{"name":"a","file":0}]}`}, "!descriptor 0"},
		"twice the same":  {map[string]string{variable: `{"sockets":[{"name":"a","file":3},{"name":"b","file":3}]}`}, "!descriptor 3"},
		"up is a socket":  {map[string]string{variable: `{"sockets":[{"name":"a","file":3}],"up":3}`}, "!descriptor 3"},
		"up out of range": {map[string]string{variable: `{"up":4000}`}, "!too many"},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := read(func(k string) string { return tt.env[k] }, pid)
			if part, bad := strings.CutPrefix(tt.want, "!"); bad {
				if !errors.Is(err, cmg.ErrInvalid) || !strings.Contains(err.Error(), part) {
					t.Errorf("got %v, want %s", err, part)
				}
				return
			}
			var got []string
			for _, k := range in.Sockets {
				got = append(got, fmt.Sprintf("%s%s=%d", k.Name, k.Address, k.File))
			}
			if in.Up != 0 {
				got = append(got, fmt.Sprintf("up=%d", in.Up))
			}
			if s := strings.Join(got, " "); s != tt.want || err != nil {
				t.Errorf("got %s, %v", s, err)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	f.Add(`{"sockets":[{"name":"a","address":":1","file":3}],"up":4}`, "", "", "")
	f.Add("", "7", "2", "a:b")
	f.Fuzz(func(t *testing.T, own, pid, n, names string) {
		in, err := read(func(k string) string {
			return map[string]string{variable: own, "LISTEN_PID": pid, "LISTEN_FDS": n, "LISTEN_FDNAMES": names}[k]
		}, 7)
		if err != nil {
			return
		}
		seen := map[int]bool{}
		for _, k := range in.Sockets {
			if k.File < firstFile || k.File > firstFile+maxFiles || seen[k.File] || k.File == in.Up {
				t.Errorf("took %+v", in)
			}
			seen[k.File] = true
		}
	})
}

// TestNotify plays systemd's end.
func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Errorf("nobody asked: %v", err)
	}
	name := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	if err := Notify("MAINPID=5", "READY=1"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if got := string(b[:n]); err != nil || got != "MAINPID=5\nREADY=1" {
		t.Errorf("%q, %v", got, err)
	}
}
