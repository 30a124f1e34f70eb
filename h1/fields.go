package h1

import "bytes"

// framing gathers what the fields of one head say about the message and its
// connection, while the rest of the fields are kept.
type framing struct {
	request, http10 bool

	host                []byte
	hosts               int
	length              int64
	hasLength, te       bool
	close, keepAlive    bool
	expect, expectOther bool
	webSocket           bool   // Upgrade names it
	protocols           []byte // that Upgrade names
	upgrades            int
	nominated           [][]byte // names in Connection that go with this hop only
}

// cutLine takes one line that ends in CR LF. A bare LF, a bare CR and every
// other control byte are refused by the character checks on what it gives.
func cutLine(b []byte) (line, rest []byte, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, bad("a line does not end in CR LF")
	}
	return b[:i-1], b[i+1:], nil
}

// fields reads all fields up to the empty line and appends those that go
// end to end.
func (f *framing) fields(fs []Field, b []byte) ([]Field, error) {
	for n := 0; ; n++ {
		line, rest, err := cutLine(b)
		if err != nil {
			return fs, err
		}
		b = rest
		if len(line) == 0 {
			break
		}
		if n == MaxFields {
			return fs, &Error{Status: 431, Why: "more than 128 fields"}
		}
		name, value, err := cutField(line)
		if err != nil {
			return fs, err
		}
		id, exact := lookup(name)
		keep, err := f.take(id, name, value)
		if err != nil {
			return fs, err
		}
		if keep {
			fs = append(fs, Field{Name: name, Value: value, ID: id, exact: exact})
		}
	}
	if len(b) != 0 {
		return fs, bad("bytes after the head's empty line")
	}
	if len(f.nominated) > 0 {
		fs = f.dropNominated(fs)
	}
	return fs, nil
}

func cutField(line []byte) (name, value []byte, err error) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, bad("a field is folded over two lines")
	}
	i := bytes.IndexByte(line, ':')
	if i <= 0 || i > maxName || !all(line[:i], isToken) {
		return nil, nil, bad("a field name is not a token right before a colon")
	}
	name, value = line[:i], bytes.Trim(line[i+1:], " \t")
	if !all(value, isValue) {
		return nil, nil, bad("the value of field %s has a control byte", name)
	}
	return name, value, nil
}

// take handles a field that is about the message's framing or about this
// hop. It says whether the field goes on to the other side.
func (f *framing) take(id NameID, name, value []byte) (keep bool, err error) {
	switch id {
	case 0:
		return !lookalike(name) && !(f.request && (reserved(name) || forwarded(name, 0))), nil
	case ContentLength:
		return false, f.contentLength(value)
	case TransferEncoding:
		if f.te || !bytes.EqualFold(value, []byte("chunked")) {
			return false, bad("a Transfer-Encoding other than one chunked")
		}
		f.te = true
		return false, nil
	case Host:
		f.host = value
		f.hosts++
		return !f.request, nil
	case Connection:
		return false, f.connection(value)
	case Expect:
		if f.request {
			f.expect = bytes.EqualFold(value, []byte("100-continue"))
			f.expectOther = f.expectOther || !f.expect
		}
		return false, nil
	case Upgrade:
		f.webSocket = f.webSocket || bytes.EqualFold(value, []byte("websocket"))
		f.protocols = value
		f.upgrades++
		return false, nil
	case KeepAlive, ProxyAuthenticate, ProxyAuthorize, ProxyAuthInfo, ProxyConnection, TE, Trailer:
		return false, nil
	}
	if f.request && (reserved(name) || forwarded(name, id)) {
		return false, nil
	}
	return true, nil
}

// contentLength reads one number of digits only. A second one is refused
// even if it says the same, also when it comes as a list.
func (f *framing) contentLength(v []byte) error {
	if f.hasLength {
		return bad("more than one Content-Length")
	}
	if len(v) == 0 || len(v) > 18 {
		return bad("Content-Length is not a number of at most 18 digits")
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return bad("Content-Length is not a number of at most 18 digits")
		}
		f.length = f.length*10 + int64(c-'0')
	}
	f.hasLength = true
	return nil
}

func (f *framing) connection(v []byte) error {
	for len(v) > 0 {
		var opt []byte
		if i := bytes.IndexByte(v, ','); i >= 0 {
			opt, v = v[:i], v[i+1:]
		} else {
			opt, v = v, nil
		}
		opt = bytes.Trim(opt, " \t")
		switch {
		case len(opt) == 0:
		case !all(opt, isToken):
			return bad("Connection is not a list of tokens")
		case bytes.EqualFold(opt, []byte("close")):
			f.close = true
		case bytes.EqualFold(opt, []byte("keep-alive")):
			f.keepAlive = true
		default:
			f.nominated = append(f.nominated, opt)
		}
	}
	return nil
}

func (f *framing) nominates(name string) bool {
	for _, n := range f.nominated {
		if bytes.EqualFold(n, []byte(name)) {
			return true
		}
	}
	return false
}

func (f *framing) dropNominated(fs []Field) []Field {
	kept := fs[:0]
	for _, x := range fs {
		drop := false
		for _, n := range f.nominated {
			drop = drop || bytes.EqualFold(n, x.Name)
		}
		if !drop {
			kept = append(kept, x)
		}
	}
	return kept
}
