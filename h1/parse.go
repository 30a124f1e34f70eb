package h1

import "bytes"

// Parse reads a request head: everything up to and with the empty line. The
// request's slices point into head, except for a target that had to be
// normalised.
func (r *Request) Parse(head []byte) error {
	r.Reset()
	line, rest, err := cutLine(head)
	if err != nil {
		return err
	}
	if err := r.requestLine(line); err != nil {
		return err
	}
	f := framing{request: true, http10: r.HTTP10}
	if r.Fields, err = f.fields(r.Fields, rest); err != nil {
		return err
	}
	switch {
	case f.te && f.hasLength:
		return bad("both Content-Length and Transfer-Encoding")
	case f.te && r.HTTP10:
		return bad("Transfer-Encoding in HTTP/1.0")
	case f.hosts > 1:
		return bad("more than one Host")
	case f.hosts == 0 && !r.HTTP10:
		return bad("no Host")
	case f.expectOther:
		return &Error{Status: 417, Why: "an expectation other than 100-continue"}
	}
	if r.Host == nil { // of an absolute target
		r.Host = f.host
	} else if !bytes.EqualFold(r.Host, f.host) {
		return bad("the target's host is not the Host")
	}
	if !goodHost(r.Host) {
		return bad("Host is not a host name with an optional port")
	}
	r.Length = f.length
	if f.te {
		r.Length = Chunked
	}
	r.Expect = f.expect && !r.HTTP10 && r.Length != 0
	r.Close = f.close || r.HTTP10 && !f.keepAlive
	r.WebSocket = f.webSocket && !r.HTTP10 && f.nominates("upgrade")
	if f.upgrades > 0 {
		r.Upgrade, err = f.upgrade(r.Length)
	}
	return err
}

// requestLine reads "METHOD SP target SP HTTP/1.x": exactly two spaces.
func (r *Request) requestLine(line []byte) error {
	i := bytes.IndexByte(line, ' ')
	if i <= 0 {
		return bad("the request line is not: method, target, version")
	}
	r.Method, line = line[:i], line[i+1:]
	if len(r.Method) > maxMethod || !all(r.Method, isToken) {
		return bad("the method is not a token of at most %d characters", maxMethod)
	}
	i = bytes.IndexByte(line, ' ')
	if i <= 0 {
		return bad("the request line is not: method, target, version")
	}
	target, version := line[:i], line[i+1:]
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		r.HTTP10 = true
	default:
		if len(version) == 8 && string(version[:5]) == "HTTP/" && version[6] == '.' {
			return &Error{Status: 505, Why: "an HTTP version other than 1.0 and 1.1"}
		}
		return bad("the request line is not: method, target, version")
	}
	if len(target) > MaxTarget {
		return &Error{Status: 414, Why: "the target is longer than 16 KiB"}
	}
	return r.target(target)
}

// target reads origin-form and absolute-form (RFC 9112, section 3.2). The
// asterisk goes with OPTIONS only; CONNECT has no use here.
func (r *Request) target(t []byte) error {
	if string(r.Method) == "CONNECT" {
		return &Error{Status: 501, Why: "CONNECT is not served"}
	}
	if len(t) == 1 && t[0] == '*' && string(r.Method) == "OPTIONS" {
		r.Target, r.Path = t, t
		return nil
	}
	if t[0] != '/' {
		var ok bool
		if r.Host, t, ok = absolute(t); !ok {
			return bad("the target is neither a path nor an http(s) address")
		}
	}
	path, query := t, []byte(nil)
	if i := bytes.IndexByte(t, '?'); i >= 0 {
		path, query = t[:i], t[i:]
	}
	if !all(query, isQuery) {
		return bad("the query has a character that has to be percent-encoded")
	}
	norm, err := NormalPath(path)
	if err != nil {
		return err
	}
	if len(norm) == len(path) { // nothing was decoded
		r.Target, r.Path = t, path
		return nil
	}
	r.Target = append(norm, query...)
	r.Path = r.Target[:len(norm)]
	return nil
}

func absolute(t []byte) (host, rest []byte, ok bool) {
	switch {
	case len(t) > 8 && bytes.EqualFold(t[:8], []byte("https://")):
		t = t[8:]
	case len(t) > 7 && bytes.EqualFold(t[:7], []byte("http://")):
		t = t[7:]
	default:
		return nil, nil, false
	}
	i := bytes.IndexByte(t, '/')
	if i <= 0 { // an address without a path is refused too: no client here sends one
		return nil, nil, false
	}
	return t[:i], t[i:], true
}

// NormalPath checks a path and decodes the percent-encodings of unreserved
// characters, which mean the same decoded (RFC 3986, section 6.2.2.2). It
// refuses what two servers may read in two ways: encoded slashes,
// backslashes and control bytes, dot segments in any spelling. The result is
// path itself if there was nothing to decode.
func NormalPath(path []byte) ([]byte, error) {
	if len(path) == 0 || path[0] != '/' {
		return nil, bad("the path does not begin with a slash")
	}
	if !all(path, isPath) {
		return nil, bad("the path has a character that has to be percent-encoded")
	}
	out := path
	if i := bytes.IndexByte(path, '%'); i >= 0 {
		out = append(make([]byte, 0, len(path)), path[:i]...)
		for ; i < len(path); i++ {
			c := path[i]
			if c != '%' {
				out = append(out, c)
				continue
			}
			if i+2 >= len(path) || unhex(path[i+1]) < 0 || unhex(path[i+2]) < 0 {
				return nil, bad("the path has a percent sign without two hex digits")
			}
			v := byte(unhex(path[i+1])<<4 | unhex(path[i+2]))
			switch {
			case v == '/' || v == '\\' || v < 0x20 || v == 0x7f:
				return nil, bad("the path has an encoded slash, backslash or control byte")
			case class[v]&isToken != 0 && (v == '-' || v == '.' || v == '_' || v == '~' || v >= '0' && v <= '9' || v|0x20 >= 'a' && v|0x20 <= 'z'):
				out = append(out, v)
			default:
				out = append(out, '%', upper(path[i+1]), upper(path[i+2]))
			}
			i += 2
		}
	}
	if dots(out) {
		return nil, bad("the path has a dot segment")
	}
	return out, nil
}

// dots finds a segment that is "." or "..", also before parameters (";").
func dots(p []byte) bool {
	for i := 0; i < len(p); i++ {
		if p[i] != '/' || i+1 >= len(p) || p[i+1] != '.' {
			continue
		}
		j := i + 2
		if j < len(p) && p[j] == '.' {
			j++
		}
		if j == len(p) || p[j] == '/' || p[j] == ';' {
			return true
		}
	}
	return false
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'f' {
		return c - 0x20
	}
	return c
}

// goodHost accepts a registered name, IPv4 or [IPv6], and a port.
func goodHost(h []byte) bool {
	if len(h) > 255 {
		return false
	}
	for _, c := range h {
		ok := c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '-' || c == '.' || c == '_' || c == ':' || c == '[' || c == ']' || c == '~'
		if !ok {
			return false
		}
	}
	return true
}

// Parse reads a response head to a request with the given method.
func (r *Response) Parse(head, method []byte) error {
	r.Reset()
	line, rest, err := cutLine(head)
	if err != nil {
		return err
	}
	http10 := false
	switch {
	case len(line) < 12:
		return bad("the status line is too short")
	case string(line[:9]) == "HTTP/1.0 ":
		http10 = true
	case string(line[:9]) != "HTTP/1.1 ":
		return bad("the status line does not begin with HTTP/1.1")
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return bad("the status is not three digits")
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 || r.Status > 599 {
		return bad("the status is not within 100 and 599")
	}
	if len(line) > 12 {
		if line[12] != ' ' {
			return bad("the status is not three digits")
		}
		r.Reason = line[13:]
	}
	if !all(r.Reason, isValue) {
		return bad("the reason phrase has a control byte")
	}
	f := framing{}
	if r.Fields, err = f.fields(r.Fields, rest); err != nil {
		return err
	}
	r.Close = f.close || http10 && !f.keepAlive
	switch {
	case f.te && (f.hasLength || http10):
		return bad("Transfer-Encoding together with Content-Length or HTTP/1.0")
	case r.Status == 101 && http10:
		return bad("101 Switching Protocols in HTTP/1.0")
	case r.Status == 101:
		r.Upgrade, err = f.switched()
		return err
	case NoBody(method, r.Status):
		if f.hasLength && string(method) == "HEAD" {
			r.Length = f.length // what GET would send: the answer to HEAD says it too
		}
	case f.te:
		r.Length = Chunked
	case f.hasLength:
		r.Length = f.length
	default:
		r.Length, r.Close = UntilClose, true
	}
	return nil
}
