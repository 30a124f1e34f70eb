package channel

import "encoding/binary"

// SendAway asks the inside to open another connection in this one's place:
// the outside is about to end. Streams may be opened on this one until it
// does. Outside only.
func (s *Session) SendAway(why string) {
	s.w.control(frameGoAway, 0, 0, binary.BigEndian.AppendUint32(nil, 0), []byte(cut(why)))
}

// Away is closed once the outside has asked for another connection. Inside
// only.
func (s *Session) Away() <-chan struct{} { return s.asked }

// takeAway is what the inside does with a GOAWAY.
func (s *Session) takeAway(why string) {
	s.cfg.Log.Info("the gateway asks for another connection", "connection", s.Connection(), "why", cut(why))
	s.askedOnce.Do(func() { close(s.asked) })
}
