package h1

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// A Reader reads messages from a connection. While nothing is buffered it
// holds no memory: a connection that waits costs no buffer. Not for
// concurrent use.
type Reader struct {
	src  io.Reader
	buf  *[]byte // pooled; nil while empty and idle
	r, w int
	one  [1]byte

	// Slow, if set, is called before a second read for one head: nearly
	// every head comes in one, and to set a deadline for each costs more
	// than the read.
	Slow func()
}

// Buffers come in two sizes: most heads fit the first.
const (
	smallBuf = 4 << 10
	largeBuf = MaxHead + smallBuf
)

var small = sync.Pool{New: func() any { b := make([]byte, smallBuf); return &b }}
var large = sync.Pool{New: func() any { b := make([]byte, largeBuf); return &b }}

// NewReader reads from src.
func NewReader(src io.Reader) *Reader { return &Reader{src: src} }

// Reset makes rd read from src and drops what was buffered.
func (rd *Reader) Reset(src io.Reader) {
	rd.r, rd.w = 0, 0
	rd.Release()
	rd.src = src
}

// Buffered is how many bytes were read and not yet taken.
func (rd *Reader) Buffered() int { return rd.w - rd.r }

// Release gives the buffer back if nothing is in it. Views into the last
// head end with it.
func (rd *Reader) Release() {
	if rd.buf == nil || rd.r < rd.w {
		return
	}
	put(rd.buf)
	rd.buf, rd.r, rd.w = nil, 0, 0
}

func put(b *[]byte) {
	if len(*b) == smallBuf {
		small.Put(b)
	} else {
		large.Put(b)
	}
}

// Wait blocks until at least one byte is there. It holds no buffer while it
// blocks: the first byte is read alone.
func (rd *Reader) Wait() error {
	if rd.r < rd.w {
		return nil
	}
	rd.Release()
	n, err := rd.src.Read(rd.one[:])
	if n == 0 {
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	rd.buf = small.Get().(*[]byte)
	(*rd.buf)[0] = rd.one[0]
	rd.r, rd.w = 0, 1
	return nil
}

// errHeadSize is also what ends a head that never ends.
var errHeadSize = &Error{Status: 431, Why: "the head is longer than 64 KiB"}

// head finds the end of the head that begins at rd.r and gives it with its
// empty line. It refuses a bare LF right where it stands, so that it need
// not wait for an end that a strict reader would never see.
func (rd *Reader) head() ([]byte, error) {
	for scanned, reads := 0, 0; ; reads++ {
		b := rd.bytes()
		for {
			i := bytes.IndexByte(b[scanned:], '\n')
			if i < 0 {
				scanned = len(b)
				break
			}
			i += scanned
			if i == 0 || b[i-1] != '\r' {
				return nil, bad("a line does not end in CR LF")
			}
			if i+1 > MaxHead {
				return nil, errHeadSize
			}
			if i == 1 || b[i-2] == '\n' {
				rd.r += i + 1
				return b[:i+1], nil
			}
			scanned = i + 1
		}
		if len(b) > MaxHead {
			return nil, errHeadSize
		}
		if reads == 1 && rd.Slow != nil {
			rd.Slow()
		}
		if err := rd.fill(); err != nil {
			if err == io.EOF && rd.w > rd.r {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

func (rd *Reader) bytes() []byte {
	if rd.buf == nil {
		return nil
	}
	return (*rd.buf)[rd.r:rd.w]
}

// fill reads more behind what is there; the buffer grows once, to the large
// size. Views taken before are gone.
func (rd *Reader) fill() error {
	if rd.buf == nil {
		rd.buf = small.Get().(*[]byte)
	}
	if rd.w == len(*rd.buf) {
		n := rd.w - rd.r
		switch {
		case rd.r > 0:
			copy(*rd.buf, (*rd.buf)[rd.r:rd.w])
		case len(*rd.buf) == smallBuf:
			b := large.Get().(*[]byte)
			copy(*b, (*rd.buf)[:rd.w])
			put(rd.buf)
			rd.buf = b
		default:
			return errHeadSize
		}
		rd.r, rd.w = 0, n
	}
	n, err := rd.src.Read((*rd.buf)[rd.w:])
	rd.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// Request reads the next request head into r. Empty lines before it are
// passed over, at most two (RFC 9112, section 2.2). io.EOF means that the
// peer closed before a byte of it.
func (rd *Reader) Request(r *Request) error {
	for range 2 {
		if err := rd.Wait(); err != nil {
			return err
		}
		if rd.bytes()[0] != '\r' {
			break
		}
		for rd.Buffered() < 2 {
			if err := rd.fill(); err != nil {
				return err
			}
		}
		if rd.bytes()[1] != '\n' {
			return bad("a line does not end in CR LF")
		}
		rd.r += 2
	}
	h, err := rd.head()
	if err != nil {
		return err
	}
	return r.Parse(h)
}

// Response reads the next response head, to a request with the given method,
// into r. Interim responses (1xx) are passed over, at most eight.
func (rd *Reader) Response(r *Response, method []byte) error {
	return rd.ResponseTo(r, method, nil)
}

// ResponseTo is Response to a request that offered these protocols: 101 with
// one of them is a response as well, behind which that protocol begins.
func (rd *Reader) ResponseTo(r *Response, method, offered []byte) error {
	for range 8 {
		h, err := rd.head()
		if err != nil {
			return err
		}
		if err := r.Parse(h, method); err != nil {
			return err
		}
		if r.Status >= 200 {
			return nil
		}
		if r.Status == 101 {
			if Accepts(offered, r.Upgrade) {
				return nil
			}
			return bad("101 Switching Protocols, which was not asked for")
		}
	}
	return bad("more than eight interim responses")
}

// Read takes what is buffered, then reads from the connection.
func (rd *Reader) Read(p []byte) (int, error) {
	if rd.r < rd.w {
		n := copy(p, (*rd.buf)[rd.r:rd.w])
		rd.r += n
		return n, nil
	}
	return rd.src.Read(p)
}

// A Body reads the body that follows a head. Read gives io.EOF at its end;
// io.ErrUnexpectedEOF if the connection ends before.
type Body struct {
	rd    *Reader
	left  int64 // bytes left of the body or of the chunk; UntilClose
	ext   int   // bytes of chunk extensions so far
	chunk bool
	first bool
	done  bool
}

// Body begins to read a body of the given length.
func (rd *Reader) Body(length int64) Body {
	return Body{rd: rd, left: max(length, UntilClose), chunk: length == Chunked, first: true, done: length == 0}
}

// Done says that the whole body was read.
func (b *Body) Done() bool { return b.done }

func (b *Body) Read(p []byte) (int, error) {
	if b.done {
		return 0, io.EOF
	}
	if b.left == UntilClose {
		n, err := b.rd.Read(p)
		b.done = err == io.EOF
		return n, err
	}
	if b.chunk && (b.first || b.left == 0) {
		if err := b.nextChunk(); err != nil {
			return 0, err
		}
		if b.done {
			return 0, io.EOF
		}
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.rd.Read(p)
	b.left -= int64(n)
	if !b.chunk && b.left == 0 {
		b.done = true
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// nextChunk reads the end of the last chunk and the size of the next one; at
// the last one it reads and drops the trailer section.
func (b *Body) nextChunk() error {
	if !b.first {
		if line, err := b.rd.line(2); err != nil || len(line) != 0 {
			return orBad(err, "a chunk does not end where its size says")
		}
	}
	b.first = false
	line, err := b.rd.line(maxChunk)
	if err != nil {
		return err
	}
	size, ext := line, []byte(nil)
	if i := bytes.IndexByte(line, ';'); i >= 0 {
		size, ext = line[:i], line[i+1:]
	}
	if b.ext += len(ext); b.ext > maxExtend {
		return bad("the chunk extensions are longer than %d bytes", maxExtend)
	}
	if len(size) == 0 || len(size) > 15 || !all(ext, isValue) {
		return bad("a chunk size is not a hex number")
	}
	b.left = 0
	for _, c := range size {
		d := unhex(c)
		if d < 0 {
			return bad("a chunk size is not a hex number")
		}
		b.left = b.left<<4 | int64(d)
	}
	if b.left > 0 {
		return nil
	}
	for n := 0; n <= maxTrail; n += len(line) + 2 {
		if line, err = b.rd.line(maxTrail); err != nil {
			return err
		}
		if len(line) == 0 {
			b.done = true
			return nil
		}
		if _, _, err := cutField(line); err != nil {
			return err
		}
	}
	return &Error{Status: 431, Why: "the trailer section is longer than 8 KiB"}
}

func orBad(err error, why string) error {
	if err != nil {
		return err
	}
	return bad("%s", why)
}

// line reads one line of at most limit bytes with its CR LF and gives it
// without.
func (rd *Reader) line(limit int) ([]byte, error) {
	for {
		b := rd.bytes()
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			if i == 0 || b[i-1] != '\r' {
				return nil, bad("a line does not end in CR LF")
			}
			if i+1 > limit {
				return nil, bad("a line is longer than %d bytes", limit)
			}
			rd.r += i + 1
			return b[:i-1], nil
		}
		if len(b) >= limit {
			return nil, bad("a line is longer than %d bytes", limit)
		}
		if err := rd.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}
