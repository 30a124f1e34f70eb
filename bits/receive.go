package bits

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/opencmg/cmg"
)

// errDeliver marks what the taker of whole files said.
var errDeliver = errors.New("deliver upload")

// fragment takes the bytes of one fragment that are not here yet. The caller
// has the session's turn.
func (s *Server) fragment(w http.ResponseWriter, r *http.Request, u *session, at Range, pace *pace) error {
	switch {
	case u.Closed:
		return badPacket("the session is closed", nil)
	case at.Total > s.cfg.MaxSize:
		return refuse(ResultTooLarge, http.StatusInternalServerError, "CMGMP_Upload_Too_Large", "the file is larger than any may be",
			fmt.Errorf("%d bytes, at most %d: %w", at.Total, s.cfg.MaxSize, cmg.ErrTooLarge))
	case u.Total != 0 && u.Total != at.Total:
		return badPacket("the file's size has changed", fmt.Errorf("%d bytes, then %d", u.Total, at.Total))
	case at.Len() > s.cfg.MaxFragment:
		return refuse(ResultNone, http.StatusRequestEntityTooLarge, "CMGMP_Upload_Fragment_Large", "a fragment may be smaller than that: send less at once",
			fmt.Errorf("%d bytes, at most %d", at.Len(), s.cfg.MaxFragment))
	case at.First > u.Received:
		w.Header().Set(HeaderReceived, strconv.FormatInt(u.Received, 10))
		return refuse(ResultNone, http.StatusRequestedRangeNotSatisfiable, "CMGMP_Upload_Gap", "bytes before this fragment are missing", nil)
	}
	if u.Total == 0 {
		if err := s.admit(u, 0, at.Total); err != nil {
			return err
		}
		s.mu.Lock()
		u.Total = at.Total // from here on forget and settle give it back
		s.mu.Unlock()
	}
	if err := s.receive(r.Body, u, at, pace); err != nil {
		return err
	}
	w.Header().Set(HeaderReceived, strconv.FormatInt(u.Received, 10))
	return ack(w, u)
}

var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// receive stores what is new in body. Where body breaks off, what came is
// kept.
func (s *Server) receive(body io.Reader, u *session, at Range, pace *pace) error {
	body = pace.reader(body)
	if skip := u.Received - at.First; skip > 0 {
		if _, err := io.CopyN(io.Discard, body, min(skip, at.Len())); err != nil {
			return brokenOff(err)
		}
		if skip >= at.Len() {
			return nil
		}
	}
	f, err := os.OpenFile(s.dataFile(u.ID), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return diskError(err)
	}
	was := u.Received
	err = store(f, body, u, at.Last+1)
	if u.Received > was {
		if e := f.Sync(); e != nil {
			// Nobody knows what is on the disk now. The record still says how
			// far it was good, so the session is taken up from there.
			return errors.Join(diskError(e), f.Close(), s.restore(u))
		}
	}
	if e := f.Close(); err == nil {
		err = diskError(e)
	}
	if u.Received == was {
		return err
	}
	u.Touched = s.cfg.Now().UTC()
	if e := s.save(u); e != nil {
		return errors.Join(e, s.restore(u))
	}
	return err
}

// store appends body's bytes to the file until it reaches end.
func store(f *os.File, body io.Reader, u *session, end int64) error {
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	for u.Received < end {
		n, err := io.ReadFull(body, buf[:min(int64(len(buf)), end-u.Received)])
		if n > 0 {
			if _, err := f.WriteAt(buf[:n], u.Received); err != nil {
				return diskError(err)
			}
			u.hash.Write(buf[:n])
			u.Received += int64(n)
		}
		if err != nil {
			return brokenOff(err)
		}
	}
	return nil
}

// restore goes back to what the record says.
func (s *Server) restore(u *session) error {
	old, err := s.read(u.ID)
	if err != nil {
		s.forget(u)
		return errors.Join(err, s.drop(u))
	}
	u.Received, u.Touched, u.hash = old.Received, old.Touched, old.hash
	return nil
}

// brokenOff is for a body that ended too early, or came to a halt: mostly
// nobody hears of it.
func brokenOff(err error) error {
	return refuse(ResultNone, http.StatusRequestTimeout, "CMGMP_Upload_Broken_Off", "the fragment broke off: send it again", err)
}

// close hands the whole file on. The answer says that it is where it stays.
func (s *Server) close(ctx context.Context, w http.ResponseWriter, u *session) error {
	if u.Closed {
		return ack(w, u) // told again
	}
	if u.Received < u.Total {
		return badPacket("the file is not whole yet", fmt.Errorf("%d of %d bytes", u.Received, u.Total))
	}
	if u.Total == 0 { // a file without bytes has no fragments
		if err := writeDurable(s.dataFile(u.ID), nil); err != nil {
			return diskError(err)
		}
	}
	up := Upload{ID: u.ID, Owner: u.Owner, Name: u.Name, Size: u.Received, Path: s.dataFile(u.ID)}
	u.hash.Sum(up.SHA256[:0])
	// A client that goes away now must not leave half of this undone.
	if err := s.cfg.Deliver(context.WithoutCancel(ctx), up); err != nil {
		return fmt.Errorf("%w %s: %w", errDeliver, u.ID, diskError(err))
	}
	s.settle(u)
	u.Touched = s.cfg.Now().UTC()
	if err := s.save(u); err != nil {
		return err
	}
	if err := os.Remove(up.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if old := s.crowded(u.Owner); old != nil && old.tryTake() {
		s.forget(old)
		err := s.drop(old)
		old.give()
		if err != nil {
			return err
		}
	}
	s.cfg.Log.Info("upload is whole", "upload", u.ID, "owner", u.Owner, "name", u.Name, "bytes", up.Size, "sha256", up.SHA256)
	return ack(w, u)
}

// A pace gives a client a stall's time for every piece, so that a slow one is
// served and a silent one is not.
type pace struct {
	ctl   *http.ResponseController
	moved time.Time

	mu     sync.Mutex
	cutOff bool
}

func newPace(w http.ResponseWriter) *pace {
	p := &pace{ctl: http.NewResponseController(w)}
	p.move()
	return p
}

// move sets both deadlines: the answer is due after the body. Sockets go by
// real time, whatever clock the server was given.
func (p *pace) move() {
	now := time.Now()
	if now.Sub(p.moved) < stall/8 {
		return
	}
	p.moved = now
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cutOff {
		return
	}
	p.ctl.SetReadDeadline(now.Add(stall)) // not every connection can
	p.ctl.SetWriteDeadline(now.Add(2 * stall))
}

// cut ends the reading: somebody else needs the session. It may be called at
// any time, while the request is being served.
func (p *pace) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cutOff = true
	p.ctl.SetReadDeadline(time.Unix(1, 0))
}

func (p *pace) reader(r io.Reader) io.Reader { return pacedReader{r, p} }

type pacedReader struct {
	r io.Reader
	p *pace
}

func (r pacedReader) Read(b []byte) (int, error) {
	r.p.move()
	return r.r.Read(b)
}
