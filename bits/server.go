package bits

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/opencmg/cmg"
)

// A Server takes uploads. Its folder is its own, and its successor's: a
// process that is about to be replaced may use it beside the new one, because
// what counts is on disk.
type Server struct {
	cfg    Config
	suffix string // of records while they are written; another one in every process

	mu       sync.Mutex
	sessions map[string]*session // by record.ID; closed ones too, until they expire
	all      usage
	owners   map[string]usage
	closed   map[string][]string // ids of closed sessions by owner, the oldest first
}

// usage is what is under way; closed sessions do not count.
type usage struct {
	sessions int
	bytes    int64 // as announced
}

// maxClosed is how many closed sessions are remembered of one owner: he asks
// again soon, or not at all.
const maxClosed = 64

// NewServer checks c and takes up the sessions of an earlier process.
func NewServer(c Config) (*Server, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	s := &Server{cfg: c, suffix: "." + cmg.NewGUID(), sessions: map[string]*session{}, owners: map[string]usage{}, closed: map[string][]string{}}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("uploads: %w", err)
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("uploads: read folder: %w", err)
	}
	return s, nil
}

// A Sender is who sends a packet, and to what.
type Sender struct {
	Owner  string // whose sessions these are: nobody else sees them
	Name   string // of the file, from the URL; a session keeps it
	Inside bool   // it came straight from the inside, so that a host name means something to it
}

// Serve answers one packet. An error was not answered yet, but its BITS
// headers are set. Serve moves the connection's deadlines as bytes arrive.
func (s *Server) Serve(w http.ResponseWriter, r *http.Request, from Sender) error {
	result, err := ResultFailed, s.serve(w, r, from)
	if err == nil {
		return nil
	}
	context := ContextServer
	var known *refusal
	if errors.As(err, &known) {
		result = known.result
	}
	if errors.Is(err, errDeliver) {
		context = ContextApplication
	}
	setError(w.Header(), result, context)
	return err
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, from Sender) error {
	if r.Method != Method {
		return badPacket("the method is not "+Method, nil)
	}
	p, err := ReadPacket(r.Header, r.ContentLength)
	if err != nil {
		return badPacket("the packet cannot be read", err)
	}
	switch p.Type {
	case Ping:
		return ack(w, nil)
	case CreateSession:
		return s.create(w, from)
	}
	u := s.find(p.Session, from)
	if u == nil && p.Type == CancelSession {
		return ack(w, nil) // as it should be
	}
	if u == nil {
		return sessionUnknown(nil)
	}
	w.Header().Set(HeaderSession, u.wire())
	pace := newPace(w)
	if err := u.take(r.Context(), pace.cut); err != nil {
		return err
	}
	defer u.give()
	if err := s.refresh(u); err != nil {
		var known *refusal
		if p.Type == CancelSession && errors.As(err, &known) && known.result == ResultSessionNotFound {
			return ack(w, nil)
		}
		return err
	}
	switch p.Type {
	case Fragment:
		return s.fragment(w, r, u, p.Range, pace)
	case CloseSession:
		return s.close(r.Context(), w, u)
	}
	s.forget(u)
	return errors.Join(s.drop(u), ack(w, u))
}

// find gives a session of the sender's, for this name.
func (s *Server) find(id string, from Sender) *session {
	s.mu.Lock()
	u := s.sessions[key(id)]
	s.mu.Unlock()
	if u == nil {
		u = s.adopt(key(id))
	}
	if u == nil || u.Owner != from.Owner || u.Name != from.Name {
		return nil
	}
	return u
}

// create begins a session. Nothing is reserved until its size is known.
func (s *Server) create(w http.ResponseWriter, from Sender) error {
	now := s.cfg.Now().UTC()
	u := newSession(record{ID: key(cmg.NewGUID()), Owner: from.Owner, Name: from.Name, Created: now, Touched: now})
	if err := s.admit(u, 1, 0); err != nil {
		return err
	}
	<-u.turn
	defer u.give()
	if err := s.save(u); err != nil {
		s.forget(u)
		return errors.Join(err, s.drop(u))
	}
	h := w.Header()
	h.Set(HeaderProtocol, Protocol)
	h.Set("Accept-Encoding", "identity")
	if s.cfg.HostID != "" && from.Inside {
		h.Set(HeaderHost, s.cfg.HostID)
		h.Set(HeaderHostFallback, strconv.Itoa(int(s.cfg.HostIDFallback/time.Second)))
	}
	return ack(w, u)
}

// admit counts what a session takes, or says why it may not. A session that
// is not known yet is known then.
func (s *Server) admit(u *session, sessions int, bytes int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.owners[u.Owner]
	switch {
	case own.sessions+sessions > s.cfg.DeviceSessions || own.bytes+bytes > s.cfg.DeviceBytes:
		return refuse(ResultQuota, http.StatusForbidden, "CMGMP_Upload_Quota", "this device has as many uploads, or bytes, under way as it may",
			fmt.Errorf("%d uploads of %d bytes", own.sessions, own.bytes))
	case s.all.sessions+sessions > s.cfg.MaxSessions || s.all.bytes+bytes > s.cfg.MaxBytes:
		return refuse(ResultQuota, http.StatusServiceUnavailable, "CMGMP_Upload_Limit", "there are as many uploads, or bytes, under way as this server takes",
			fmt.Errorf("%d uploads of %d bytes", s.all.sessions, s.all.bytes))
	}
	s.sessions[u.ID] = u
	s.count(u, sessions, bytes)
	return nil
}

// count adds to what is under way. The lock is held, or nobody else is there.
func (s *Server) count(u *session, sessions int, bytes int64) {
	if u.Closed {
		return
	}
	s.all.sessions += sessions
	s.all.bytes += bytes
	own := s.owners[u.Owner]
	own.sessions += sessions
	own.bytes += bytes
	if s.owners[u.Owner] = own; own == (usage{}) {
		delete(s.owners, u.Owner)
	}
}

// forget takes a session out of the count and out of sight.
func (s *Server) forget(u *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(u, -1, -u.Total)
	delete(s.sessions, u.ID)
	if ids := slices.DeleteFunc(s.closed[u.Owner], func(id string) bool { return id == u.ID }); len(ids) > 0 {
		s.closed[u.Owner] = ids
	} else {
		delete(s.closed, u.Owner)
	}
}

// settle takes a session whose file was delivered out of the count.
func (s *Server) settle(u *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count(u, -1, -u.Total)
	u.Closed = true
	s.closed[u.Owner] = append(s.closed[u.Owner], u.ID)
}

// crowded gives an owner's session that was closed longest ago, where there
// are more than are remembered.
func (s *Server) crowded(owner string) (oldest *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.closed[owner]
	for len(ids) > maxClosed {
		oldest = s.sessions[ids[0]]
		if ids = ids[1:]; oldest != nil {
			break
		}
	}
	s.closed[owner] = ids
	return oldest
}

// Expire drops uploads that have rested for longer than Config.Idle, and the
// memory of those that were closed as long ago.
func (s *Server) Expire(ctx context.Context) error {
	before := s.cfg.Now().Add(-s.cfg.Idle)
	s.mu.Lock()
	all := make([]*session, 0, len(s.sessions))
	for _, u := range s.sessions {
		all = append(all, u)
	}
	s.mu.Unlock()
	var errs []error
	for _, u := range all {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !u.tryTake() {
			continue // in use
		}
		if !u.gone && s.refresh(u) != nil {
			u.give() // gone, or to be looked at again
			continue
		}
		if !u.gone && u.Touched.Before(before) {
			if !u.Closed {
				s.cfg.Log.Info("upload expired", "upload", u.ID, "owner", u.Owner, "received", u.Received, "total", u.Total)
			}
			s.forget(u)
			errs = append(errs, s.drop(u))
		}
		u.give()
	}
	return errors.Join(errs...)
}

// Status is what is under way.
type Status struct {
	Sessions int   `json:"sessions"`
	Owners   int   `json:"owners"`
	Bytes    int64 `json:"bytes"` // as announced
}

// Status tells what is under way.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{Sessions: s.all.sessions, Owners: len(s.owners), Bytes: s.all.bytes}
}

// ack answers that all is well.
func ack(w http.ResponseWriter, u *session) error {
	h := w.Header()
	h.Set(HeaderPacketType, string(Ack))
	if u != nil {
		h.Set(HeaderSession, u.wire())
	}
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}
