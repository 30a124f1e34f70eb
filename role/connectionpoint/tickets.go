package connectionpoint

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/web"
)

const (
	ticketsPath  = "/cmg/v1/tickets"
	ticketsEvery = 2 * time.Minute
	maxTickets   = 4 << 10
)

// tickets carries the secrets of session tickets from the site to every
// gateway. They are in memory only.
type tickets struct {
	doc atomic.Pointer[[]byte] // nil: none is known
}

// follow asks the site for the secrets until ctx ends, and sends those that
// are new on every channel.
func (t *tickets) follow(ctx context.Context, p *Point) {
	if !strings.HasPrefix(p.cfg.Map, "https://") {
		return // there is nobody to ask
	}
	client := newSiteClient(p)
	defer client.close()
	failing := false
	for {
		doc, err := readTickets(ctx, client.now(), p.cfg.Map)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			p.log.Warn("the secrets of session tickets cannot be had: clients resume at one instance only", "err", err)
		case err == nil:
			if old := t.doc.Swap(&doc); old == nil || string(*old) != string(doc) {
				for _, l := range p.fleet.links() {
					if h := l.cur.Load(); h != nil {
						t.send(h)
					}
				}
			}
		}
		failing = err != nil
		every := ticketsEvery
		if failing {
			every = 5 * time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every*4/5 + rand.N(every*2/5)):
		}
	}
}

// send gives a gateway what is known.
func (t *tickets) send(h *held) {
	doc := t.doc.Load()
	if doc == nil {
		return
	}
	if err := h.s.SendKeys(*doc); err != nil {
		h.l.p.log.Debug("send the secrets of session tickets", "gateway", h.l.place.label, "err", err)
	}
}

func readTickets(ctx context.Context, client *http.Client, site string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", strings.TrimSuffix(site, "/")+ticketsPath, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := web.ReadAnswer(resp); err != nil {
		return nil, fmt.Errorf("ask %s: %w", site, err)
	}
	doc, err := io.ReadAll(io.LimitReader(resp.Body, maxTickets+1))
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", site, err)
	}
	var in cmg.TicketSecrets
	if len(doc) > maxTickets || json.Unmarshal(doc, &in) != nil {
		return nil, fmt.Errorf("the answer of %s is not what it should be: %w", site, cmg.ErrInvalid)
	}
	if err := in.Check(); err != nil {
		return nil, fmt.Errorf("ask %s: %w", site, err)
	}
	return doc, nil
}
