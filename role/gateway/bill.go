package gateway

import (
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/h1"
	"github.com/opencmg/cmg/meter"
)

// A bill is what is known of a request for the accounts.
type bill struct {
	shard    meter.Shard // of the connection
	known    *callerRow  // of the connection's last proven request
	endpoint *endpoint
	point    *point     // that the request was last sent to; nil: none
	caller   *callerRow // nil: not proven
	proof    int
	sent     int64 // bytes of the answer
	took     time.Duration
	wait     time.Duration // after which a refused caller may come again
	inward   bool          // exchange.head is this request's
	refusal  *cmg.Refusal  // what it was answered with; nil: no refusal
	evidence []cmg.Fact    // of the refusal
	trace    string        // of a refused request that did not get inward
}

func (b *bill) begin() {
	*b = bill{shard: b.shard, known: b.known}
}

// prove says who is to be charged.
func (x *exchange) prove(c *cmg.Caller) {
	b := &x.bill
	b.caller = x.g.accounts.callers.of(c, b.known, x.started)
	b.known, b.proof = b.caller, proofIndex(c.Proof)
	if w := x.who.Load(); w == nil || w.site != x.site || w.caller != *c {
		x.who.Store(&proven{*c, x.site})
	}
}

// give counts bytes of an answer as they are written.
func (x *exchange) give(n int) {
	x.bill.sent += int64(n)
	x.g.accounts.sent.Add(x.bill.shard, int64(n))
}

// account enters a request that is over into the accounts: in is how many
// bytes of the connection it took.
func (x *exchange) account(in int64) {
	b := &x.bill
	e, slot, class := b.endpoint, noPoint, 0
	if e == nil {
		e = x.g.accounts.none
	}
	if b.point != nil {
		slot = b.point.slot
	}
	if x.begun {
		class = min(x.res.Status/100, classes-1)
	}
	e.tally(b.shard, slot, b.proof, class).Add(1, in, b.sent)
	e.shards[b.shard].latency.Observe(b.took)
	if b.caller != nil {
		x.g.accounts.callers.add(b.caller, in, b.sent)
	}
	x.logRequest(in)
}

// requestText and answerText are how long heads are as HTTP/1.1 text, which
// is what heads of HTTP/2 count as.
func requestText(r *h1.Request) int {
	return len(r.Method) + len(r.Target) + len(" HTTP/1.1\r\n") + 1 + len("Host: \r\n") + len(r.Host) + fieldsText(r.Fields)
}

func answerText(r *h1.Response) int {
	return len("HTTP/1.1 200 \r\n") + len(r.Reason) + fieldsText(r.Fields)
}

func fieldsText(fs []h1.Field) int {
	n := len("\r\n")
	for i := range fs {
		n += len(fs[i].Name) + len(fs[i].Value) + len(": \r\n")
	}
	return n
}

// A meteredSource counts what a connection's client sent. One goroutine at a
// time reads it.
type meteredSource struct {
	src interface{ Read([]byte) (int, error) }
	n   int64
}

func (m *meteredSource) Read(p []byte) (int, error) {
	n, err := m.src.Read(p)
	m.n += int64(n)
	return n, err
}

// taken is how many bytes were read for the request that is over.
func (c *client) taken() int64 {
	n := c.in.n - int64(c.rd.Buffered()) - c.paid
	c.paid += n
	return n
}
