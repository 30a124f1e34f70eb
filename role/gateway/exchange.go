package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/web"
)

// An exchange is one request and its answer, whatever protocol the client
// speaks: HTTP/1.1 and HTTP/2 meet here.
type exchange struct {
	g        *Gateway
	req      *h1.Request // valid until the body is read
	body     io.Reader   // nil if there is none
	evidence auth.Evidence
	remote   string // the client's address without its port
	out      answerer

	id       string
	idBytes  []byte // id; its memory is used again
	address  []byte // remote
	signed   string // the caller, as told inward last time
	told     []byte // signed
	kept     keptProof
	method   string
	path     []byte     // for the log, once req is no more
	site     *served    // whose request it is
	route    *published // of the site
	shown    shownSite
	caller   cmg.Caller
	judged   *edge  // that the caller was proven by
	head     []byte // compact, as sent inward; its memory is used again
	first    []byte // the body, or its first piece, kept for a second try
	whole    bool   // first is the whole body
	streamed bool   // more was read of the body than first holds
	begun    bool   // the answer's head was written: nothing can be taken back
	res      h1.Response
	started  time.Time
	bill     bill
	upgrade  []byte     // protocols that the client offers to go on with; its memory is used again
	share    share      // of its connection point's load
	inside   *callerRow // one of whose places it holds; nil: they are not limited

	gone     atomic.Bool            // see abandon
	who      atomic.Pointer[proven] // last, for endBlocked
	attempts attempts
	stream   atomic.Pointer[channel.Stream]
}

// An answerer writes an answer to one client.
type answerer interface {
	// answer writes a head with a first piece of body; end says that this is
	// the whole of it.
	answer(r *h1.Response, first []byte, end bool) error
	// piece writes more of the body; end as above.
	piece(p []byte, end bool) error
	// proceed tells a client that asked that it may send its body.
	proceed() error
	// watch has reads of the body end once st wants no more of it: a client
	// that waits for its answer sends no more. The function it gives ends it.
	watch(st *channel.Stream) (unwatch func())
	// wait blocks until st has something to say. Its error is that the
	// client has gone.
	// errParked leaves what is to come to resume.
	wait(ctx context.Context, st *channel.Stream) error
}

// errGone says that the client cannot be answered any more.
var errGone = errors.New("the client has gone")

// run answers the request. An error means that the connection to the client
// is of no more use; but for errParked, which means that the request waits:
// see resume.
func (x *exchange) run(ctx context.Context) error {
	x.begin(methodName(x.req.Method), x.req.Path)
	x.g.counts.inFlight.Add(1)
	return x.settle(x.pass(ctx))
}

// settle ends a request, unless it is parked.
func (x *exchange) settle(err error) error {
	if err == errParked {
		return err
	}
	g := x.g
	defer g.counts.inFlight.Add(-1)
	x.bill.took = g.now().Sub(x.started)
	if err == nil {
		return nil
	}
	if x.begun || errors.Is(err, errGone) {
		g.counts.aborted.Add(1)
		g.log.Debug("aborted", "request", x.id, "err", err)
		return errors.Join(errGone, err)
	}
	return x.refuse(err)
}

// begin is what all requests begin with, those too whose head is bad.
func (x *exchange) begin(method string, path []byte) {
	x.started = x.g.now()
	x.id, x.method, x.site, x.route, x.begun, x.streamed = x.g.ids.next(), method, nil, nil, false, false
	x.path = append(x.path[:0], path...)
	x.upgrade = x.upgrade[:0]
	x.bill.begin()
	x.g.counts.requests.Add(1)
}

// abandon ends what goes on for a client that has gone, or may stay no
// longer. Any goroutine may call it.
func (x *exchange) abandon() {
	x.gone.Store(true)
	if st := x.stream.Load(); st != nil {
		st.Abort(channel.CodeCancelled, "the client has gone")
	}
}

// forget gives back what a large request took, while no request is there.
func (x *exchange) forget() {
	x.first, x.head, x.path = small(x.first), small(x.head), small(x.path)
}

// pass decides what becomes of the request: every refusal is an error.
func (x *exchange) pass(ctx context.Context) error {
	if x.req.Count(h1.Authorization) > 1 { // which of them counts is not for two servers to decide
		return cmg.Refuse(400, "CMGService_Bad_Request", "more than one Authorization", nil)
	}
	if a := x.g.live.Load().addresses; a != nil {
		if err := x.limitAddress(a); err != nil {
			return err
		}
	}
	if bytes.EqualFold(x.req.Path, manifestPath) {
		return x.manifest(ctx)
	}
	if err := x.judge(ctx); err != nil {
		if ok, answered := x.bootstrap(ctx, err); ok {
			return answered
		}
		return err
	}
	x.prove(&x.caller)
	if x.site.edge.Load() != x.judged { // who was shut out meanwhile was looked for already: see endBlocked
		return x.pass(ctx)
	}
	if err := x.limit(); err != nil {
		return err
	}
	if err := x.compact(); err != nil {
		return err
	}
	x.bill.inward = true
	return x.admit(ctx)
}

func (x *exchange) tooLong(cause error) error {
	return cmg.Refuse(413, "CMGService_Content_Too_Large", "this path takes at most "+strconv.FormatInt(x.route.MaxBody, 10)+" bytes", cause)
}

var (
	https        = []byte("https")
	manifestPath = []byte(cmg.ManifestPath)
)

// methods holds the usual ones as strings.
var methods = map[string]string{"GET": "GET", "HEAD": "HEAD", "POST": "POST", "PUT": "PUT", "DELETE": "DELETE", "OPTIONS": "OPTIONS",
	"PROPFIND": "PROPFIND", "CCM_POST": "CCM_POST", "BITS_POST": "BITS_POST"}

func methodName(b []byte) string {
	if m, ok := methods[string(b)]; ok {
		return m
	}
	return string(b)
}

func allowed(methods []string, m string) bool {
	for _, a := range methods {
		if a == m {
			return true
		}
	}
	return false
}

// compact writes the head that goes inward: the client's, and behind it what
// this gateway has to say.
func (x *exchange) compact() error {
	if err := x.sign(); err != nil {
		return err
	}
	r := x.req
	if x.caller.Proof != cmg.ProofCertificate && !x.route.PassToken {
		// A server that is none of the site's is not to hold its tokens.
		r.Drop(h1.Authorization)
	}
	if x.address == nil {
		x.address = []byte(x.remote)
	}
	x.idBytes = append(x.idBytes[:0], x.id...)
	r.AddKnown(h1.Caller, x.told)
	r.AddKnown(h1.RequestID, x.idBytes)
	r.AddKnown(h1.XForwardedFor, x.address)
	r.AddKnown(h1.XForwardedHost, r.Host)
	r.AddKnown(h1.XForwardedProto, https)
	x.head = r.AppendCompact(x.head[:0])
	x.upgrade = append(x.upgrade[:0], r.Upgrade...)
	return nil
}

// refuse answers an error. The reason stands in the status line, where the
// field's clients read it, in a header, for HTTP/2 has no such line, and in
// the body.
func (x *exchange) refuse(err error) error {
	var r *cmg.Refusal
	if !errors.As(err, &r) {
		r = cmg.Refuse(500, "CMGService_Internal_Error", "the gateway has a fault", err)
	}
	x.g.counts.refused(r.Code)
	if x.bill.refusal = r; !x.bill.inward {
		x.bill.trace = traceOf(x.req.Fields)
	}
	x.remember(r)
	x.res.Reset()
	fillRefusal(&x.res, r, x.id)
	if r.Status == 429 {
		x.res.Add("Retry-After", strconv.AppendInt(nil, int64(x.bill.wait/time.Second)+1, 10))
	}
	if r.Status == 405 && x.route != nil {
		x.res.Add("Allow", []byte(strings.Join(x.route.Methods, ", ")))
	}
	text := []byte(r.Code + ": " + r.Why + "\nrequest " + x.id + "\n")
	x.res.Length = int64(len(text))
	if x.method == "HEAD" {
		text = nil
	}
	x.begun = true
	return x.out.answer(&x.res, text, true)
}

func fillRefusal(res *h1.Response, r *cmg.Refusal, id string) {
	res.Status, res.Reason = r.Status, []byte(r.Code)
	res.Add("Content-Type", []byte("text/plain; charset=utf-8"))
	res.Add("Cache-Control", []byte("no-store"))
	res.Add(web.RefusalHeader, []byte(r.Code))
	if id != "" {
		res.Add(web.RequestIDHeader, []byte(id))
	}
	switch r.Status {
	case 401:
		res.Add("WWW-Authenticate", []byte("Bearer"))
	case 503:
		after := web.RetryAfter()
		switch r.Code {
		case "CMGService_Budget_Exhausted":
			after = "3600"
		case "CMGService_Not_Ready": // an instance that begins needs seconds
			after = "5"
		}
		res.Add("Retry-After", []byte(after))
	}
}
