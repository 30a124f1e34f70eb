package h1

import "encoding/binary"

// The compact form of a head, as it crosses a channel. Numbers are unsigned
// varints (encoding/binary), strings a number of bytes and the bytes.
//
//	request:  flags, upgrade only with flag 2, method, target, host, length, count, count × field
//	response: status, upgrade only with 101, reason, length, count, count × field
//
//	flags   1: HTTP/1.0; 2: the client offers to go on with another protocol
//	upgrade the protocols offered, or the one chosen, as in the field Upgrade
//	length  0 no body, 1 chunked, 2 until close, n+3: n bytes
//	field   one byte NameID, a string name only if that is 0, a string value
//
// A head read from it has passed the same character checks as one read from
// text: the end that writes HTTP text from it does not have to trust the
// other.

const (
	compactHTTP10  = 1
	compactUpgrade = 2
	compactLength  = 3 // added to a known length
)

// AppendCompact appends the compact form of r to b.
func (r *Request) AppendCompact(b []byte) []byte {
	var flags byte
	if r.HTTP10 {
		flags |= compactHTTP10
	}
	if len(r.Upgrade) > 0 {
		b = append(b, flags|compactUpgrade)
		b = appendString(b, r.Upgrade)
	} else {
		b = append(b, flags)
	}
	b = appendString(b, r.Method)
	b = appendString(b, r.Target)
	b = appendString(b, r.Host)
	return appendRest(b, r.Length, r.Fields)
}

// AppendCompact appends the compact form of r to b.
func (r *Response) AppendCompact(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(r.Status))
	if r.Status == 101 {
		b = appendString(b, r.Upgrade)
	}
	b = appendString(b, r.Reason)
	return appendRest(b, r.Length, r.Fields)
}

func appendString(b, s []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendRest(b []byte, length int64, fs []Field) []byte {
	switch length {
	case Chunked:
		b = append(b, 1)
	case UntilClose:
		b = append(b, 2)
	case 0:
		b = append(b, 0)
	default:
		b = binary.AppendUvarint(b, uint64(length)+compactLength)
	}
	b = binary.AppendUvarint(b, uint64(len(fs)))
	for i := range fs {
		f := &fs[i]
		if f.exact {
			b = append(b, byte(f.ID))
		} else {
			b = append(b, 0)
			b = appendString(b, f.Name)
		}
		b = appendString(b, f.Value)
	}
	return b
}

// unpack reads a compact head; the first fault sticks.
type unpack struct {
	b   []byte
	err error
}

func (u *unpack) fail(why string) {
	if u.err == nil {
		u.err = bad("compact head: %s", why)
	}
	u.b = nil
}

func (u *unpack) number(limit uint64) uint64 {
	v, n := binary.Uvarint(u.b)
	if n <= 0 || v > limit {
		u.fail("a number is missing or too large")
		return 0
	}
	u.b = u.b[n:]
	return v
}

func (u *unpack) bytes(mask byte) []byte {
	n := u.number(MaxHead)
	if n > uint64(len(u.b)) {
		u.fail("a string is cut short")
		return nil
	}
	s := u.b[:n:n]
	u.b = u.b[n:]
	if !all(s, mask) {
		u.fail("a string has a character that may not stand there")
	}
	return s
}

// upgrade reads protocols that may pass, at least one.
func (u *unpack) upgrade() []byte {
	p := u.bytes(isValue)
	if kept, err := offered(p); err != nil || len(kept) == 0 || len(kept) != len(p) {
		u.fail("a protocol that may not follow")
	}
	return p
}

func (u *unpack) length() int64 {
	switch n := u.number(1<<62 + compactLength); n {
	case 0:
		return 0
	case 1:
		return Chunked
	case 2:
		return UntilClose
	default:
		return int64(n - compactLength)
	}
}

func (u *unpack) fields(fs []Field) []Field {
	for n := u.number(2 * MaxFields); n > 0 && u.err == nil; n-- {
		var f Field
		if len(u.b) == 0 {
			u.fail("a field is missing")
			return fs
		}
		f.ID, u.b = NameID(u.b[0]), u.b[1:]
		switch {
		case f.ID == 0:
			f.Name = u.bytes(isToken)
			if len(f.Name) == 0 {
				u.fail("a field has no name")
				return fs
			}
			f.ID, f.exact = lookup(f.Name)
		case int(f.ID) < len(names):
			f.Name, f.exact = nameBytes[f.ID], true
		default:
			u.fail("a field name is not known")
		}
		f.Value = u.bytes(isValue)
		if hop(f.ID) {
			u.fail("a field of one hop only")
		}
		fs = append(fs, f)
	}
	if len(u.b) > 0 {
		u.fail("bytes at the end")
	}
	return fs
}

var nameBytes = func() (t [len(names)][]byte) {
	for i, n := range names {
		t[i] = []byte(n)
	}
	return t
}()

// hop says that a field frames a message or belongs to one hop: it never
// stands in a compact head.
func hop(id NameID) bool {
	switch id {
	case Connection, ContentLength, Expect, Host, KeepAlive, ProxyAuthenticate, ProxyAuthorize, ProxyAuthInfo, ProxyConnection, TE, Trailer, TransferEncoding, Upgrade:
		return true
	}
	return false
}

// ParseCompact reads the compact form of a request; r's slices point into b.
func (r *Request) ParseCompact(b []byte) error {
	r.Reset()
	u := unpack{b: b}
	flags := u.number(compactHTTP10 | compactUpgrade)
	r.HTTP10 = flags&compactHTTP10 != 0
	if flags&compactUpgrade != 0 {
		r.Upgrade = u.upgrade()
	}
	r.Method = u.bytes(isToken)
	r.Target = u.bytes(isQuery)
	r.Host = u.bytes(isPath)
	r.Length = u.length()
	r.Fields = u.fields(r.Fields)
	if u.err == nil && (len(r.Method) == 0 || len(r.Target) == 0 || !goodHost(r.Host) || r.Length == UntilClose) {
		u.fail("method, target, host or length is not one of a request")
	}
	if len(r.Upgrade) > 0 && (r.Length != 0 || r.HTTP10) {
		u.fail("a request with a body, or of HTTP/1.0, offers another protocol")
	}
	r.Path = r.Target
	for i, c := range r.Target {
		if c == '?' {
			r.Path = r.Target[:i]
			break
		}
	}
	if u.err == nil && string(r.Target) != "*" {
		// The other end normalised it. One that did not could leave the folder
		// that a prefix stands for.
		if norm, err := NormalPath(r.Path); err != nil || len(norm) != len(r.Path) {
			u.fail("the path is not in normal form")
		}
	}
	return u.err
}

// ParseCompact reads the compact form of a response; r's slices point into b.
func (r *Response) ParseCompact(b []byte) error {
	r.Reset()
	u := unpack{b: b}
	r.Status = int(u.number(599))
	if r.Status == 101 {
		r.Upgrade = u.upgrade()
	}
	r.Reason = u.bytes(isValue)
	r.Length = u.length()
	r.Fields = u.fields(r.Fields)
	if u.err == nil && r.Status < 100 {
		u.fail("the status is below 100")
	}
	if r.Status == 101 && r.Length != 0 {
		u.fail("a 101 with a body")
	}
	return u.err
}
