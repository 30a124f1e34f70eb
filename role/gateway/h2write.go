package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/opencmg/cmg/h1"
)

const (
	h2HighWater = 64 << 10 // bytes pending above which those who answer wait
	h2HardWater = 1 << 20  // a client that asks for answers and never reads them
)

var (
	errEnd     = io.EOF
	errFlooded = errors.New("the client does not read")
)

// flush sees to it that what is pending is written. It is called with mu held
// and returns without it.
func (c *h2Conn) flush() {
	if c.writing || len(c.out) == 0 {
		c.mu.Unlock()
		return
	}
	c.writing = true
	if len(c.streams) > 1 {
		c.mu.Unlock()
		runtime.Gosched() // let those that are ready add their frames to this write
		c.mu.Lock()
	}
	c.writeOut()
	c.mu.Unlock()
}

// flushLater is flush for those that hold mu on, or may not wait. It is called
// with mu held.
func (c *h2Conn) flushLater() {
	if len(c.out) > h2HardWater {
		c.broken(errFlooded)
		return
	}
	if c.writing {
		return
	}
	c.writing = true
	c.f.running.Go(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writeOut()
	})
}

// writeOut writes until nothing is left. It is called with mu held and writing
// set.
func (c *h2Conn) writeOut() {
	for len(c.out) > 0 && c.err == nil {
		b := c.out
		c.out, c.spare = c.spare[:0], nil
		c.mu.Unlock()
		err := c.write(b)
		c.mu.Lock()
		if c.spare = small(b); err != nil {
			c.broken(err)
		}
		c.room.Broadcast()
	}
	c.writing = false
	c.room.Broadcast()
}

func (c *h2Conn) write(b []byte) error {
	limit, now := c.g.limits.write, time.Now()
	if c.writeBy.Sub(now) < limit {
		c.writeBy = now.Add(limit + limit/4)
		c.tls.SetWriteDeadline(c.writeBy)
	}
	return c.wire.Flush(c.tls, b)
}

// broken ends a connection that cannot be written to. It is called with mu
// held; the reader does the rest.
func (c *h2Conn) broken(err error) {
	c.failLocked(err)
	c.wire.CloseNow()
}

// reserve makes room for n more bytes. It is called with mu held.
func (c *h2Conn) reserve(n int) {
	if cap(c.out)-len(c.out) >= n {
		return
	}
	old := c.out
	c.out = append(grown(nil, max(len(old)+n, keepScratch)), old...)
	giveBack(old)
}

func (st *h2Stream) answer(res *h1.Response, first []byte, end bool) error {
	st.x.give(answerText(res))
	c := st.c
	c.mu.Lock()
	if err := st.ended(); err != nil {
		c.mu.Unlock()
		return err
	}
	if c.f.g.draining.Load() { // no client is told sooner than with an answer
		c.leave()
	}
	c.reserve(answerText(res) + len(first) + 256)
	flags := byte(h2EndHeaders)
	if end && len(first) == 0 {
		flags |= h2EndStream
	}
	at := len(c.out)
	c.out = appendFrame(c.out, 0, h2Headers, flags, st.id)
	c.appendHead(res, st.x.method)
	c.closeHead(at)
	if end && len(first) == 0 {
		st.sentEnd = true
		st.settle()
		c.flush()
		return nil
	}
	return st.writeBehind(first, end)
}

// closeHead writes the length of the head that begins at. One that is too long
// for a frame goes on in others.
func (c *h2Conn) closeHead(at int) {
	n := len(c.out) - at - h2FrameHeader
	if n > h2MaxFrame {
		block := append([]byte(nil), c.out[at+h2FrameHeader+h2MaxFrame:]...)
		c.out = c.out[:at+h2FrameHeader+h2MaxFrame]
		c.out[at+4] &^= h2EndHeaders
		id := uint32(c.out[at+5])<<24 | uint32(c.out[at+6])<<16 | uint32(c.out[at+7])<<8 | uint32(c.out[at+8])
		for n = h2MaxFrame; len(block) > 0; {
			piece, flags := block[:min(len(block), h2MaxFrame)], byte(0)
			if block = block[len(piece):]; len(block) == 0 {
				flags = h2EndHeaders
			}
			c.out = append(appendFrame(c.out, len(piece), h2Continuation, flags, id), piece...)
		}
	}
	c.out[at], c.out[at+1], c.out[at+2] = byte(n>>16), byte(n>>8), byte(n)
}

func (st *h2Stream) piece(p []byte, end bool) error {
	st.x.give(len(p))
	st.c.mu.Lock()
	return st.write(p, end)
}

// writeBehind is piece behind a head. It is called with mu held, as write is, and
// returns without it.
func (st *h2Stream) writeBehind(p []byte, end bool) error {
	st.x.give(len(p))
	return st.write(p, end)
}

// write sends a piece of body as the client takes it. It bounds how long that
// may take: a client can stop one stream and go on with others.
func (st *h2Stream) write(p []byte, end bool) error {
	c := st.c
	for {
		for len(c.out) > h2HighWater && c.err == nil && st.over == nil {
			c.room.Wait()
		}
		if err := st.ended(); err != nil {
			c.mu.Unlock()
			return err
		}
		p = st.fill(p, end)
		c.flush()
		if !end || len(p) > 0 {
			c.handOver()
		}
		if len(p) == 0 {
			return nil
		}
		if !waitFor(st.room, c.g.limits.write) {
			return os.ErrDeadlineExceeded
		}
		c.mu.Lock()
	}
}

// fill appends frames of p, as many as there is room for, and gives the rest.
// It is called with mu held.
func (st *h2Stream) fill(p []byte, end bool) []byte {
	c := st.c
	for {
		n := int(max(0, min(int64(len(p)), int64(h2MaxFrame), st.send, c.send)))
		if n == 0 && (len(p) > 0 || !end) {
			return p
		}
		flags := byte(0)
		if end && n == len(p) {
			flags, st.sentEnd = h2EndStream, true
			st.settle()
		}
		c.reserve(h2FrameHeader + n)
		c.out = append(appendFrame(c.out, n, h2Data, flags, st.id), p[:n]...)
		st.send -= int64(n)
		c.send -= int64(n)
		if p = p[n:]; len(p) == 0 {
			return nil
		}
	}
}

// ended says why nothing can be sent any more. It is called with mu held.
func (st *h2Stream) ended() error {
	if st.c.err != nil {
		return st.c.err
	}
	return st.over
}

// proceed tells a client that asked that it may send its body.
func (st *h2Stream) proceed() error {
	c := st.c
	c.mu.Lock()
	if !st.expect || st.got > 0 || st.recvEnd {
		c.mu.Unlock()
		return nil
	}
	at := len(c.out)
	c.out = appendFrame(c.out, 0, h2Headers, h2EndHeaders, st.id)
	c.appendStatus(100)
	c.closeHead(at)
	c.flush()
	return nil
}

// An httpDate is the time as the Date field has it, made once a second.
type httpDate struct {
	second int64
	text   []byte
}

func (d *httpDate) at(t time.Time) []byte {
	if s := t.Unix(); s != d.second {
		d.second, d.text = s, t.UTC().AppendFormat(d.text[:0], http.TimeFormat)
	}
	return d.text
}

// appendHead packs an answer's head (RFC 7541) without a table of its own:
// that would cost more time than it saves bytes. It is called with mu held.
func (c *h2Conn) appendHead(res *h1.Response, method string) {
	if c.resize {
		c.resize = false
		c.out = append(c.out, 0x20) // section 4.2: our table is empty
	}
	c.appendStatus(res.Status)
	dated := false
	for i := range res.Fields {
		f := &res.Fields[i]
		dated = dated || f.ID == h1.Date
		c.out = appendField(c.out, f.Name, f.Value)
	}
	if !dated {
		c.out = appendIndexed(c.out, packedDate, c.date.at(time.Now()))
	}
	// To HEAD a length of 0 is one that is not known; with 304 some clients
	// wait for what the length promises.
	if !h1.NoBody(nil, res.Status) && (res.Length > 0 || res.Length == 0 && method != http.MethodHead) {
		var digits [20]byte
		c.out = appendIndexed(c.out, packedLength, strconv.AppendInt(digits[:0], res.Length, 10))
	}
}
