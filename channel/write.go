package channel

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// writer gathers the frames of all streams. Whoever adds a frame while no
// write is under way becomes the writer and writes until nothing is left, so
// that many frames share one TLS record and one system call, and no
// goroutine has to be woken for it.
//
// Heads, small messages and control frames are urgent: they go before pieces
// of bodies, which take turns (see share). Frames of one stream keep their
// order, for a head comes before its body.
type writer struct {
	conn net.Conn
	tls  *tls.Conn // conn, if it is TLS over a Gather
	wire *Gather

	mu       sync.Mutex
	room     sync.Cond // of mu: urgent fell below high water, or err is set
	urgent   []byte
	bulk     []byte
	spare    [2][]byte // of urgent and bulk
	turns    []*share  // who waits to add to bulk, the one that is due first first
	virtual  int64     // time of turns, see share
	reserved int       // bytes of bulk kept for shares whose turn it is
	round    uint64    // of turns
	writing  bool
	err      error
	lastID   uint32         // of the stream opened last
	helpers  sync.WaitGroup // goroutines that write in the reader's stead
	open     *atomic.Int32  // streams
}

const (
	highWater = 1 << 20   // urgent bytes pending above which those who send heads wait
	keepSpare = 256 << 10 // capacity of a buffer that is kept while little is sent
	// hardWater is where control frames, which do not wait, end the session:
	// a peer that asks for answers and never reads them.
	hardWater = 8 << 20
	// maxWrite bytes that are not taken within writeTime are a dead peer's:
	// a slow link takes all that may be pending, only not at once.
	maxWrite  = 128 << 10
	writeTime = 10 * time.Second
	// maxRounds is how often whoever sends a frame writes those of others
	// too: it has work of its own to go on with.
	maxRounds = 32
	// crowd is how many streams have to be open for the writer to let others
	// add to what it writes: it costs more than it gives with few.
	crowd = 6
)

func newWriter(c net.Conn, open *atomic.Int32) *writer {
	w := &writer{conn: c, open: open}
	w.room.L = &w.mu
	w.tls, w.wire = gathered(c)
	return w
}

// gathered gives c's parts if it is TLS over a Gather, else nil.
func gathered(c net.Conn) (*tls.Conn, *Gather) {
	if t, ok := c.(*tls.Conn); ok {
		if g, ok := t.NetConn().(*Gather); ok {
			return t, g
		}
	}
	return nil, nil
}

// wait blocks until there is room for an urgent frame. It is called with mu
// held.
func (w *writer) wait() error {
	for len(w.urgent) > highWater && w.err == nil {
		w.room.Wait()
	}
	return w.err
}

// frame appends one urgent frame. It is called with mu held.
func (w *writer) frame(kind frameType, flags byte, stream uint32, parts ...[]byte) {
	w.urgent = appendFrame(w.urgent, kind, flags, stream, parts...)
}

func appendFrame(b []byte, kind frameType, flags byte, stream uint32, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b = appendHeader(b, n, kind, flags, stream)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// send appends one urgent frame once there is room, and sees to it that it is
// written.
func (w *writer) send(kind frameType, flags byte, stream uint32, parts ...[]byte) error {
	w.mu.Lock()
	if err := w.wait(); err != nil {
		w.mu.Unlock()
		return err
	}
	w.frame(kind, flags, stream, parts...)
	w.drain()
	return nil
}

// later appends one small frame that goes with whatever is written next: the
// next PING at the latest.
func (w *writer) later(kind frameType, stream uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && len(w.urgent) <= hardWater {
		w.frame(kind, 0, stream)
	}
}

// control appends one small frame without waiting. The reader of a session
// calls it, which must never be held up by its own writes: two ends whose
// readers wait for each other would stand still for ever.
func (w *writer) control(kind frameType, flags byte, stream uint32, parts ...[]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	if len(w.urgent) > hardWater {
		w.fail(errFlooded)
		w.hangUp()
		return
	}
	w.frame(kind, flags, stream, parts...)
	w.rouse()
}

// rouse sees to it that what is pending is written, without waiting. It is
// called with mu held.
func (w *writer) rouse() {
	if !w.writing {
		w.writing = true
		w.help()
	}
}

// help has a goroutine of its own write until nothing is left. It is called
// with mu held, writing set and err not set: so none is started after close.
func (w *writer) help() {
	w.helpers.Go(func() {
		w.mu.Lock()
		for w.flush() {
		}
		w.mu.Unlock()
	})
}

// drain is called with mu held and returns without it: it writes what is
// pending, unless somebody else is at it and will.
func (w *writer) drain() {
	if w.writing {
		w.mu.Unlock()
		return
	}
	w.writing = true
	w.mu.Unlock()
	if w.open.Load() >= crowd {
		runtime.Gosched() // let those that are ready add their frame to this write
	}
	w.mu.Lock()
	if w.flush() {
		w.help()
	}
	w.mu.Unlock()
}

// flush writes until nothing is left, for so many rounds. It is called with
// mu held and writing set, and returns with mu held; more says that there is
// something left, and that writing is still set.
func (w *writer) flush() (more bool) {
	for round := 0; len(w.urgent)+len(w.bulk) > 0 && w.err == nil; round++ {
		if round == maxRounds {
			return true
		}
		var b []byte
		if len(w.bulk) > 0 { // else turns that were given last go on
			b = w.nextRound()
		}
		if err := w.write(b); err != nil {
			w.fail(err)
			w.hangUp()
		}
		if b != nil {
			w.spare[1] = spare(b)
		}
	}
	w.writing = false
	return false
}

// spare gives a buffer back to be filled again; a large one only while it is
// filled.
func spare(b []byte) []byte {
	if cap(b) <= keepSpare || len(b) > keepSpare/2 && cap(b) <= 2*highWater {
		return b
	}
	return nil
}

// write writes what is urgent, and b, with what becomes urgent meanwhile in
// between; what becomes so behind b is for the next round. It is called with
// mu held, and lets go of it while it writes.
func (w *writer) write(b []byte) error {
	for first := true; first || len(b) > 0; first = false {
		if w.err != nil {
			return w.err
		}
		u, p := w.urgent, b[:wholeFrames(b, maxWrite)]
		b = b[len(p):]
		w.urgent, w.spare[0] = w.spare[0][:0], nil
		w.mu.Unlock()
		w.room.Broadcast()
		err := w.put(u, p)
		w.mu.Lock()
		w.spare[0] = spare(u)
		if err != nil {
			return err
		}
	}
	return w.err
}

// wholeFrames is how many bytes of b, which holds frames, make frames of at
// most limit bytes together, or the first.
func wholeFrames(b []byte, limit int) (n int) {
	for n < len(b) {
		next := n + frameHeader + parseHeader(b[n:]).length
		if next > limit && n > 0 {
			break
		}
		n = next
	}
	return n
}

// put writes u and p, in steps of maxWrite bytes.
func (w *writer) put(u, p []byte) error {
	for len(u)+len(p) > 0 {
		first := u[:min(len(u), maxWrite)]
		u = u[len(first):]
		then := p
		if len(u) > 0 {
			then = nil
		} else {
			p = nil
		}
		if err := w.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		var err error
		if w.wire != nil {
			err = w.wire.Flush(w.tls, first, then)
		} else if _, err = w.conn.Write(first); err == nil && len(then) > 0 {
			_, err = w.conn.Write(then)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hangUp wakes the reader, which ends the session. It does not wait, as TLS
// does, for a last alert to be written.
func (w *writer) hangUp() {
	if w.wire != nil {
		w.wire.CloseNow()
		return
	}
	w.conn.Close()
}

// fail is called with mu held.
func (w *writer) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.urgent, w.bulk = nil, nil
	w.room.Broadcast()
	w.admit()
}

func (w *writer) close(err error) {
	w.mu.Lock()
	w.fail(err)
	w.mu.Unlock()
}
