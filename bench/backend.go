//go:build linux

package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"strconv"
	"strings"
	"time"
)

// backendMain is the server inside, the same for all peers, and deliberately
// cheap: one goroutine and one buffered reader a connection, no header map,
// one write a reply.
//
//	GET  /s            512 B
//	POST /p            reads the body, replies 2 KiB
//	GET  /b?n=BYTES    BYTES of body
//	GET  /hold?ms=N    512 B after N ms
func backendMain(args []string) error {
	fs := flag.NewFlagSet("backend", flag.ExitOnError)
	addr := fs.String("addr", "127.0.0.1:9000", "listen address, on loopback")
	fs.Parse(args) // exits by itself
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		c, err := ln.Accept()
		if err != nil { // out of descriptors: some will come back
			fmt.Fprintln(os.Stderr, "backend:", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go serveBackend(c)
	}
}

func reply(n int) []byte {
	return append([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: "+strconv.Itoa(n)+"\r\n\r\n"),
		bytes.Repeat([]byte{'x'}, n)...)
}

var (
	smallReply = reply(512)
	postReply  = reply(2048)
	bulk       = bytes.Repeat([]byte("0123456789abcdef"), 16384) // 256 KiB
)

func serveBackend(c net.Conn) {
	defer c.Close()
	br := bufio.NewReaderSize(c, 16<<10)
	for {
		path, closing, err := readRequest(c, br)
		if err != nil {
			return
		}
		if err := answer(c, path); err != nil || closing {
			return
		}
	}
}

// readRequest reads one request with its body. The peers are trusted: they
// are what is measured.
func readRequest(c net.Conn, br *bufio.Reader) (path string, closing bool, err error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return "", false, err
	}
	_, path, _ = strings.Cut(string(line), " ")
	path, _, _ = strings.Cut(path, " ")
	var length int64
	chunked, expect := false, false
	for {
		h, err := br.ReadSlice('\n')
		if err != nil {
			return "", false, err
		}
		if len(h) <= 2 {
			break
		}
		switch h[0] | 0x20 {
		case 'c':
			if v, ok := field(h, "content-length:"); ok {
				length, _ = strconv.ParseInt(v, 10, 64)
			} else if v, ok := field(h, "connection:"); ok && strings.EqualFold(v, "close") {
				closing = true
			}
		case 't':
			if v, ok := field(h, "transfer-encoding:"); ok && strings.Contains(strings.ToLower(v), "chunked") {
				chunked = true
			}
		case 'e':
			_, expect = field(h, "expect:")
		}
	}
	if expect {
		if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return "", false, err
		}
	}
	switch {
	case chunked:
		if _, err = io.Copy(io.Discard, httputil.NewChunkedReader(br)); err == nil {
			_, err = br.ReadSlice('\n') // the line after the last chunk
		}
	case length > 0:
		_, err = io.CopyN(io.Discard, br, length)
	}
	return path, closing, err
}

func answer(c net.Conn, path string) error {
	switch {
	case strings.HasPrefix(path, "/p"):
		_, err := c.Write(postReply)
		return err
	case strings.HasPrefix(path, "/b?n="):
		n, _ := strconv.ParseInt(path[len("/b?n="):], 10, 64)
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: "+strconv.FormatInt(n, 10)+"\r\n\r\n")
		for n > 0 && err == nil {
			k := min(n, int64(len(bulk)))
			_, err = c.Write(bulk[:k])
			n -= k
		}
		return err
	case strings.HasPrefix(path, "/hold?ms="):
		ms, _ := strconv.Atoi(path[len("/hold?ms="):])
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}
	_, err := c.Write(smallReply)
	return err
}

// field gives the value of a header line if it is the one named, in lower
// case and with its colon.
func field(line []byte, name string) (string, bool) {
	if len(line) < len(name) || !strings.EqualFold(string(line[:len(name)]), name) {
		return "", false
	}
	return strings.TrimSpace(string(line[len(name):])), true
}
