package channel

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A quickConn reads and writes a TCP connection by system calls that do not tell
// Go's scheduler: a socket that never blocks returns at once, and to tell it
// costs as much as a small write. One goroutine may read and one may write at
// the same time.
type quickConn struct {
	*net.TCPConn
	raw      syscall.RawConn
	in, out  transfer
	try, put func(fd uintptr) bool // made once: a closure for each call would be garbage
}

// A transfer is one system call's part of a read or write.
type transfer struct {
	p   []byte
	n   int
	err syscall.Errno
}

// Quick gives c a quicker way to read and write where the system has one.
func Quick(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return c
	}
	s := &quickConn{TCPConn: t, raw: raw}
	s.try = func(fd uintptr) bool { return s.in.call(syscall.SYS_RECVFROM, fd, 0) }
	s.put = func(fd uintptr) bool { return s.out.call(syscall.SYS_SENDTO, fd, syscall.MSG_NOSIGNAL) }
	return s
}

// unsent is how many bytes a channel's socket takes that TCP cannot send yet.
// What waits there nothing can overtake: the rest waits with us, where what is
// urgent goes first.
const unsent = 256 << 10

// wire is Quick for the connection beneath a channel.
func wire(c net.Conn) net.Conn {
	c = Quick(c)
	if q, ok := c.(*quickConn); ok {
		q.raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent) })
	}
	return c
}

// call makes the system call; false: the socket is not ready.
func (t *transfer) call(number, fd, flags uintptr) bool {
	for {
		n, _, err := syscall.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(t.p))), uintptr(len(t.p)), flags, 0, 0)
		switch err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		t.n, t.err = int(n), err
		return true
	}
}

func (s *quickConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.in.p = p
	err := s.raw.Read(s.try)
	n, no := s.in.n, s.in.err
	s.in = transfer{}
	switch {
	case err != nil:
		return 0, err
	case no != 0:
		return 0, s.failed("read", no)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (s *quickConn) Write(p []byte) (sent int, err error) {
	for len(p) > 0 && err == nil {
		s.out.p = p
		err = s.raw.Write(s.put)
		n, no := s.out.n, s.out.err
		s.out = transfer{}
		switch {
		case err != nil:
		case no != 0:
			err = s.failed("write", no)
		default:
			sent, p = sent+n, p[n:]
		}
	}
	return sent, err
}

func (s *quickConn) failed(op string, no syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(op, no)}
}
