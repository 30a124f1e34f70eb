package channel

import "encoding/binary"

// Open opens a stream with a request's head and a first piece of its body of
// at most 16 KiB; end says that this is the whole of it. An error means that
// nothing was sent. Outside only.
func (s *Session) Open(head, body []byte, end bool) (*Stream, error) {
	flags := byte(0)
	if end {
		flags = flagEnd
	}
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(len(head)))
	lost := func(text string) error { return &StreamError{Code: CodeLost, Text: text, Untouched: true} }

	s.w.mu.Lock()
	if err := s.w.wait(); err != nil {
		s.w.mu.Unlock()
		return nil, lost(cut(err.Error()))
	}
	st := newStream(s, s.w.lastID+1)
	st.sentEnd = end
	st.credit -= int64(len(body))
	s.mu.Lock()
	if s.err != nil || s.draining || s.away.Load() || len(s.streams) >= s.maxStreams() || s.w.lastID == 1<<32-1 {
		s.mu.Unlock()
		s.w.mu.Unlock()
		return nil, lost("no more streams on this connection")
	}
	s.streams[st.id] = st
	s.open.Store(int32(len(s.streams)))
	s.mu.Unlock()
	s.w.lastID++
	s.w.frame(frameRequest, flags, st.id, length[:n], head, body)
	s.w.drain()
	return st, nil
}

// maxStreams is the smaller of the two ends' limits.
func (s *Session) maxStreams() int { return min(s.cfg.MaxStreams, int(s.peer.streams)) }

// MaxInline is the largest first piece of body that Open and Respond take.
const MaxInline = maxInline

// Respond sends the response's head and a first piece of its body of at most
// 16 KiB; end says that this is the whole of it. Inside only, once.
func (st *Stream) Respond(head, body []byte, end bool) error {
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(len(head)))
	flags, stop, ended, err := st.sending(len(body), end)
	if err != nil {
		return err
	}
	if err := st.s.w.send(frameResponse, flags, st.id, length[:n], head, body); err != nil {
		return err
	}
	st.sent(stop, ended)
	return nil
}

// sending accounts for a piece of body about to be sent. stop says that the
// message ends while the peer's has not: the peer is told to stop sending.
func (st *Stream) sending(n int, end bool) (flags byte, stop, ended bool, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return 0, false, false, st.err
	}
	if st.sentEnd {
		return 0, false, false, errStopped
	}
	st.credit -= int64(n)
	if end {
		st.sentEnd = true
		flags, ended = flagEnd, st.recvEnd
		stop = !st.s.outside && !st.recvEnd && !st.duplex
	}
	return flags, stop, ended, nil
}

// sent follows up on a frame that was sent.
func (st *Stream) sent(stop, ended bool) {
	if stop {
		st.mu.Lock()
		st.recvEnd, st.over = true, true // whatever still comes is not wanted
		st.mu.Unlock()
		signal(st.wake) // somebody may still be reading the request
		st.s.w.control(frameReset, 0, st.id, binary.BigEndian.AppendUint16(nil, uint16(CodeStopped)))
	}
	if stop || ended {
		st.s.drop(st.id)
	}
}

// Write sends a piece of body and blocks while the peer has no room for it.
func (st *Stream) Write(p []byte) (int, error) { return st.write(p, false) }

// WriteEnd sends the last piece of body, which may be empty.
func (st *Stream) WriteEnd(p []byte) error {
	_, err := st.write(p, true)
	return err
}

func (st *Stream) write(p []byte, end bool) (sent int, err error) {
	for {
		piece := p[:min(len(p), maxPiece)]
		n, err := st.waitCredit(len(piece))
		if err != nil {
			return sent, err
		}
		piece = piece[:n]
		last := end && n == len(p)
		flags, stop, ended, err := st.sending(n, last)
		if err != nil {
			return sent, err
		}
		if err := st.s.w.sendBody(&st.turn, frameData, flags, st.id, piece); err != nil {
			return sent, &StreamError{Code: CodeLost, Text: cut(err.Error())}
		}
		st.sent(stop, ended)
		sent += n
		if p = p[n:]; len(p) == 0 {
			return sent, nil
		}
	}
}

// Stopped says that err is what Write gives when the other end has answered
// and wants no more of the body: its answer can be read.
func Stopped(err error) bool { return err == errStopped }

// Started tells the outside that the request is being handed on: from now on
// it may have had an effect. urgent is for requests of which the outside
// would do something else if it did not know: the others' word may go with
// whatever is sent next. Inside only.
func (st *Stream) Started(urgent bool) {
	if urgent {
		st.s.w.control(frameStarted, 0, st.id)
		return
	}
	st.s.w.later(frameStarted, st.id)
}

// Err is why the stream ended early, or nil.
func (st *Stream) Err() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.err
}
