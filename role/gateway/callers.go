package gateway

import (
	"cmp"
	"hash/maphash"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/meter"
)

// callers counts what each proven caller had. It is bounded: a caller that
// comes while the table is full, and nobody in sight has been away for
// restful, counts as one of the others. The counts of whoever gives up a
// place go to the others too, so that the sum stays what it was.
type callers struct {
	log    *slog.Logger
	seed   maphash.Seed
	per    int // rows a shard
	shards [callerShards]callerShard
	others callerRow
	full   atomic.Int64 // look-ups that found no place
}

const (
	callerShards = 64
	restful      = time.Hour
	looks        = 8 // rows looked at for one that may go
)

type callerShard struct {
	mu   sync.Mutex
	rows map[string]*callerRow
}

// A callerRow counts one caller's requests.
type callerRow struct {
	key    string
	tally  meter.Tally
	bucket tokenBucket
	inside atomic.Int64 // requests inward, where that is limited
	seen   atomic.Int64 // Unix seconds
	gone   atomic.Bool  // has given up its place
}

func newCallers(log *slog.Logger, limit int) *callers {
	cs := &callers{log: log, seed: maphash.MakeSeed(), per: max(1, limit/callerShards), others: callerRow{key: "(other)"}}
	for i := range cs.shards {
		cs.shards[i].rows = map[string]*callerRow{}
	}
	return cs
}

// callerKey names a caller by the steadiest thing that was proven of it.
func callerKey(c *cmg.Caller) string {
	switch {
	case c.Device != "":
		return string(c.Device)
	case c.Thumbprint != "":
		return c.Thumbprint
	case c.Account != "":
		return c.Account
	}
	return c.TokenID
}

// of finds the row of a caller. last is the one that the connection had
// before: mostly the same, which then costs no lock.
func (cs *callers) of(c *cmg.Caller, last *callerRow, now time.Time) *callerRow {
	key := callerKey(c)
	if last != nil && last.key == key && !last.gone.Load() {
		last.see(now)
		return last
	}
	s := &cs.shards[maphash.String(cs.seed, key)%callerShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.rows[key]
	if row == nil {
		if len(s.rows) >= cs.per && !cs.makePlace(s, now) {
			if cs.full.Add(1) == 1 {
				cs.log.Warn("the table of callers is full: newcomers are counted together", "rows", cs.per*callerShards)
			}
			return &cs.others
		}
		row = &callerRow{key: key}
		s.rows[key] = row
	}
	row.see(now)
	return row
}

func (r *callerRow) see(now time.Time) {
	if s := now.Unix(); r.seen.Load() != s {
		r.seen.Store(s)
	}
}

// makePlace takes out a row that was not seen for long, if one of a few is.
// It is called with the shard's lock held.
func (cs *callers) makePlace(s *callerShard, now time.Time) bool {
	n := 0
	for key, row := range s.rows {
		if now.Unix()-row.seen.Load() > int64(restful/time.Second) {
			delete(s.rows, key)
			row.gone.Store(true)
			cs.fold(row)
			return true
		}
		if n++; n == looks {
			break
		}
	}
	return false
}

func (cs *callers) fold(row *callerRow) {
	t := row.tally.Take()
	cs.others.tally.Add(t.Requests, t.In, t.Out)
}

// add counts a request. A row that gave up its place meanwhile hands it on:
// either this or makePlace sees what was added last.
func (cs *callers) add(row *callerRow, in, out int64) {
	row.tally.Add(1, in, out)
	if row.gone.Load() {
		cs.fold(row)
	}
}

// A callerCount is one caller's traffic.
type callerCount struct {
	Caller   string `json:"caller"`
	Requests int64  `json:"requests"`
	In       int64  `json:"request_bytes"`
	Out      int64  `json:"response_bytes"`
}

// list gives every caller's traffic, the most answered bytes first; the
// others last, if there are any.
func (cs *callers) list() []callerCount {
	var all []callerCount
	count := func(r *callerRow) callerCount {
		t := r.tally.Load()
		return callerCount{r.key, t.Requests, t.In, t.Out}
	}
	for i := range cs.shards {
		s := &cs.shards[i]
		s.mu.Lock()
		for _, r := range s.rows {
			all = append(all, count(r))
		}
		s.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b callerCount) int { return cmp.Or(cmp.Compare(b.Out, a.Out), cmp.Compare(a.Caller, b.Caller)) })
	if o := count(&cs.others); o.Requests > 0 {
		all = append(all, o)
	}
	return all
}

// rows is how many callers have a row of their own.
func (cs *callers) rows() (n int) {
	for i := range cs.shards {
		cs.shards[i].mu.Lock()
		n += len(cs.shards[i].rows)
		cs.shards[i].mu.Unlock()
	}
	return n
}

// most is how many callers the status page names.
const most = 50

// status tells the status page who had most.
func (cs *callers) status() any {
	all := cs.list()
	return map[string]any{"rows": cs.rows(), "limit": cs.per * callerShards, "without_row": cs.full.Load(), "others": cs.others.tally.Load(), "most": all[:min(len(all), most)]}
}
