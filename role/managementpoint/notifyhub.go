package managementpoint

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/ccm"
	"github.com/opencmg/cmg/site"
)

const (
	stillOnline   = time.Minute      // after a poll ended: as long as the next may take to come
	presenceEvery = 15 * time.Second // how often changes of who is online are written
	forgetAfter   = time.Hour        // devices that went away
	presenceBatch = 1000             // rows in one transaction: others write too
	pushPage      = 1000
)

// errCrowded refuses a poll that there is no room for.
var errCrowded = cmg.Refuse(503, "CMGMP_Too_Many_Waiting", "as many devices wait for notification as may", nil)

// A pushSource is where pushes come from and what devices took is kept. The
// site is one; how it learns of a push by another process is its affair.
type pushSource interface {
	AwaitPushes(ctx context.Context, after uint64) (uint64, error)
	Pushes(ctx context.Context, after uint64, limit int) ([]site.Push, error)
	PrunePushes(ctx context.Context) error
	Presence(ctx context.Context, d cmg.DeviceID) (site.Presence, error)
	NotePresence(ctx context.Context, all []site.Presence) error
}

// A hub knows which devices wait, what they are to be told, and how far each
// has got. All of it can be lost: pushes and what devices have taken are in
// the site's database, and who waits comes again.
type hub struct {
	source pushSource
	run    string // names this run of the management point
	now    func() time.Time

	mu      sync.Mutex
	loaded  uint64                       // every push up to this id was read
	common  []site.Push                  // for all devices, by id
	direct  map[cmg.DeviceID][]site.Push // for one, by id
	clients map[cmg.DeviceID]*notified   // seen in this run
	waiting int                          // of clients
	stats   notificationStats
}

// A notified is a device that has asked to be notified in this run.
type notified struct {
	acked   uint64
	at      int64 // when it was there last, in Unix seconds; while a poll waits it counts from now
	poll    *poll // that waits; nil: none
	online  bool  // as it was written last
	changed bool  // acked is not written yet
}

// A poll is a request that waits. There is one a device: a newer one takes
// the older one's place.
type poll struct {
	wake     chan struct{} // there is something to look at; nil: on is called instead
	on       func()        // returns at once
	sent     uint64        // what was given on this connection before needs no second time; of whoever waits
	replaced bool
}

type notificationStats struct {
	Waiting      int   `json:"waiting"`
	Online       int   `json:"online"`
	Polls        int64 `json:"polls"`
	Pushed       int64 `json:"pushed"`       // tasks given to devices, again ones too
	Acknowledged int64 `json:"acknowledged"` // tasks that devices took
	Declined     int64 `json:"declined"`     // tasks that devices could not take
	Replaced     int64 `json:"replaced"`     // polls whose place a newer one took
	Refused      int64 `json:"refused"`      // polls for which there was no room
	LastPush     int64 `json:"last_push"`    // id
}

func newHub(source pushSource, now func() time.Time) *hub {
	return &hub{source: source, run: cmg.NewGUID(), now: now,
		direct: map[cmg.DeviceID][]site.Push{}, clients: map[cmg.DeviceID]*notified{}}
}

// meet makes d known to the hub with what it took in earlier runs, and notes
// what it takes now.
func (h *hub) meet(ctx context.Context, d cmg.DeviceID, answers []ccm.TaskAnswer) error {
	h.mu.Lock()
	_, known := h.clients[d]
	h.mu.Unlock()
	acked := uint64(0)
	if !known {
		p, err := h.source.Presence(ctx, d)
		if err != nil {
			return err
		}
		acked = p.Acked
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.clients[d]
	if c == nil {
		c = &notified{acked: acked}
		h.clients[d] = c
	}
	c.at = h.now().Unix()
	for _, a := range answers {
		// Tasks are given in the order of their ids, so that one that was
		// taken stands for those before it. Nobody can have taken what has not
		// been made.
		if a.PushID > c.acked && a.PushID <= h.loaded {
			c.acked, c.changed = a.PushID, true
		}
		if h.stats.Acknowledged++; a.Code != ccm.TaskOK {
			h.stats.Declined++
		}
	}
	if left := slices.DeleteFunc(h.direct[d], func(p site.Push) bool { return p.ID <= c.acked }); len(left) == 0 {
		delete(h.direct, d)
	} else {
		h.direct[d] = left
	}
	return nil
}

// enter has w wait for d, which the hub has met, if fewer than most wait.
func (h *hub) enter(d cmg.DeviceID, w *poll, most int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.clients[d]
	if c == nil { // forgotten between two steps
		c = &notified{}
		h.clients[d] = c
	}
	if old := c.poll; old != nil {
		h.stats.Replaced++
		old.replaced = true
		old.rouse()
	} else if h.waiting >= most {
		h.stats.Refused++
		return errCrowded
	} else {
		h.waiting++
	}
	c.poll = w
	h.stats.Polls++
	return nil
}

// leave ends the wait of w.
func (h *hub) leave(d cmg.DeviceID, w *poll) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.clients[d]; c != nil && c.poll == w {
		c.poll, c.at = nil, h.now().Unix()
		h.waiting--
	}
}

// gone notes that a device has said good-bye.
func (h *hub) gone(d cmg.DeviceID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.clients[d]; c != nil {
		c.at = h.now().Add(-stillOnline).Unix()
	}
}

// due gives what d is to be told, in the order of ids, and whether w was
// replaced. Of several pushes to get policy the newest stands for all.
func (h *hub) due(d cmg.DeviceID, w *poll) (tasks []ccm.Task, replaced bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.clients[d]
	if w.replaced || c == nil {
		return nil, w.replaced
	}
	return h.tasksFor(d, max(c.acked, w.sent)), false
}

func (h *hub) tasksFor(d cmg.DeviceID, acked uint64) (tasks []ccm.Task) {
	if len(h.direct[d]) == 0 && (len(h.common) == 0 || h.common[len(h.common)-1].ID <= acked) {
		return nil
	}
	now := h.now()
	var found []site.Push
	policy := site.Push{}
	for _, from := range [][]site.Push{h.common, h.direct[d]} {
		for _, p := range from {
			switch {
			case p.ID <= acked || !now.Before(p.Expires):
			case p.Task == ccm.TaskPolicy:
				if p.ID > policy.ID {
					policy = p
				}
			default:
				found = append(found, p)
			}
		}
	}
	if policy.ID > 0 {
		found = append(found, policy)
	}
	slices.SortFunc(found, func(a, b site.Push) int { return cmp.Compare(a.ID, b.ID) })
	for _, p := range found[:min(len(found), ccm.MaxTasks)] {
		tasks = append(tasks, ccm.Task{PushID: p.ID, GUID: p.GUID, Type: p.Task, Param: p.Param})
	}
	h.stats.Pushed += int64(len(tasks))
	return tasks
}

func (w *poll) rouse() {
	if w.wake == nil {
		w.on()
		return
	}
	select {
	case w.wake <- struct{}{}:
	default: // it has been roused and has not looked yet
	}
}

// follow reads pushes as they are made, until ctx ends.
func (h *hub) follow(ctx context.Context, failed func(error)) {
	for last := uint64(0); ; {
		page, err := h.source.Pushes(ctx, last, pushPage)
		if err == nil {
			failed(nil)
			if len(page) > 0 {
				last = page[len(page)-1].ID
			}
			h.take(page, last)
			if len(page) == pushPage {
				continue
			}
			var newest uint64
			if newest, err = h.source.AwaitPushes(ctx, last); err == nil && newest > last {
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		failed(err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// take keeps new pushes and wakes those who wait for them.
func (h *hub) take(page []site.Push, last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := false
	for _, p := range page {
		if p.Device == "" {
			h.common, all = queued(h.common, p), true
			continue
		}
		h.direct[p.Device] = queued(h.direct[p.Device], p)
		if c := h.clients[p.Device]; c != nil && c.poll != nil {
			c.poll.rouse()
		}
	}
	if h.loaded = last; !all {
		return
	}
	for _, c := range h.clients {
		if c.poll != nil {
			c.poll.rouse()
		}
	}
}

// queued puts p behind those that wait. A push to get policy takes the place
// of an earlier one.
func queued(waiting []site.Push, p site.Push) []site.Push {
	if p.Task == ccm.TaskPolicy {
		waiting = slices.DeleteFunc(waiting, func(o site.Push) bool { return o.Task == ccm.TaskPolicy })
	}
	return append(waiting, p)
}

// record writes who is online and what was taken: what has changed, and with
// all everybody who is online. ended says that nobody is any more.
func (h *hub) record(ctx context.Context, all, ended bool) error {
	rows := h.changes(all, ended)
	var errs []error
	for some := range slices.Chunk(rows, presenceBatch) {
		if err := h.source.NotePresence(ctx, some); err != nil {
			h.unwritten(some)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// changes gives the rows to write, and forgets what nobody needs.
func (h *hub) changes(all, ended bool) (rows []site.Presence) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	h.stats.Online = 0
	for d, c := range h.clients {
		if c.poll != nil {
			c.at = now.Unix()
		}
		at := time.Unix(c.at, 0)
		online := !ended && (c.poll != nil || now.Sub(at) < stillOnline)
		if online {
			h.stats.Online++
		}
		if c.changed || online != c.online || all && online {
			rows = append(rows, site.Presence{Device: d, Acked: c.acked, Online: online, LastOnline: at, Run: h.run})
			c.online, c.changed = online, false
		} else if !online && now.Sub(at) > forgetAfter {
			delete(h.clients, d)
		}
	}
	h.expire(now)
	return rows
}

// unwritten takes back that rows were written.
func (h *hub) unwritten(rows []site.Presence) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range rows {
		if c := h.clients[r.Device]; c != nil {
			c.online, c.changed = !r.Online, true
		}
	}
}

func (h *hub) expire(now time.Time) {
	over := func(p site.Push) bool { return !now.Before(p.Expires) }
	h.common = slices.DeleteFunc(h.common, over)
	for d, ps := range h.direct {
		if ps = slices.DeleteFunc(ps, over); len(ps) == 0 {
			delete(h.direct, d)
		} else {
			h.direct[d] = ps
		}
	}
}

// counts is what /status tells.
func (h *hub) counts() notificationStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stats
	s.Waiting, s.LastPush, s.Online = h.waiting, int64(h.loaded), 0
	for _, c := range h.clients {
		if c.poll != nil || h.now().Sub(time.Unix(c.at, 0)) < stillOnline {
			s.Online++
		}
	}
	return s
}
