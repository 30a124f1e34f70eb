package channel

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// readSize is what the reader takes from TLS at once: four records.
const readSize = 64 << 10

// pastBuffer is how much of a payload has to be missing for it to be read
// past the buffer: what follows it then costs a read of its own.
const pastBuffer = 8 << 10

// read takes frames until the connection ends. It never waits for anything
// but the connection.
func (s *Session) read() error {
	br := bufio.NewReaderSize(s.conn, readSize)
	for {
		b, err := br.Peek(frameHeader)
		if err != nil {
			return fmt.Errorf("channel: read: %w", err)
		}
		h := parseHeader(b)
		br.Discard(frameHeader) // cannot fail: just peeked
		if h.length > maxPayload {
			return fmt.Errorf("%w: a frame of %d bytes", errProtocol, h.length)
		}
		s.frames.Add(1)
		if !s.wants(h) {
			if _, err := br.Discard(h.length); err != nil {
				return fmt.Errorf("channel: read: %w", err)
			}
			continue
		}
		c := getChunk(h.length)
		if err := s.fill(br, c.b); err != nil {
			c.free()
			return fmt.Errorf("channel: read: %w", err)
		}
		if err := s.take(h, c); err != nil {
			return err
		}
	}
}

// fill reads a payload. What br does not hold yet of a large one is read past
// it, straight to its place.
func (s *Session) fill(br *bufio.Reader, p []byte) error {
	if n := br.Buffered(); len(p) >= n+pastBuffer {
		if _, err := io.ReadFull(br, p[:n]); err != nil {
			return err
		}
		_, err := io.ReadFull(s.conn, p[n:])
		return err
	}
	_, err := io.ReadFull(br, p)
	return err
}

// wants says whether a frame's payload has to be read: frames of unknown
// type, and of streams that ended, are skipped by their length.
func (s *Session) wants(h header) bool {
	switch h.kind {
	case frameData, frameResponse, frameCredit, frameStarted, frameReset, frameBlocked:
		return s.lookup(h.stream) != nil
	case frameRequest, framePing, framePong, frameGoAway, framePublish, framePublished, frameKeys:
		return true
	}
	return false
}

// take handles one frame. An error ends the session.
func (s *Session) take(h header, c chunk) error {
	switch h.kind {
	case frameRequest:
		return s.takeRequest(h, c)
	case frameResponse, frameData:
		if st := s.lookup(h.stream); st != nil {
			return st.takeMessage(h, c)
		}
	case frameCredit:
		if st := s.lookup(h.stream); st != nil && len(c.b) == 4 {
			st.addCredit(binary.BigEndian.Uint32(c.b))
		}
	case frameBlocked:
		if st := s.lookup(h.stream); st != nil {
			st.markBlocked()
		}
	case frameStarted:
		if st := s.lookup(h.stream); st != nil {
			st.markStarted()
		}
	case frameReset:
		if st := s.lookup(h.stream); st != nil {
			st.takeReset(c.b)
		}
	case framePing:
		s.w.control(framePong, 0, 0, c.b)
	case framePong:
		s.pong(c.b)
	case frameGoAway:
		s.takeGoAway(c.b)
	case framePublish:
		err := s.takePublish(h, c.b)
		c.free()
		return err
	case frameKeys:
		err := s.takeKeys(c.b)
		c.free()
		return err
	case framePublished:
		if len(c.b) >= 8 && s.cfg.Acknowledged != nil {
			s.cfg.Acknowledged(binary.BigEndian.Uint64(c.b), cut(string(c.b[8:])))
		}
	}
	c.free()
	return nil
}

// takeRequest opens the inside's end of a stream.
func (s *Session) takeRequest(h header, c chunk) error {
	if s.outside || s.cfg.Handler == nil {
		c.free()
		return fmt.Errorf("%w: a request to the outside", errProtocol)
	}
	s.mu.Lock()
	if h.stream <= s.lastSeen {
		s.mu.Unlock()
		c.free()
		return fmt.Errorf("%w: stream %d after %d", errProtocol, h.stream, s.lastSeen)
	}
	refuse := s.draining || len(s.streams) >= s.cfg.MaxStreams || s.err != nil
	var st *Stream
	if !refuse {
		s.lastSeen = h.stream
		st = newStream(s, h.stream)
		s.streams[h.stream] = st
		s.open.Store(int32(len(s.streams)))
	} else if !s.draining {
		s.lastSeen = h.stream
	}
	s.mu.Unlock()
	if refuse {
		c.free()
		s.w.control(frameReset, 0, h.stream, binary.BigEndian.AppendUint16(nil, uint16(CodeRefused)))
		return nil
	}
	if err := st.takeMessage(h, c); err != nil {
		return err
	}
	s.cfg.Handler(st)
	return nil
}

// takeGoAway learns that the peer drains. Streams it never saw were not
// handed on: they can be sent again elsewhere.
func (s *Session) takeGoAway(p []byte) {
	if len(p) < 4 {
		return
	}
	last := binary.BigEndian.Uint32(p)
	s.away.Store(true)
	if !s.outside {
		s.takeAway(string(p[4:]))
		return
	}
	s.cfg.Log.Info("channel is draining", "peer", s.peer.name, "why", cut(string(p[4:])))
	s.mu.Lock()
	var never []*Stream
	for id, st := range s.streams {
		if id > last {
			never = append(never, st)
			delete(s.streams, id)
		}
	}
	s.mu.Unlock()
	for _, st := range never {
		st.fail(&StreamError{Code: CodeRefused, Text: "the connection point drains", Untouched: true})
	}
}

// takePublish gathers the pieces of a publication; only the newest waits to
// be handed on.
func (s *Session) takePublish(h header, p []byte) error {
	if !s.outside || len(p) < 8 || len(s.incoming)+len(p)-8 > maxPublication {
		return fmt.Errorf("%w: a publication that is not wanted, cut short or too large", errProtocol)
	}
	s.incoming = append(s.incoming, p[8:]...)
	if h.flags&flagEnd == 0 {
		return nil
	}
	doc := publication{version: binary.BigEndian.Uint64(p), doc: s.incoming}
	s.incoming = nil
	if s.cfg.Published == nil {
		return nil
	}
	select {
	case <-s.mail: // one that nobody came to look at: the new one takes its place
	default:
	}
	s.mail <- doc // there is room: only the reader puts anything in
	return nil
}
