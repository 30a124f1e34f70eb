package connectionpoint

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencmg/cmg"
)

const (
	maxProxyAnswer = 64 << 10 // bytes of one answer to CONNECT
	maxLoginSteps  = 5
)

// errLogin says that the proxy wants other credentials than it was given. It
// is cmg.ErrUnauthenticated.
func errLogin(format string, a ...any) error {
	return fmt.Errorf(format+": %w", append(a, cmg.ErrUnauthenticated)...)
}

// connect asks the proxy for a connection to addr (RFC 9110, section 9.3.6)
// and logs in where it is asked to. Some schemes prove the connection, not
// the request: all goes over one, as long as the proxy keeps it.
func (d *dialer) connect(ctx context.Context, proxy *url.URL, addr string) (_ net.Conn, err error) {
	who, err := d.login(proxy)
	if err != nil {
		return nil, err
	}
	talk := &conversation{d: d, proxy: proxy, addr: addr}
	defer func() {
		if err != nil {
			talk.close()
		}
	}()
	header := ""
	for range maxLoginSteps {
		resp, err := talk.ask(ctx, header)
		if err != nil {
			return nil, err
		}
		switch {
		case resp.StatusCode/100 == 2:
			return talk.whole(), nil
		case resp.StatusCode == http.StatusProxyAuthRequired, resp.StatusCode == http.StatusUnauthorized:
			// Some answer 401, which is a server's word, when a password is wrong.
		default:
			return nil, fmt.Errorf("it does not let through to %s: %s", addr, resp.Status)
		}
		challenges := append(resp.Header.Values("Proxy-Authenticate"), resp.Header.Values("Www-Authenticate")...)
		if header, err = who.answer(challenges, resp.StatusCode, addr); err != nil {
			return nil, err
		}
	}
	return nil, errLogin("it asks for a login again and again")
}

// A conversation is what is said on one connection to the proxy, or on a next
// one where the proxy closes it.
type conversation struct {
	d     *dialer
	proxy *url.URL
	addr  string
	c     net.Conn
	limit *io.LimitedReader
	br    *bufio.Reader
	stop  func() bool
}

func (t *conversation) close() {
	if t.c != nil {
		t.stop()
		t.c.Close()
		t.c = nil
	}
}

// ask sends CONNECT with the header's value for Proxy-Authorization, if any,
// and reads the answer whole.
func (t *conversation) ask(ctx context.Context, header string) (*http.Response, error) {
	if t.c == nil {
		c, err := t.d.open(ctx, t.proxy)
		if err != nil {
			return nil, err
		}
		t.c, t.limit = c, &io.LimitedReader{R: c}
		t.br = bufio.NewReader(t.limit)
		t.stop = context.AfterFunc(ctx, func() { c.Close() })
	}
	head := "CONNECT " + t.addr + " HTTP/1.1\r\nHost: " + t.addr + "\r\nUser-Agent: OpenCMG\r\n"
	if header != "" {
		head += "Proxy-Authorization: " + header + "\r\n"
	}
	if _, err := io.WriteString(t.c, head+"\r\n"); err != nil {
		return nil, err
	}
	t.limit.N = maxProxyAnswer
	resp, err := http.ReadResponse(t.br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	// Its text is for people, and has to be out of the way of the next answer.
	_, err = io.Copy(io.Discard, resp.Body)
	if resp.Close || err != nil || strings.EqualFold(resp.Header.Get("Proxy-Connection"), "close") {
		t.close()
	}
	return resp, nil
}

// whole gives the connection, now one to addr.
func (t *conversation) whole() net.Conn {
	t.stop()
	if t.br.Buffered() == 0 {
		return t.c
	}
	rest, _ := t.br.Peek(t.br.Buffered())
	return &begun{Conn: t.c, rest: rest}
}

// A begun is a connection of which the first bytes were read already.
type begun struct {
	net.Conn
	rest []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.rest) > 0 {
		n := copy(p, b.rest)
		b.rest = b.rest[n:]
		return n, nil
	}
	return b.Conn.Read(p)
}

// readFull reads until b is full or r ends.
func readFull(r io.Reader, b []byte) (int, error) {
	n, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}
