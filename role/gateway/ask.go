package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/web"
)

// askTime bounds how long the site may take for an answer.
const askTime = 12 * time.Second

// ask asks a site something of the gateway's own, down a channel, and gives
// the body of its answer, of at most limit bytes. The connection point takes
// it for one more request; no route leads there, so no client can ask it.
func (g *Gateway) ask(ctx context.Context, site *served, method, target string, body []byte, limit int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	fault := func(err error) error { return fmt.Errorf("ask the site for %s: %w", target, err) }
	var req h1.Request
	if err := req.Begin(method, "site", target, int64(len(body))); err != nil {
		return nil, fault(err)
	}
	req.AddKnown(h1.RequestID, []byte(g.ids.next()))
	head := req.AppendCompact(nil)
	var tried []string
	last := fmt.Errorf("no connection point took it: %w", cmg.ErrUnavailable)
	for {
		pt, s := site.points.pick(tried)
		if s == nil || slices.Contains(tried, pt.name) {
			return nil, fault(last)
		}
		b, err := askOne(ctx, s, head, body, limit)
		var se *channel.StreamError
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil || !errors.As(err, &se) {
			return nil, fault(err)
		}
		last, tried = err, append(tried, pt.name)
	}
}

// askOne asks on one connection.
func askOne(ctx context.Context, s *channel.Session, head, body []byte, limit int) ([]byte, error) {
	first := body[:min(len(body), channel.MaxInline)]
	st, err := s.Open(head, first, len(first) == len(body))
	if err != nil {
		return nil, err
	}
	defer st.Close()
	defer context.AfterFunc(ctx, func() { st.Abort(channel.CodeCancelled, "nobody waits for it") })()
	if rest := body[len(first):]; len(rest) > 0 {
		if err := st.WriteEnd(rest); err != nil && !channel.Stopped(err) {
			return nil, err
		}
	}
	h, err := st.Head()
	if err != nil {
		return nil, err
	}
	var res h1.Response
	if err := res.ParseCompact(h); err != nil {
		return nil, err
	}
	status, code := res.Status, ""
	for _, f := range res.Fields { // the head is gone with the first piece of body
		if string(f.Name) == web.RefusalHeader {
			code = string(f.Value)
		}
	}
	answer, err := readAll(st, limit)
	if err != nil {
		return nil, err
	}
	if status != 200 && status != 204 {
		return nil, fmt.Errorf("it answered %d %s: %w", status, code, cmg.ErrUnavailable)
	}
	return answer, nil
}

func readAll(st *channel.Stream, limit int) ([]byte, error) {
	p, end := st.First()
	b := append([]byte(nil), p...)
	for !end {
		p, err := st.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if b = append(b, p...); len(b) > limit {
			return nil, fmt.Errorf("an answer of more than %d bytes: %w", limit, cmg.ErrTooLarge)
		}
	}
	if len(b) > limit {
		return nil, fmt.Errorf("an answer of more than %d bytes: %w", limit, cmg.ErrTooLarge)
	}
	return b, nil
}
