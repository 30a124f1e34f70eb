package channel

import (
	"encoding/binary"
	"time"
)

// How much body a peer may send ahead of its reader, in bytes. Every stream
// begins with baseWindow; one whose sender says that it waits for credit
// while its reader waits for bytes is lent more, up to maxWindow, as long as
// the session's pool lasts. So a long link is filled, and many slow readers
// cannot hold more than poolSize beyond their base.
const (
	baseWindow = 64 << 10
	maxWindow  = 32 << 20
	poolSize   = 64 << 20
	// farAway is the round trip from which on a stream is lent a quarter of
	// what is left at once: to double the window step by step would take
	// longer than most bodies.
	farAway = 5 * time.Millisecond
)

// waitCredit blocks until some of n bytes may be sent, and says how many.
func (st *Stream) waitCredit(n int) (int, error) {
	for {
		st.mu.Lock()
		c, err, over := st.credit, st.err, st.sentEnd
		tell := err == nil && !over && c < int64(n) && c < 1<<10 && !st.told
		st.told = st.told || tell
		st.wrote = true
		st.mu.Unlock()
		switch {
		case err != nil:
			return 0, err
		case over:
			return 0, errStopped
		case n == 0 || c >= int64(n):
			return n, nil
		case c >= 1<<10: // not in crumbs
			return int(c), nil
		}
		if tell {
			st.s.w.control(frameBlocked, 0, st.id)
		}
		<-st.room
	}
}

// markBlocked learns that the sender waits for credit. If the reader waits as
// well, nothing else can come of it: more is lent at once.
func (st *Stream) markBlocked() {
	st.mu.Lock()
	st.blocked = true
	n := int64(0)
	if st.waits && len(st.queue) == 0 && !st.recvEnd && st.err == nil {
		n = st.grow()
		st.granted += n
	}
	st.mu.Unlock()
	st.give(n)
}

func (st *Stream) addCredit(n uint32) {
	st.mu.Lock()
	st.told = false
	if st.credit += int64(n); st.credit > 2*maxWindow {
		st.credit = 2 * maxWindow
	}
	st.mu.Unlock()
	signal(st.room)
}

// repay gives credit for what was taken, once it is a quarter of the window,
// and lends more where both ends wait for nothing else.
func (st *Stream) repay() {
	st.mu.Lock()
	stalled := st.blocked && len(st.queue) == 0
	if st.owed < st.window/4 && !stalled || st.recvEnd || st.err != nil {
		st.mu.Unlock()
		return
	}
	n := st.owed
	st.owed = 0
	if stalled {
		n += st.grow()
	}
	st.granted += n
	st.mu.Unlock()
	st.give(n)
}

func (st *Stream) give(n int64) {
	if n > 0 {
		st.s.w.control(frameCredit, 0, st.id, binary.BigEndian.AppendUint32(nil, uint32(n)))
	}
}

// grow borrows window, and says how much. It is called with mu held.
func (st *Stream) grow() int64 {
	st.blocked = false
	if st.window >= maxWindow {
		return 0
	}
	n := st.s.lend(st.window)
	st.window += n
	return n
}

// lend takes more window from the pool for a stream that has so much, or
// nothing.
func (s *Session) lend(window int64) int64 {
	n := window
	if s.RTT() >= farAway {
		n = max(n, s.pool.Load()/4)
	}
	n = min(n, maxWindow-window)
	if s.pool.Add(-n) < 0 {
		s.pool.Add(n)
		return 0
	}
	return n
}
