package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A Stream is one request and its response. One goroutine may read from it
// and one may write to it at the same time.
type Stream struct {
	s  *Session
	id uint32

	mu      sync.Mutex
	queue   []chunk // body received and not yet taken
	head    chunk   // head received, with the first piece of body behind it
	headLen int
	hasHead bool
	recvEnd bool
	over    bool // recvEnd, because this end has answered and wants no more
	sentEnd bool
	stopped bool // sentEnd, because the other end wants no more
	started bool
	blocked bool // the sender waits for credit
	waits   bool // the reader waits for a piece of body
	told    bool // that this end waits for credit
	wrote   bool // pieces of body, which wait behind urgent frames
	duplex  bool // neither direction ends the other
	err     error
	credit  int64  // bytes of body that may be sent
	granted int64  // bytes of body that may still arrive
	window  int64  // of which granted is what is left
	notify  func() // called when something arrives or the stream ends

	wake  chan struct{} // something arrived for the reader
	room  chan struct{} // credit arrived for the writer
	turn  share         // of what is sent
	bells *bells        // wake, room and the turn's, to be given back

	// Reader only.
	current chunk
	owed    int64 // taken since credit was last given
}

func newStream(s *Session, id uint32) *Stream {
	b := bellPool.Get().(*bells)
	return &Stream{s: s, id: id, credit: int64(s.peer.credit), granted: baseWindow, window: baseWindow,
		wake: b.wake, room: b.room, turn: share{bell: b.turn}, bells: b}
}

// Session is the session the stream belongs to.
func (st *Stream) Session() *Session { return st.s }

// Ready is signalled when something arrived that Head or Next would return
// at once. It may be signalled once too often.
func (st *Stream) Ready() <-chan struct{} { return st.wake }

// Notify has f called, by the session's reader, whenever something arrives
// and when the stream ends; at once if something has arrived already. f must
// return at once. nil ends it.
func (st *Stream) Notify(f func()) {
	st.mu.Lock()
	st.notify = f
	now := f != nil && (st.err != nil || st.hasHead || len(st.queue) > 0 || st.recvEnd)
	st.mu.Unlock()
	if now {
		f()
	}
}

func (st *Stream) arrived(notify func()) {
	signal(st.wake)
	if notify != nil {
		notify()
	}
}

// takeMessage takes a head with a first piece of body, or a piece of body.
// The session's reader calls it; an error ends the session.
func (st *Stream) takeMessage(h header, c chunk) error {
	st.mu.Lock()
	if st.err != nil || st.recvEnd {
		st.mu.Unlock()
		c.free()
		return nil
	}
	body := len(c.b)
	if h.kind == frameData {
		if !st.hasHead {
			st.mu.Unlock()
			c.free()
			return fmt.Errorf("%w: a body before its head", errProtocol)
		}
		if body > 0 {
			st.keep(c)
		} else {
			c.free()
		}
	} else {
		n, k := binary.Uvarint(c.b)
		if st.hasHead || k <= 0 || n > uint64(len(c.b)-k) {
			st.mu.Unlock()
			c.free()
			return fmt.Errorf("%w: a second head, or one that is cut short", errProtocol)
		}
		c.b = c.b[k:]
		st.head, st.headLen, st.hasHead = c, int(n), true
		body = len(c.b) - int(n)
	}
	if st.granted -= int64(body); st.granted < 0 {
		st.mu.Unlock()
		return fmt.Errorf("%w: more body than credit", errProtocol)
	}
	ended := false
	if h.flags&flagEnd != 0 {
		st.recvEnd = true
		ended = st.sentEnd
	}
	notify := st.notify
	st.mu.Unlock()
	if ended {
		st.s.drop(st.id)
	}
	st.arrived(notify)
	return nil
}

// keep queues a piece of body. Small pieces share a buffer: a peer that sends
// its credit byte by byte is not to cost a buffer for each. It is called with
// mu held.
func (st *Stream) keep(c chunk) {
	if n := len(st.queue); n > 0 {
		if last := &st.queue[n-1]; cap(last.b)-len(last.b) >= len(c.b) {
			last.b = append(last.b, c.b...)
			c.free()
			return
		}
	}
	st.queue = append(st.queue, c)
}

func (st *Stream) takeReset(p []byte) {
	e := &StreamError{Code: CodeProtocol}
	if len(p) >= 2 {
		e.Code, e.Text = Code(binary.BigEndian.Uint16(p)), cut(string(p[2:]))
	}
	e.Untouched = e.Code == CodeRefused || e.Code == CodeUnreachable
	if e.Code == CodeStopped {
		st.stopSending()
		return
	}
	st.s.drop(st.id)
	st.fail(e)
}

// errStopped ends writes to a stream whose other end has answered and wants
// no more; its answer can still be read.
var errStopped = errors.New("stream: the other end wants no more of the body")

// stopSending ends this end's writes and leaves its reads.
func (st *Stream) stopSending() {
	st.mu.Lock()
	st.sentEnd, st.stopped = true, true
	ended, notify := st.recvEnd, st.notify
	st.mu.Unlock()
	signal(st.room)
	if ended {
		st.s.drop(st.id)
	}
	if notify != nil {
		notify()
	}
}

// Unwanted says that no more of the body that this end sends is wanted: the
// other end has answered without it, or the stream has ended.
func (st *Stream) Unwanted() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.stopped || st.err != nil
}

// fail ends the stream at both directions.
func (st *Stream) fail(e *StreamError) {
	st.mu.Lock()
	if st.err != nil || st.recvEnd && st.sentEnd {
		st.mu.Unlock()
		return
	}
	e.Started = e.Started || st.started
	st.err = e
	notify := st.notify
	st.mu.Unlock()
	signal(st.room)
	st.arrived(notify)
}

func (st *Stream) markStarted() {
	st.mu.Lock()
	st.started = true
	st.mu.Unlock()
}

// Head gives the head once it has arrived, and blocks until then. It is
// valid until the first call of Next or Close.
func (st *Stream) Head() ([]byte, error) {
	for {
		st.mu.Lock()
		h, n, ok, err := st.head.b, st.headLen, st.hasHead, st.err
		st.mu.Unlock()
		if ok {
			return h[:n], nil
		}
		if err != nil {
			return nil, err
		}
		<-st.wake
	}
}

// HasHead says that Head returns at once.
func (st *Stream) HasHead() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.hasHead || st.err != nil
}

// First gives the piece of body that came with the head, and whether it is
// the whole of it. Call it after Head, before Next, at most once.
func (st *Stream) First() (p []byte, end bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	p = st.head.b[st.headLen:]
	st.current, st.head.b, st.headLen = st.head, nil, 0
	st.head.pooled = nil
	st.owed += int64(len(p))
	return p, st.recvEnd && !st.over && len(st.queue) == 0
}

// Next gives the next piece of body and blocks until there is one; it is
// valid until the next call. io.EOF is the end of the message.
func (st *Stream) Next() ([]byte, error) {
	st.current.free()
	st.current = chunk{}
	st.repay()
	for {
		st.mu.Lock()
		st.waits = false
		if len(st.queue) > 0 {
			c := st.queue[0]
			st.queue[0] = chunk{}
			if st.queue = st.queue[1:]; len(st.queue) == 0 {
				st.queue = nil
			}
			st.mu.Unlock()
			st.current = c
			st.owed += int64(len(c.b))
			return c.b, nil
		}
		end, over, err := st.recvEnd, st.over, st.err
		st.waits = !end && err == nil
		st.mu.Unlock()
		if over {
			return nil, errAnswered
		}
		if end {
			return nil, io.EOF
		}
		if err != nil {
			return nil, err
		}
		<-st.wake
	}
}

// Ended says that the whole message has arrived and was taken.
func (st *Stream) Ended() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.recvEnd && !st.over && len(st.queue) == 0
}

// errAnswered ends reads of a request that was answered before its end: what
// was read of it is not the whole.
var errAnswered = errors.New("stream: it was answered before its end")

// Abort ends the stream at both directions with a code for the other end,
// unless it has ended already. Whoever reads or writes is woken; buffers
// stay until Close.
func (st *Stream) Abort(code Code, text string) {
	st.mu.Lock()
	over, wrote := st.err != nil || st.recvEnd && st.sentEnd, st.wrote
	if !over {
		st.err = &StreamError{Code: code, Text: text}
	}
	st.mu.Unlock()
	if over {
		return
	}
	signal(st.room)
	signal(st.wake)
	st.s.drop(st.id)
	number, why := binary.BigEndian.AppendUint16(nil, uint16(code)), []byte(cut(text))
	if wrote { // it is not to overtake the body that was sent
		st.s.w.behind(frameReset, st.id, number, why)
		return
	}
	st.s.w.control(frameReset, 0, st.id, number, why)
}

// Close ends the use of the stream and gives its buffers back: heads and
// pieces of body are gone, and nobody may be reading any more. If its message
// is not complete the other end is told that nobody waits for it.
func (st *Stream) Close() { st.Reset(CodeCancelled, "") }

// Reset is Abort and Close.
func (st *Stream) Reset(code Code, text string) {
	st.Abort(code, text)
	st.mu.Lock()
	queue, head, bells := st.queue, st.head, st.bells
	st.queue, st.notify, st.head, st.bells = nil, nil, chunk{}, nil
	st.mu.Unlock()
	if bells != nil {
		quiet(bells.wake)
		quiet(bells.room)
		quiet(bells.turn)
		bellPool.Put(bells)
	}
	head.free()
	st.current.free()
	st.current = chunk{}
	for _, c := range queue {
		c.free()
	}
	st.mu.Lock()
	lent := st.window - baseWindow
	st.window = baseWindow
	st.mu.Unlock()
	if lent > 0 {
		st.s.pool.Add(lent)
	}
}
