package channel

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"time"
)

// writer gathers the frames of all streams. Whoever adds a frame while no
// write is under way becomes the writer and writes until nothing is left, so
// that many frames share one TLS record and one system call, and no
// goroutine has to be woken for it.
type writer struct {
	conn net.Conn
	tls  *tls.Conn // conn, if it is TLS over a Gather
	wire *Gather

	mu      sync.Mutex
	room    sync.Cond // of mu: buf fell below high water, or err is set
	buf     []byte
	spare   []byte
	writing bool
	err     error
	lastID  uint32         // of the stream opened last
	helpers sync.WaitGroup // goroutines that write in the reader's stead
}

const (
	highWater = 1 << 20   // bytes pending above which those who send bodies wait
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
	maxRounds = 8
)

func newWriter(c net.Conn) *writer {
	w := &writer{conn: c}
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

// wait blocks until there is room for a frame with a body. It is called with
// mu held.
func (w *writer) wait() error {
	for len(w.buf) > highWater && w.err == nil {
		w.room.Wait()
	}
	return w.err
}

// frame appends one frame. It is called with mu held.
func (w *writer) frame(kind frameType, flags byte, stream uint32, parts ...[]byte) {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	w.buf = appendHeader(w.buf, n, kind, flags, stream)
	for _, p := range parts {
		w.buf = append(w.buf, p...)
	}
}

// send appends one frame once there is room, and sees to it that it is
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

// control appends one small frame without waiting. The reader of a session
// calls it, which must never be held up by its own writes: two ends whose
// readers wait for each other would stand still for ever.
func (w *writer) control(kind frameType, flags byte, stream uint32, parts ...[]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return
	}
	if len(w.buf) > hardWater {
		w.fail(errFlooded)
		w.hangUp()
		return
	}
	w.frame(kind, flags, stream, parts...)
	if w.writing {
		return
	}
	w.writing = true
	w.help()
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
	runtime.Gosched() // let those that are ready add their frame to this write
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
	for round := 0; len(w.buf) > 0 && w.err == nil; round++ {
		if round == maxRounds {
			return true
		}
		b := w.buf
		w.buf, w.spare = w.spare[:0], nil
		w.mu.Unlock()
		w.room.Broadcast()
		err := w.write(b)
		w.mu.Lock()
		if cap(b) <= keepSpare || len(b) > keepSpare/2 && cap(b) <= 2*highWater {
			w.spare = b // a large one only while it is filled
		}
		if err != nil {
			w.fail(err)
			w.hangUp()
		}
	}
	w.writing = false
	return false
}

func (w *writer) write(b []byte) error {
	for len(b) > 0 {
		p := b[:min(len(b), maxWrite)]
		b = b[len(p):]
		if err := w.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		var err error
		if w.wire != nil {
			err = w.wire.Flush(w.tls, p)
		} else {
			_, err = w.conn.Write(p)
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
	w.buf = nil
	w.room.Broadcast()
}

func (w *writer) close(err error) {
	w.mu.Lock()
	w.fail(err)
	w.mu.Unlock()
}
