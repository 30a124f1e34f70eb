// Package blob keeps bytes under names in a store and hands out signed URLs
// that let anyone who holds one read exactly one name until a stated time.
//
// # Signed URLs, scheme 1
//
// The disk store, and any other web server that wants to serve the same
// folder, understands
//
//	<base>/<name>?e=<expiry>&k=<key id>&s=<signature>
//
// with exactly these three parameters, each once, in any order:
//
//   - e: the moment from which the URL is refused, in whole seconds since
//     1970-01-01 UTC, decimal without sign or leading zeros;
//   - k: which key signed: the first 4 bytes of SHA-256 over the text
//     "cmg-store-1 key id", a line feed and the key's bytes, in lower-case hex;
//   - s: HMAC-SHA256 with the store's key, base64url without padding (43
//     characters).
//
// The signature covers five lines joined by a line feed, without one at the
// end: the scheme "cmg-store-1", the method class "read" (GET and HEAD; no
// other class exists), the name, e, and k. The base is not covered, so that a
// store can stand behind a different host name, a path prefix or a CDN
// without being signed for anew. Signatures are compared in constant time and
// looked at before the expiry, so that nobody learns from a guess.
//
// # Refusals
//
// A store answers no with a code in the header CMG-Refusal and with
// "code: why" as text/plain:
//
//	400 CMGStore_Invalid_Name           the path names nothing a store could hold
//	403 CMGStore_Signature_Required     no signature was shown
//	403 CMGStore_Unknown_Key            signed with a key that this store does not have
//	403 CMGStore_Invalid_Signature      not for this name, method class or expiry
//	403 CMGStore_Expired                was right, and is over
//	404 CMGStore_Not_Found              the signature is right, the bytes are not there
//	405 CMGStore_Method_Not_Allowed     only GET and HEAD
//	416 CMGStore_Range_Not_Satisfiable  the range begins past the end
//	500 CMGStore_Failed                 the disk; the reason is in the store's log
package blob

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// Info is what a store knows of a name.
type Info struct {
	Size     int64     // bytes
	ETag     string    // strong validator in its quotes, as HTTP carries it; another value whenever the bytes were put anew
	Modified time.Time // when the bytes were put
}

// A Store keeps bytes under names. All methods may be called at once from
// many goroutines and from several processes on one store. A name that
// CheckName refuses is ErrInvalid everywhere. The test in package blobtest
// says the same in code, and every Store runs it.
type Store interface {
	// Put keeps exactly size bytes of r under name, whole or not at all:
	// readers see what was there before until Put has made the new bytes
	// durable. When r gives fewer or more bytes than size the error is
	// ErrInvalid; an error of r is returned, wrapped. In both cases, and when
	// ctx ends, the name is left as it was. Who puts both "a" and "a/b" gets
	// ErrConflict from stores that have folders.
	Put(ctx context.Context, name string, size int64, r io.Reader) error

	// Open reads length bytes from offset, or to the end where length is -1
	// or reaches past it. The bytes are of one Put even when another follows
	// while reading. ErrNotFound when there is no such name, ErrInvalid when
	// offset lies past the end (at the end is right, and reads nothing). The
	// caller closes the reader. Ending ctx may end the reading.
	Open(ctx context.Context, name string, offset, length int64) (io.ReadCloser, Info, error)

	// Stat is Open without reading.
	Stat(ctx context.Context, name string) (Info, error)

	// Delete removes name. Removing what is not there is no error.
	Delete(ctx context.Context, name string) error

	// List calls f for every name that begins with prefix, in no promised
	// order, and stops at the first error of f and returns it. The prefix is
	// text, it need not end at a slash; empty is all. What is put or deleted
	// meanwhile may be missing or listed.
	List(ctx context.Context, prefix string, f func(name string, i Info) error) error

	// SignedURL gives a URL by which anyone may GET and HEAD name, also by
	// range, until until (cut to whole seconds). It does not look whether the
	// name is there. A store without an address or a key returns ErrUnavailable.
	SignedURL(ctx context.Context, name string, until time.Time) (string, error)
}

// MaxName is the longest name in bytes.
const MaxName = 1024

// CheckName says why name may not stand in a store. A name is up to 1,024
// bytes of segments joined by single slashes; a segment is up to 255 of the
// characters A-Z a-z 0-9 . _ - and neither begins nor ends with a dot. So a
// name is the same in a URL, in a file system and in an object store, and
// ".." cannot be written.
func CheckName(name string) error {
	bad := func(why string) error {
		return fmt.Errorf("blob name %.200q: %s: %w", name, why, cmg.ErrInvalid)
	}
	if name == "" || len(name) > MaxName {
		return bad("empty or over 1,024 bytes")
	}
	for rest := name; ; {
		seg, more, found := strings.Cut(rest, "/")
		switch {
		case seg == "":
			return bad("empty segment")
		case len(seg) > 255:
			return bad("segment over 255 bytes")
		case seg[0] == '.' || seg[len(seg)-1] == '.':
			return bad("segment begins or ends with a dot")
		}
		for i := range len(seg) {
			if !plain(seg[i]) {
				return bad("character outside A-Z a-z 0-9 . _ - /")
			}
		}
		if !found {
			return nil
		}
		rest = more
	}
}

func plain(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}
