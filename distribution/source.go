package distribution

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	"github.com/opencmg/cmg"
)

// A source reads a file of the store from wherever it is asked to. What is
// read from the first byte on is hashed.
type source struct {
	ctx   context.Context // of the request whose answer it is
	store Store
	name  string
	bytes []byte // instead of store and name
	size  int64
	want  cmg.Digest

	at   int64 // where the next Read is
	r    io.ReadCloser
	hash hash.Hash // of the first `at` bytes; nil: nobody can tell any more
	err  error     // what was wrong with the file
}

// Seek implements io.Seeker.
func (s *source) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.at
	case io.SeekEnd:
		offset += s.size
	}
	if offset < 0 || offset > s.size {
		return 0, fmt.Errorf("seek to %d of %d: %w", offset, s.size, cmg.ErrInvalid)
	}
	if offset != s.at {
		s.Close()
		s.at = offset
	}
	return offset, nil
}

// begin opens the store's file, if it is not open.
func (s *source) begin() (err error) {
	if s.r != nil {
		return nil
	}
	if s.hash = nil; s.at == 0 {
		s.hash = sha256.New()
	}
	if s.store == nil {
		s.r = io.NopCloser(bytes.NewReader(s.bytes[s.at:]))
		return nil
	}
	r, i, err := s.store.Open(s.ctx, s.name, s.at, -1)
	switch {
	case errors.Is(err, cmg.ErrNotFound):
		return unknown(err)
	case err != nil:
		return err
	case i.Size != s.size:
		r.Close()
		return fmt.Errorf("%s has %d bytes instead of %d", s.name, i.Size, s.size)
	}
	s.r = r
	return nil
}

// Read implements io.Reader. It withholds the last bytes of a file that is not
// what it should be.
func (s *source) Read(b []byte) (int, error) {
	if s.at == s.size {
		return 0, io.EOF
	}
	if err := s.begin(); err != nil {
		s.err = err
		return 0, err
	}
	n, err := s.r.Read(b)
	s.at += int64(n)
	if s.hash != nil {
		s.hash.Write(b[:n])
	}
	switch {
	case s.at > s.size || err == io.EOF && s.at < s.size:
		s.err = fmt.Errorf("%s has not %d bytes", s.name, s.size)
		return 0, s.err
	case s.at == s.size && s.hash != nil && cmg.Digest(s.hash.Sum(nil)) != s.want:
		s.err = fmt.Errorf("%s has another digest than %s", s.name, s.want)
		return 0, s.err
	case err == io.EOF:
		err = nil
	}
	return n, err
}

// Close gives back what was opened.
func (s *source) Close() {
	if s.r != nil {
		s.r.Close()
		s.r = nil
	}
}

// stall is how long a client may take nothing of an answer.
const stall = time.Minute

// A pacer gives every piece of an answer a deadline of its own: a server's
// WriteTimeout would bound the whole of a large file.
type pacer struct {
	http.ResponseWriter
	ctl   *http.ResponseController
	moved time.Time
}

func newPacer(w http.ResponseWriter) *pacer {
	return &pacer{ResponseWriter: w, ctl: http.NewResponseController(w)}
}

// Write implements io.Writer.
func (p *pacer) Write(b []byte) (int, error) {
	if now := time.Now(); now.Sub(p.moved) > stall/8 {
		p.moved = now
		p.ctl.SetWriteDeadline(now.Add(stall)) // not every writer can
	}
	return p.ResponseWriter.Write(b)
}
