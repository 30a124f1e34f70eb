package gateway

import (
	"fmt"
	"hash/maphash"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
)

// AddressLimits bound what comes from one address, or from one /64 of IPv6,
// whoever it is. They are off unless set: many devices may stand behind one
// address, and behind a load balancer that hides addresses all do.
type AddressLimits struct {
	Rate           float64 `json:"rate"`            // requests a second in the long run; 0: no limit
	Burst          int     `json:"burst"`           // requests at once; 0: ten seconds of rate, at least 1
	HandshakeRate  float64 `json:"handshake_rate"`  // connections a second in the long run; 0: no limit
	HandshakeBurst int     `json:"handshake_burst"` // connections at once; 0: ten seconds of handshake_rate, at least 1
}

func (c AddressLimits) withDefaults() (AddressLimits, error) {
	requests, err := CallerLimits{Rate: c.Rate, Burst: c.Burst}.withDefaults()
	if err == nil {
		var hands CallerLimits
		hands, err = CallerLimits{Rate: c.HandshakeRate, Burst: c.HandshakeBurst}.withDefaults()
		c.HandshakeBurst = hands.Burst
	}
	if err != nil {
		return c, fmt.Errorf("address_limits: wants rates from 0 to 1,000,000 and bursts of 0 or more: %w", cmg.ErrInvalid)
	}
	c.Burst = requests.Burst
	return c, nil
}

// addresses are the buckets of all addresses there can be, in a table of one
// size without a lock. An address has two buckets, which it may share with
// others: it is refused only where both are empty, so that one flood takes
// hardly anybody else along.
type addresses struct {
	limits   CallerLimits
	seed     maphash.Seed
	buckets  []tokenBucket
	refusals atomic.Int64
}

const addressBuckets = 1 << 16 // of 8 bytes

// newAddresses makes the table; nil: there is no limit.
func newAddresses(c CallerLimits) *addresses {
	if c.Rate == 0 {
		return nil
	}
	return &addresses{limits: c, seed: maphash.MakeSeed(), buckets: make([]tokenBucket, addressBuckets)}
}

// take takes a token for an address, or says how long to wait for one.
func (a *addresses) take(host string, now time.Time) (wait time.Duration) {
	if a == nil {
		return 0
	}
	h := maphash.String(a.seed, network(host))
	one := a.buckets[h%addressBuckets].take(a.limits, now)
	two := a.buckets[(h>>32)%addressBuckets].take(a.limits, now)
	if wait = min(one, two); wait > 0 {
		a.refusals.Add(1)
	}
	return wait
}

func (a *addresses) refused() int64 {
	if a == nil {
		return 0
	}
	return a.refusals.Load()
}

// network gives what addresses of one network have in common: of IPv6 the
// first 64 bits, which one client may have to itself.
func network(host string) string {
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Unmap().Is4() {
		return host
	}
	p, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return host
	}
	return p.Addr().String()
}

// limitAddress refuses a request from an address that sends too many, before
// anything is asked of its proof.
func (x *exchange) limitAddress(a *addresses) error {
	wait := a.take(x.remote, x.started)
	if wait == 0 {
		return nil
	}
	x.bill.wait = wait
	return cmg.Refuse(429, "CMGService_Address_Limited", "this address has sent more requests than it may for now", nil)
}

// mayGreet says whether a new connection may make its handshake.
func (g *Gateway) mayGreet(c net.Conn) bool {
	a := g.live.Load().greetings
	if a == nil {
		return true
	}
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	return a.take(host, g.now()) == 0
}
