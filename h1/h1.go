// Package h1 holds HTTP/1.1 messages as they stand on the wire: read
// strictly, bounded, without maps, and written again from their parts.
//
// A [Reader] reads from a connection: [Reader.Request] and [Reader.Response]
// give heads whose slices point into the reader's buffer, and
// [Reader.Body] reads what follows. [Request.AppendCompact] and
// [Request.ParseCompact] carry a validated head through a channel in a form
// that is not HTTP text, so that nothing can be smuggled through it (see
// compact.go); [AppendRequest] and [AppendResponse] write the text for the
// other side.
//
// Strict means: what RFC 9112 lets a recipient repair, this package refuses,
// because two recipients that repair differently are how requests get
// smuggled. Everything it accepts, Go's net/http accepts with the same meaning.
package h1

import (
	"fmt"
	"slices"

	"github.com/opencmg/cmg"
)

// Limits of one head. They are fixed: a head beyond them has no use in the
// protocols that pass here.
const (
	MaxHead   = 64 << 10 // bytes of request or status line and all fields
	MaxTarget = 16 << 10 // bytes of a request target
	MaxFields = 128
	maxMethod = 32
	maxName   = 256
	maxChunk  = 256     // bytes of one chunk-size line
	maxExtend = 8 << 10 // bytes of all chunk extensions of a body
	maxTrail  = 8 << 10 // bytes of a trailer section, which is dropped
)

// An Error says why a message was refused. It is cmg.ErrInvalid, and
// cmg.ErrTooLarge where Status says so.
type Error struct {
	Status int    // what a server answers: 400, 413, 414, 417, 431, 501 or 505
	Why    string // one short sentence, safe to show
}

func (e *Error) Error() string { return e.Why }

// Is tells the error's kind.
func (e *Error) Is(kind error) bool {
	if kind == cmg.ErrTooLarge {
		return e.Status == 413 || e.Status == 414 || e.Status == 431
	}
	return kind == cmg.ErrInvalid
}

func bad(format string, args ...any) error {
	return &Error{Status: 400, Why: fmt.Sprintf(format, args...)}
}

// The lengths a body can have besides a number of bytes.
const (
	Chunked    = -1 // length not known in advance; the message says where it ends
	UntilClose = -2 // a response that ends with its connection
)

// A Field is one header field. Name keeps the sender's letter case.
type Field struct {
	Name, Value []byte
	ID          NameID // what the name is known as; 0 for all others
	exact       bool   // Name is spelt as the table spells it
}

// A Request is the head of a request. Its slices are views into the buffer
// it was read from.
type Request struct {
	Method []byte
	Target []byte // path and query as they are to be sent on: normalised once
	Path   []byte // the path within Target
	Host   []byte
	Fields []Field // end-to-end fields in order: framing and hop-by-hop are taken out
	Length int64   // of the body: 0 none, Chunked, or bytes
	HTTP10 bool    // the sender speaks HTTP/1.0
	Close  bool    // the sender wants the connection closed after the answer
	Expect bool    // the sender waits for 100 Continue before it sends the body

	WebSocket bool   // the sender asks to go on as a WebSocket (RFC 6455); HTTP/1.1 only
	Upgrade   []byte // the protocols the sender offers to go on with, of a request without a body; nil: none
}

// A Response is the head of a response.
type Response struct {
	Status int
	Reason []byte
	Fields []Field
	Length int64 // of the body: 0 none, Chunked, UntilClose, or bytes
	Close  bool  // the sender will close the connection after it

	Upgrade []byte // the protocol that follows a 101
}

// Reset empties r and keeps its memory.
func (r *Request) Reset() { *r = Request{Fields: r.Fields[:0]} }

// Reset empties r and keeps its memory.
func (r *Response) Reset() { *r = Response{Fields: r.Fields[:0]} }

// Add appends a field. The name has to be a token and the value free of
// control bytes: Add is for fields made here, not for those of a peer.
func (r *Request) Add(name string, value []byte) { r.Fields = append(r.Fields, newField(name, value)) }

// Add appends a field, as Request.Add does.
func (r *Response) Add(name string, value []byte) { r.Fields = append(r.Fields, newField(name, value)) }

// AddKnown appends a field that has an id, without making anything.
func (r *Request) AddKnown(id NameID, value []byte) {
	r.Fields = append(r.Fields, Field{Name: nameBytes[id], Value: value, ID: id, exact: true})
}

// AddKnown appends a field that has an id, without making anything.
func (r *Response) AddKnown(id NameID, value []byte) {
	r.Fields = append(r.Fields, Field{Name: nameBytes[id], Value: value, ID: id, exact: true})
}

func newField(name string, value []byte) Field {
	id, exact := lookup([]byte(name))
	return Field{Name: []byte(name), Value: value, ID: id, exact: exact}
}

// Drop takes out every field known as id.
func (r *Request) Drop(id NameID) {
	r.Fields = slices.DeleteFunc(r.Fields, func(f Field) bool { return f.ID == id })
}

// Get gives the value of the first field known as id, or nil.
func (r *Request) Get(id NameID) []byte { return get(r.Fields, id) }

// Count says how many fields are known as id.
func (r *Request) Count(id NameID) (n int) {
	for i := range r.Fields {
		if r.Fields[i].ID == id {
			n++
		}
	}
	return n
}

// Drop takes the fields known as id out.
func (r *Response) Drop(id NameID) {
	if r.Get(id) != nil {
		r.Fields = slices.DeleteFunc(r.Fields, func(f Field) bool { return f.ID == id })
	}
}

// Get gives the value of the first field known as id, or nil.
func (r *Response) Get(id NameID) []byte { return get(r.Fields, id) }

func get(fs []Field, id NameID) []byte {
	for i := range fs {
		if fs[i].ID == id {
			return fs[i].Value
		}
	}
	return nil
}

// NoBody says that a response with this status to this method has no body,
// whatever its fields say (RFC 9112, section 6.3).
func NoBody(method []byte, status int) bool {
	return string(method) == "HEAD" || status == 204 || status == 304 || status < 200
}
