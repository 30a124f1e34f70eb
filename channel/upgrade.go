package channel

// featureUpgrade in HELLO says that the inside takes requests that offer to go
// on with another protocol.
const featureUpgrade = 1 << 0

// Upgrades says that the peer takes requests that offer to go on with another
// protocol: their heads have a flag that older ones refuse.
func (s *Session) Upgrades() bool { return s.peer.features&featureUpgrade != 0 }

// Duplex makes the stream one of bytes in both directions: each lasts until
// whoever sends in it ends it. Otherwise the end of the answer ends the
// request as well. Call it before Respond. Inside only.
func (st *Stream) Duplex() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.duplex = true
}

// Rest gives the last piece back, as Next does, and says whether the reader
// has to wait for the next one, without waiting: Ready and Notify tell when
// Next would return at once. Who waits so and did not call it would keep the
// sender without the credit of that piece.
func (st *Stream) Rest() (wait bool) {
	st.current.free()
	st.current = chunk{}
	st.repay()
	st.mu.Lock()
	defer st.mu.Unlock()
	st.waits = len(st.queue) == 0 && !st.recvEnd && st.err == nil
	return st.waits
}

// HasPiece says that Next returns at once.
func (st *Stream) HasPiece() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.queue) > 0 || st.recvEnd || st.err != nil
}
