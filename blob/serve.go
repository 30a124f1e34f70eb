package blob

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/opencmg/cmg"
)

// refusalHeader is web.RefusalHeader; this package does not import web.
const refusalHeader = "CMG-Refusal"

// Handler serves the store's signed URLs: GET and HEAD, one range a request,
// conditional requests by ETag and time. Requests for several ranges are
// answered with the whole, as RFC 9110 section 14.2 permits and Azure does.
// It refuses with the codes of the package comment, never lists, and logs
// refusals without the query, which is a secret until it expires. A nil log is
// silent.
//
// The handler moves the connection's write deadline as bytes are taken, and
// leaves it set: a server's WriteTimeout would bound the whole download, so
// none is needed, and no other handler belongs on the same server.
func (d *Disk) Handler(log *slog.Logger) http.Handler {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := d.serve(newPacer(w, d.stall), r)
		if err == nil {
			return
		}
		var no *cmg.Refusal
		if !errors.As(err, &no) {
			no = cmg.Refuse(http.StatusInternalServerError, CodeFailed, "the store cannot read", err)
			log.Error("store failed", "path", r.URL.Path, "err", err)
		} else {
			log.Info("refused", "method", r.Method, "path", r.URL.Path, "code", no.Code, "remote", r.RemoteAddr)
		}
		answer(w, no)
	})
}

// answer writes a refusal as package web does.
func answer(w http.ResponseWriter, no *cmg.Refusal) {
	h := w.Header()
	h.Del("ETag")
	h.Set(refusalHeader, no.Code)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(no.Status)
	io.WriteString(w, no.Code+": "+no.Why+"\n") // a client that is gone needs no answer
}

// serve answers r, or returns why not and has written nothing.
func (d *Disk) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return cmg.Refuse(http.StatusMethodNotAllowed, CodeMethod, "a signed URL is for GET and HEAD", nil)
	}
	name, ok := strings.CutPrefix(r.URL.Path, d.sign.path+"/")
	if !ok || r.URL.RawPath != "" || CheckName(name) != nil { // RawPath: escaped where no name needs it
		return cmg.Refuse(http.StatusBadRequest, CodeInvalidName, "the path is not the name of anything in a store", nil)
	}
	if no := d.sign.check(name, r.URL.RawQuery, d.now()); no != nil {
		return no
	}
	f, i, err := d.open(name)
	if errors.Is(err, cmg.ErrNotFound) {
		return cmg.Refuse(http.StatusNotFound, CodeNotFound, "the store does not hold this name", err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	h := w.Header()
	h.Set("ETag", i.ETag)
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "private, no-transform")
	r, no := oneRange(r, i)
	if no != nil {
		h.Set("Content-Range", "bytes */"+strconv.FormatInt(i.Size, 10))
		return no
	}
	http.ServeContent(w, r, "", i.Modified, f)
	return nil
}

// oneRange leaves in r at most one range that can be served from i, and
// refuses one that cannot.
func oneRange(r *http.Request, i Info) (*http.Request, *cmg.Refusal) {
	rg := r.Header.Get("Range")
	if rg == "" {
		return r, nil
	}
	var drop bool
	switch spec, bytes := strings.CutPrefix(rg, "bytes="); {
	case !bytes || strings.Contains(spec, ",") || len(r.Header["Range"]) > 1:
		drop = true
	case r.Header.Get("If-Range") != "":
		drop = r.Header.Get("If-Range") != i.ETag
	}
	if drop {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		r.Header.Del("If-Range")
		return r, nil
	}
	first, last, dash := strings.Cut(strings.TrimPrefix(rg, "bytes="), "-")
	start, end, ok := rangeNumbers(first, last)
	if !dash || !ok || start >= i.Size || first == "" && (end == 0 || i.Size == 0) {
		return nil, cmg.Refuse(http.StatusRequestedRangeNotSatisfiable, CodeRange, "the range is malformed or begins past the end", nil)
	}
	return r, nil
}

// rangeNumbers reads first-last, first- and -length (start 0, end length).
func rangeNumbers(first, last string) (start, end int64, ok bool) {
	read := func(s string) (int64, bool) {
		n, err := strconv.ParseInt(s, 10, 64)
		return n, err == nil && s[0] != '+' && s[0] != '-'
	}
	ok = first != "" || last != ""
	if first != "" {
		start, ok = read(first)
	}
	if ok && last != "" {
		end, ok = read(last)
		ok = ok && (first == "" || start <= end)
	}
	return start, end, ok
}

// A pacer writes in pieces and gives each piece its own deadline, so that a
// reader that stands still does not hold a file and a connection for ever.
type pacer struct {
	http.ResponseWriter
	ctl   *http.ResponseController
	stall time.Duration
	moved time.Time // when the deadline was
}

// newPacer sets the first deadline: the one of the connection's last request
// may have passed.
func newPacer(w http.ResponseWriter, stall time.Duration) *pacer {
	p := &pacer{ResponseWriter: w, ctl: http.NewResponseController(w), stall: stall}
	p.move()
	return p
}

func (p *pacer) move() {
	// The socket's deadline is real time, whatever clock the store was given.
	if now := time.Now(); now.Sub(p.moved) > p.stall/8 {
		p.moved = now
		p.ctl.SetWriteDeadline(now.Add(p.stall)) // not every writer can
	}
}

// Write implements io.Writer.
func (p *pacer) Write(b []byte) (int, error) {
	p.move()
	return p.ResponseWriter.Write(b)
}

// ReadFrom copies through a pooled buffer: one a request at 500 readers of
// small files is what the collector would otherwise be busy with.
func (p *pacer) ReadFrom(r io.Reader) (int64, error) {
	buf := copyBuffers.Get().(*[64 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(onlyWriter{p}, r, buf[:])
}
