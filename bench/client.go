//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg/auth"
)

// A client makes raw HTTP/1.1 over TLS 1.3, X25519 and AES-128-GCM, so that
// the load costs little and every peer is met alike.
type client struct {
	addr, host string
	fields     string // further header lines, each with its CR LF
	tls        *tls.Config
	sources    int // addresses that it comes from
	dialled    atomic.Uint32
}

func newClient(addr, ca, header string) (*client, error) {
	conf, err := auth.ClientTo(auth.ClientFiles{Roots: ca})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	c := &client{addr: addr, host: "localhost", tls: conf, sources: 16}
	conf.ServerName = c.host
	conf.MinVersion = tls.VersionTLS13
	conf.CurvePreferences = []tls.CurveID{tls.X25519}
	conf.NextProtos = []string{"http/1.1"}
	if header != "" {
		c.fields = header + "\r\n"
	}
	return c, nil
}

// patience bounds what is not meant to take long.
const patience = 20 * time.Second

// dial goes out from 127.0.0.1 and those behind it by turns, so that ports do
// not run out.
func (c *client) dial() (*tls.Conn, error) {
	from := net.IPv4(127, 0, 0, byte(1+c.dialled.Add(1)%uint32(c.sources)))
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: patience}
	conn, err := d.Dial("tcp", c.addr)
	if err != nil {
		return nil, err
	}
	t := tls.Client(conn, c.tls)
	t.SetDeadline(time.Now().Add(patience))
	if err := t.Handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	t.SetDeadline(time.Time{})
	return t, nil
}

// request gives the head of a request with further header lines.
func (c *client) request(method, target string, more ...string) []byte {
	head := method + " " + target + " HTTP/1.1\r\nHost: " + c.host + "\r\n" + c.fields
	for _, m := range more {
		head += m + "\r\n"
	}
	return []byte(head + "\r\n")
}

// exchange sends one request and throws the answer's body away.
func exchange(t *tls.Conn, br *bufio.Reader, req []byte) error {
	t.SetDeadline(time.Now().Add(patience))
	if _, err := t.Write(req); err != nil {
		return err
	}
	_, err := readReply(br)
	return err
}

// readReply reads one answer, throws its body away and gives its length. Any
// status but 200 is an error.
func readReply(br *bufio.Reader) (int64, error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 || string(line[9:12]) != "200" {
		return 0, errors.New("answer: " + strings.TrimSpace(string(line)))
	}
	length, chunked := int64(-1), false
	for {
		h, err := br.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(h) <= 2 {
			break
		}
		if v, ok := field(h, "content-length:"); ok {
			if length, err = strconv.ParseInt(v, 10, 64); err != nil {
				return 0, fmt.Errorf("answer: %w", err)
			}
		} else if v, ok := field(h, "transfer-encoding:"); ok && strings.Contains(v, "chunked") {
			chunked = true
		}
	}
	switch {
	case chunked:
		n, err := io.Copy(io.Discard, httputil.NewChunkedReader(br))
		if err == nil {
			_, err = br.ReadSlice('\n')
		}
		return n, err
	case length < 0:
		return io.Copy(io.Discard, br)
	}
	return discard(br, length)
}

// discard reads n bytes without a copy, and gives how many came.
func discard(br *bufio.Reader, n int64) (int64, error) {
	for left := n; left > 0; {
		k, err := br.Discard(int(min(left, 1<<30)))
		left -= int64(k)
		if err != nil {
			return n - left, err
		}
	}
	return n, nil
}
