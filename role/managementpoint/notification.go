package managementpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
	"github.com/opencmg/cmg/web"
)

// notification is client notification over HTTP (PROTOCOL 2.4): LogIn and
// LogOut are answered at once, Continue waits until there is something to
// tell. A request says what was taken of the answers before it.
//
// A waiting request is one goroutine, whose stack holds little: what it takes
// to know the device is done in another, and what the request brought is
// dropped.
func (p *Point) notification(w http.ResponseWriter, r *http.Request) error {
	q := new(listening)
	err := p.apart(&r, func(p *Point, r **http.Request) error { return p.readNotification(w, *r, q) })
	if err != nil {
		return err
	}
	slim(r)
	reply, err := p.converse(r.Context(), q)
	if err != nil {
		return notNotified(w, err)
	}
	return answerNotification(w, r, reply)
}

// notNotified tells whom there is no room for to come again later.
func notNotified(w http.ResponseWriter, err error) error {
	var no *cmg.Refusal
	if errors.As(err, &no) && no.Status == http.StatusServiceUnavailable {
		w.Header().Set(web.RetryAfterHeader, web.RetryAfter())
	}
	return err
}

func answerNotification(w http.ResponseWriter, r *http.Request, reply *ccm.NotifyReply) error {
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(notifyWrite)); err != nil {
		return err
	}
	return write(w, r, "text/xml; charset=utf-8", []byte(reply.XML()))
}

// A listening is a request to be notified, and who proved to send it.
type listening struct {
	ccm.NotifyRequest
	device cmg.DeviceID
}

// apart calls f for r in a goroutine of its own: the stack that signatures and
// the database take goes with it, and that of a request that waits stays
// small.
func (p *Point) apart(r **http.Request, f func(*Point, **http.Request) error) (err error) {
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		err = f(p, r)
	}()
	<-done
	if panicked != nil {
		panic(panicked) // where the request's handler takes care of it
	}
	return err
}

// notificationName is the endpoint whose requests wait.
const notificationName = "BGB"

// readNotification reads a request into q, and proves its sender.
func (p *Point) readNotification(w http.ResponseWriter, r *http.Request, q *listening) (err error) {
	if q.device, err = p.listener(r); err != nil {
		return err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("the query cannot be read", fmt.Errorf("%w (%w)", err, cmg.ErrInvalid))
	}
	kind := ""
	for name, values := range query {
		if strings.EqualFold(name, "RequestType") && len(values) == 1 {
			kind = values[0]
		}
	}
	if kind, err = ccm.NotifyType(kind); err != nil {
		return badRequest("RequestType is not LogIn, Continue or LogOut", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, ccm.MaxNotifyRequest))
	if long := (*http.MaxBytesError)(nil); errors.As(err, &long) {
		err = fmt.Errorf("%w (%w)", err, cmg.ErrTooLarge)
	}
	if err != nil {
		return badRequest("the request cannot be read", err)
	}
	if q.NotifyRequest, err = ccm.ReadNotifyRequest(string(body)); err != nil {
		return badRequest("the request cannot be read", err)
	}
	q.Type = kind // the address counts: the field's is where it says so
	if q.Device != "" && q.Device != q.device {
		return errMismatch
	}
	if err := p.hub.meet(r.Context(), q.device, q.Answers); err != nil {
		return err
	}
	q.Answers = nil
	c := http.NewResponseController(w)
	return errors.Join(c.SetReadDeadline(time.Time{}), c.SetWriteDeadline(time.Time{}))
}

// slim drops of a request that is going to wait what nobody reads any more:
// tokens and signatures are most of it.
func slim(r *http.Request) {
	for name := range r.Header {
		if name != web.RequestIDHeader {
			delete(r.Header, name)
		}
	}
}

// listener says which device sends r. A token or a certificate may name it,
// or it registered with the certificate that is shown; else it signs the time
// with its registered key. A signed time may be shown again while it holds: to
// keep every one that a poll used would be a write for each of them.
func (p *Point) listener(r *http.Request) (cmg.DeviceID, error) {
	ctx := r.Context()
	if err := mayUse(ctx, useTalk); err != nil {
		return "", err
	}
	c, _ := cmg.CallerFrom(ctx)
	tokens, sigs := r.Header.Values(ccm.HeaderClientToken), r.Header.Values(ccm.HeaderClientTokenSignature)
	if c.Device != "" && len(tokens)+len(sigs) == 0 {
		_, err := p.device(ctx, c.Device)
		if errors.Is(err, cmg.ErrNotFound) {
			err = errDeviceUnknown(err)
		}
		return c.Device, err
	}
	if len(tokens) != 1 || len(sigs) != 1 {
		return "", errProof("the headers ClientToken and ClientTokenSignature have to be there once", nil)
	}
	id, err := p.signedListener(ctx, tokens[0], sigs[0])
	if err == nil && c.Device != "" && c.Device != id {
		err = errMismatch
	}
	return id, err
}

func errProof(why string, cause error) *cmg.Refusal {
	return cmg.Refuse(http.StatusUnauthorized, "CMGMP_Proof_Invalid", why, cause)
}

// signedListener checks a client token of a registered device.
func (p *Point) signedListener(ctx context.Context, token, sig string) (cmg.DeviceID, error) {
	id, _, err := ccm.ParseClientToken(token)
	if err != nil {
		return "", errProof("ClientToken is not GUID:<guid>;<time>;2", err)
	}
	d, err := p.signingKey(ctx, id)
	if err != nil {
		return "", err
	}
	now, allowance := p.cfg.Now(), p.live.Load().cfg.ClockAllowance
	if _, err := ccm.ReadClientToken(token, sig, d.key, now, allowance); err != nil {
		return "", errProof("the signed time does not hold: another key, or too far from this clock", err).
			With("device", string(id), "clock here", stamp(now), "allowance", allowance.String())
	}
	p.seen.note(id, now)
	return id, nil
}

// converse answers one request of a device that the hub has met.
func (p *Point) converse(ctx context.Context, q *listening) (*ccm.NotifyReply, error) {
	cfg, d := &p.live.Load().cfg, q.device
	reply := &ccm.NotifyReply{Time: p.cfg.Now(), Wait: cfg.NotifyInterval}
	switch q.Type {
	case ccm.NotifyLogOut:
		p.hub.gone(d)
		return reply, nil
	case ccm.NotifyLogIn:
		reply.Tasks, _ = p.hub.due(d, &poll{})
		return reply, nil
	}
	wait := cfg.NotifyInterval
	if q.Wait > 0 {
		wait = min(wait, q.Wait)
	}
	w := &poll{wake: make(chan struct{}, 1)}
	if err := p.hub.enter(d, w, cfg.NotifyClients); err != nil {
		return reply, err
	}
	defer p.hub.leave(d, w)
	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		if reply.Tasks, reply.Replaced = p.hub.due(d, w); len(reply.Tasks) > 0 || reply.Replaced {
			reply.Time = p.cfg.Now()
			return reply, nil
		}
		select {
		case <-w.wake:
		case <-over.C:
			return reply, nil
		case <-p.ending:
			return reply, nil
		case <-ctx.Done():
			return reply, ctx.Err()
		}
	}
}

// tendNotification follows what is pushed and writes down who is online,
// until ctx ends; then once more, when those who waited have gone.
func (p *Point) tendNotification(ctx context.Context) error {
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		p.hub.follow(ctx, func(err error) { p.report("pushes", err) })
	}()
	defer func() { <-followed }()
	write, all, prune := time.NewTicker(presenceEvery), time.NewTicker(site.OnlineWrite), time.NewTicker(pruneEvery)
	defer write.Stop()
	defer all.Stop()
	defer prune.Stop()
	for {
		select {
		case <-write.C:
			p.report("presence", p.hub.record(ctx, false, false))
		case <-all.C:
			p.report("presence", p.hub.record(ctx, true, false))
		case <-prune.C:
			p.report("prune pushes", p.cfg.Site.PrunePushes(ctx))
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
			defer cancel()
			return p.hub.record(last, true, true)
		}
	}
}
