package bits

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencmg/cmg"
)

// maxRecord bounds a session's record, in bytes.
const maxRecord = 64 << 10

// A record is what is kept of a session beside its bytes.
type record struct {
	ID       string    `json:"id"` // a GUID in upper case
	Owner    string    `json:"owner"`
	Name     string    `json:"name"`
	Created  time.Time `json:"created"`
	Touched  time.Time `json:"touched"`  // last progress
	Total    int64     `json:"total"`    // bytes of the file; 0: no fragment came yet
	Received int64     `json:"received"` // bytes from the start that are durable
	Hash     []byte    `json:"hash"`     // state of SHA-256 over them
	Closed   bool      `json:"closed,omitempty"`
}

// A session is an upload under way, or one that was. Who has taken its turn
// may use the rest; record's counts are read by others under the server's
// lock, see Server.settle.
type session struct {
	record
	turn  chan struct{} // holds one value while nobody has the session
	hash  hash.Hash
	gone  bool        // cancelled or expired while somebody waited for his turn
	saved os.FileInfo // of the record as it was written or read here last; nil: never

	mu        sync.Mutex
	interrupt func() // ends the request that has the turn; nil: none
}

func newSession(r record) *session {
	s := &session{record: r, turn: make(chan struct{}, 1), hash: sha256.New()}
	s.turn <- struct{}{}
	return s
}

// take waits for the session's turn. A client has one request under way: a
// second one means that the first is dead, though nobody noticed.
func (s *session) take(ctx context.Context, interrupt func()) error {
	s.mu.Lock()
	if s.interrupt != nil {
		s.interrupt()
	}
	s.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.turn:
	}
	if s.gone {
		s.turn <- struct{}{}
		return sessionUnknown(nil)
	}
	s.mu.Lock()
	s.interrupt = interrupt
	s.mu.Unlock()
	return nil
}

// tryTake is take for whoever does not wait.
func (s *session) tryTake() bool {
	select {
	case <-s.turn:
		return true
	default:
		return false
	}
}

func (s *session) give() {
	s.mu.Lock()
	s.interrupt = nil
	s.mu.Unlock()
	s.turn <- struct{}{}
}

// wire is the id as it goes to the client.
func (r *record) wire() string { return "{" + r.ID + "}" }

// key makes of a session id, as a client sends it, the one in the record.
func key(id string) string {
	return strings.ToUpper(strings.TrimSuffix(strings.TrimPrefix(id, "{"), "}"))
}

func (s *Server) dataFile(id string) string   { return filepath.Join(s.cfg.Dir, id+".data") }
func (s *Server) recordFile(id string) string { return filepath.Join(s.cfg.Dir, id+".json") }

// save makes the record durable. What it says was received has to be durable
// before.
func (s *Server) save(u *session) error {
	var err error
	if u.Hash, err = u.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
		return fmt.Errorf("keep the state of a hash: %w", err)
	}
	b, err := json.Marshal(u.record)
	if err != nil {
		return fmt.Errorf("write record of upload %s: %w", u.ID, err)
	}
	name, made := s.recordFile(u.ID), s.recordFile(u.ID)+s.suffix
	if err := writeDurable(made, b); err != nil {
		return fmt.Errorf("write record of upload %s: %w", u.ID, diskError(err))
	}
	if err := os.Rename(made, name); err != nil {
		return fmt.Errorf("write record of upload %s: %w", u.ID, diskError(err))
	}
	u.saved, err = os.Stat(name)
	return diskError(err)
}

// refresh takes up what another process has written: one that is about to be
// replaced serves its last requests beside its successor. The caller has the
// session's turn.
func (s *Server) refresh(u *session) error {
	i, err := os.Stat(s.recordFile(u.ID))
	if err == nil && u.saved != nil && os.SameFile(i, u.saved) && i.ModTime().Equal(u.saved.ModTime()) {
		return nil
	}
	var is *session
	if err == nil {
		is, err = s.read(u.ID)
	}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, cmg.ErrInvalid) {
		s.forget(u)
		u.gone = true
		return sessionUnknown(err)
	} else if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(u, -1, -u.Total)
	u.record, u.hash, u.saved = is.record, is.hash, is.saved
	s.count(u, 1, u.Total)
	return nil
}

// adopt finds a session that another process has created since this one
// began; nil where there is none.
func (s *Server) adopt(id string) *session {
	if !sessionID.MatchString(id) {
		return nil
	}
	u, err := s.read(id)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := s.sessions[id]; was != nil {
		return was
	}
	s.sessions[id] = u
	s.count(u, 1, u.Total)
	return u
}

var sessionID = regexp.MustCompile(`^[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}$`)

func writeDurable(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// drop takes the session's files away. The caller has its turn.
func (s *Server) drop(u *session) error {
	u.gone = true
	var errs []error
	for _, f := range []string{s.recordFile(u.ID), s.dataFile(u.ID)} { // without its record it is no session
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// load finds the sessions of an earlier process, and takes away what belongs
// to none.
func (s *Server) load() error {
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	var closed []*session
	for _, e := range entries {
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord {
			continue
		}
		u, err := s.read(id)
		if errors.Is(err, os.ErrNotExist) {
			continue // ended meanwhile, or its bytes are not there
		} else if err != nil {
			s.cfg.Log.Warn("an upload's record cannot be used; it has to begin again", "upload", id, "err", err)
			continue
		}
		s.sessions[u.ID] = u
		s.count(u, 1, u.Total)
		if u.Closed {
			closed = append(closed, u)
		}
	}
	slices.SortFunc(closed, func(a, b *session) int { return a.Touched.Compare(b.Touched) })
	for _, u := range closed {
		s.closed[u.Owner] = append(s.closed[u.Owner], u.ID)
	}
	for _, e := range entries {
		id, kind, _ := strings.Cut(e.Name(), ".")
		ours := sessionID.MatchString(id) && (kind == "json" || kind == "data" || strings.HasPrefix(kind, "json."))
		if !ours || s.sessions[id] != nil && (kind == "json" || kind == "data") {
			continue
		}
		// What is young may be of a process that is about to be replaced.
		if i, err := e.Info(); err != nil || time.Since(i.ModTime()) < leftover {
			continue
		}
		if err := os.Remove(filepath.Join(s.cfg.Dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// leftover is how old a file without a session has to be to be one that
// nobody is about to use.
const leftover = time.Hour

// read takes up one session.
func (s *Server) read(id string) (*session, error) {
	i, err := os.Stat(s.recordFile(id))
	if err != nil {
		return nil, err
	}
	if i.Size() > maxRecord {
		return nil, fmt.Errorf("record of %d bytes: %w", i.Size(), cmg.ErrTooLarge)
	}
	b, err := os.ReadFile(s.recordFile(id))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", err, cmg.ErrInvalid)
	}
	if r.ID != id || r.Received < 0 || r.Received > r.Total {
		return nil, fmt.Errorf("it says %s, %d of %d bytes: %w", r.ID, r.Received, r.Total, cmg.ErrInvalid)
	}
	u := newSession(r)
	u.saved = i
	if err := u.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(r.Hash); err != nil {
		return nil, fmt.Errorf("state of the hash: %w: %w", err, cmg.ErrInvalid)
	}
	if r.Closed {
		return u, nil
	}
	i, err = os.Stat(s.dataFile(id))
	switch {
	case errors.Is(err, os.ErrNotExist) && r.Received == r.Total:
		return u, nil // taken by Deliver, or there was nothing yet
	case err != nil:
		return nil, err
	case i.Size() < r.Received:
		return nil, fmt.Errorf("%d of %d bytes are there: %w", i.Size(), r.Received, cmg.ErrInvalid)
	}
	return u, nil
}
