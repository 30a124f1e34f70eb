package connectionpoint

import (
	"strings"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/channel"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/meter"
)

// A job is a stream, and the place in the configuration of the gateway that
// opened it.
type job struct {
	st    *channel.Stream
	place int
}

// A bill is what is known of a relay's request for the report of traffic.
type bill struct {
	shard    meter.Shard
	begun    time.Time
	row      *row // nil: nothing is mapped there
	bearer   bool
	status   int // of the answer; 0: none
	sent     int64
	received int64
}

// charge begins the bill of a request whose row is known.
func (r *relay) charge(to *row) {
	r.row = to
	to.begin()
	token := r.req.Get(h1.Authorization)
	// Where the token stays at the gateway, the published prefix tells.
	r.bearer = len(token) > 7 && strings.EqualFold(string(token[:7]), "bearer ") ||
		len(r.req.Path) > len(cmg.PrefixServerAuth) && strings.EqualFold(string(r.req.Path[:len(cmg.PrefixServerAuth)]), cmg.PrefixServerAuth)
}

// count takes over what a connection counted. Nobody reads or writes it.
func (r *relay) count(c *conn) {
	r.sent, r.received = r.sent+c.sent, r.received+c.got
	c.sent, c.got = 0, 0
}

// account enters a request that is over.
func (r *relay) account(err error) {
	switch {
	case r.row != nil:
		r.row.end(r.shard, r.sent, r.received, r.bearer, err != nil || r.status >= 500, time.Since(r.begun))
	case err != nil:
		r.p.unmapped.Add(1)
	}
	r.logRequest(err)
	r.remember(err)
	r.bill = bill{shard: r.shard}
}
