package gateway

import (
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/opencmg/cmg/h1"
)

// maxBlock bounds a head as it is packed; unpacked it is h1.MaxHead.
const maxBlock = 2 * h1.MaxHead

// An h2Head is what a connection's reader knows of the head it reads.
type h2Head struct {
	frame h2Frame
	open  bool // more of it comes
	id    uint32
	end   bool
	block int // bytes so far
	owner *h2Stream
	trail bool  // it stands behind a body
	fault error // of the stream

	size      int
	fields    bool // the request's line is over
	method    []byte
	scheme    bool
	path      []byte
	authority []byte
	length    int64 // -1: not told
	cookie    []byte
}

// takeHead reads a head's frame. The table that heads share goes on whatever
// becomes of this one, so it is unpacked in any case.
func (c *h2Conn) takeHead(f *h2Frame) (*h2Stream, error) {
	h, p := &c.head, f.payload
	if f.kind == h2Headers {
		var err error
		if p, err = f.unpad(); err != nil {
			return nil, err
		}
		if f.id == 0 || f.id%2 == 0 {
			return nil, h2Bad(h2Protocol, "a stream with a number that a client may not give")
		}
		*h = h2Head{frame: *f, id: f.id, end: f.has(h2EndStream), length: -1}
		if f.has(h2WithPrio) {
			if len(p) < 5 {
				return nil, h2Bad(h2FrameSize, "a head without its priority")
			}
			if dependsOn(p) == f.id {
				h.fault = h2BadStream(f.id, h2Protocol, "a stream that waits for itself")
			}
			p = p[5:]
		}
		if err := c.own(h); err != nil {
			return nil, err
		}
	} else if len(p) == 0 {
		if err := c.foul(); err != nil {
			return nil, err
		}
	}
	if h.block += len(p); h.block > maxBlock {
		return nil, h2Bad(h2Calm, "a head is too large")
	}
	if _, err := c.dec.Write(p); err != nil {
		return nil, h2Bad(h2Compression, "a head cannot be unpacked")
	}
	if h.open = !f.has(h2EndHeaders); h.open {
		if f.kind == h2Headers {
			c.headBy = time.Now().Add(c.g.limits.head)
		}
		return nil, nil
	}
	if c.dec.Close() != nil {
		return nil, h2Bad(h2Compression, "a head is cut short")
	}
	return c.finishHead(h)
}

// own finds whose head it is.
func (c *h2Conn) own(h *h2Head) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[h.id]
	switch {
	case c.wasReset(h.id): // the client did not know
	case st != nil && st.over != nil:
		return h2Bad(h2StreamClosed, "a head on a stream that was reset")
	case st != nil && st.recvEnd:
		h.fault = h2BadStream(h.id, h2StreamClosed, "a head on a stream that has ended")
	case st != nil && !h.end:
		h.fault = h2BadStream(h.id, h2Protocol, "a second head")
	case st != nil:
		h.owner, h.trail = st, true
	case h.id <= c.lastID:
		return h2Bad(h2StreamClosed, "a head on a stream that has ended")
	default:
		c.lastID = h.id
		switch {
		case c.going == h2LastOne || c.err != nil:
		case len(c.streams)-c.done >= h2Streams || len(c.streams) >= 2*h2Streams:
			h.fault = h2BadStream(h.id, h2Refused, "too many streams")
		default:
			h.owner = c.newStream(h.id)
		}
	}
	return nil
}

// finishHead gives a stream whose request is to be answered.
func (c *h2Conn) finishHead(h *h2Head) (*h2Stream, error) {
	st := h.owner
	h.owner = nil
	switch {
	case h.fault != nil:
		return nil, h.fault
	case st == nil:
		return nil, nil
	case h.trail:
		return nil, c.endBody(st)
	}
	if !h.fields && st.bad == nil {
		st.bad = h.begin(st)
	}
	if h.fault != nil {
		return nil, h.fault
	}
	if h.length > 0 && h.end {
		return nil, h2BadStream(h.id, h2Protocol, "a body is missing")
	}
	if h.cookie != nil && st.bad == nil {
		st.bad = st.req.AddPeer([]byte("cookie"), h.cookie)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	st.recvEnd, st.declared = h.end, h.length
	c.streams[h.id] = st
	return st, nil
}

var errHeadTooLong = &h1.Error{Status: 431, Why: "the head is longer than 64 KiB"}

// add takes one field of a head: the unpacker calls it.
func (h *h2Head) add(f hpack.HeaderField) {
	st := h.owner
	if st == nil || h.fault != nil {
		return
	}
	pseudo := len(f.Name) > 0 && f.Name[0] == ':'
	for i := range len(f.Name) {
		if c := f.Name[i]; c >= 'A' && c <= 'Z' {
			h.malformed("a field name with large letters")
			return
		}
	}
	switch {
	case pseudo && (h.trail || h.fields):
		h.malformed("a pseudo-header behind a field")
		return
	case h.trail: // dropped
		return
	}
	if h.size += len(f.Name) + len(f.Value) + 4; h.size > h1.MaxHead {
		st.bad = errHeadTooLong
		return // nothing more is kept: one byte can stand for a field of the table's size
	}
	if pseudo {
		h.addPseudo(st, f.Name, f.Value)
		return
	}
	if !h.fields {
		h.fields = true
		if f.Name == "host" && h.authority == nil {
			h.authority = st.copy(f.Value)
		}
		if err := h.begin(st); st.bad == nil {
			st.bad = err
		}
	}
	h.addField(st, f.Name, f.Value)
}

func (h *h2Head) addField(st *h2Stream, name, value string) {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		h.malformed("a field of HTTP/1.1's connections")
		return
	case "te":
		if value != "trailers" {
			h.malformed("TE other than trailers")
		}
		return
	case "content-length":
		n, err := strconv.ParseUint(value, 10, 62)
		if err != nil || h.length >= 0 && h.length != int64(n) {
			h.malformed("more than one Content-Length, or one that is no number")
			return
		}
		h.length = int64(n)
		if !h.end {
			st.req.Length = h.length
		}
		return
	case "expect":
		st.expect = value == "100-continue"
		return
	case "cookie": // in crumbs (section 8.2.3)
		if h.cookie != nil {
			h.cookie = append(h.cookie, "; "...)
		}
		if h.cookie = append(h.cookie, value...); h.cookie == nil {
			h.cookie = []byte{}
		}
		return
	}
	if st.bad == nil {
		st.bad = st.req.AddPeer(st.copy(name), st.copy(value))
	}
}

func (h *h2Head) addPseudo(st *h2Stream, name, value string) {
	var into *[]byte
	switch name {
	case ":method":
		into = &h.method
	case ":path":
		into = &h.path
	case ":authority":
		into = &h.authority
	case ":scheme":
		if h.scheme {
			h.malformed("a pseudo-header twice")
		}
		h.scheme = true
		return
	default:
		h.malformed("a pseudo-header that is not known")
		return
	}
	if *into != nil {
		h.malformed("a pseudo-header twice")
		return
	}
	*into = st.copy(value)
}

// begin makes the request's line of the pseudo-headers.
func (h *h2Head) begin(st *h2Stream) error {
	if string(h.method) != "CONNECT" && (h.method == nil || !h.scheme || len(h.path) == 0) {
		h.malformed("a pseudo-header is missing")
		return nil
	}
	length := int64(h1.Chunked)
	if h.end {
		length = 0
	}
	path := h.path
	if path == nil {
		path = h.authority
	}
	return st.req.BeginViews(h.method, h.authority, path, length)
}

func (h *h2Head) malformed(why string) {
	if h.fault == nil {
		h.fault = h2BadStream(h.id, h2Protocol, why)
	}
}
