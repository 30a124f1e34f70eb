// Package managementpoint registers devices and hands out policy, tokens and
// content locations to them.
//
// Who is asking: a request that a connection point passed on (its TLS
// certificate says so) carries the header CMG-Caller, in which a gateway
// signed what it had proven. The header is believed from nobody else: from
// any other peer it is refused. A request without it comes straight from the
// inside and has no caller. What a caller may do:
//
//   - a registration token registers a device and nothing else;
//   - a device token is exchanged at /CCM_STS for session tokens, nothing else:
//     with proof of the device's key, also for a while after its end, and from
//     a third of its life on for a new device token as well;
//   - a session token does everything but that exchange;
//   - an Entra token registers a device, and is exchanged for session tokens
//     by whoever holds the registered key;
//   - a client certificate does everything;
//   - no caller: the lists of .sms_aut, policies that are not secret, and
//     messages that the registered key has signed.
//
// Where the proof names a device, a message's SourceID has to be that device.
// Policy requests, discovery and state need the signature of the registered
// key whatever the proof; a location request needs it unless the proof names
// the device. A signature that is there and wrong is always refused.
//
// Approval at registration: a certificate approves; a registration token
// approves, because an administrator handed it out, and so does an Entra token
// of a tenant that is let in; any other token approves where Config.Approval
// is automatic. By the endpoint for clients without a certificate nobody is
// approved. An approval never falls by registering again, and the same signing
// certificate keeps its id. A device changes its key with a client certificate,
// or by a message that its old key has signed. Approved devices only get
// content tokens. Secret policies are named to approved devices only, and their
// bodies are encrypted to the device that signs for them or is the caller.
//
// Who wants to be notified (/BGB) is named by the proof, or signs the time with
// the registered key.
//
// Uploads at /CCM_Incoming need a caller whose proof names a device, or the
// signed CCMClient headers.
//
// Refusals, beside those of packages auth (CMGSite_Invalid_Caller…) and bits
// (CMGMP_Upload_…):
//
//	400 CMGMP_Bad_Request                  the request or message cannot be understood
//	401 CMGMP_Caller_Required              nothing proves the caller here
//	401 CMGMP_Caller_Expired               the caller's certificate or token has ended
//	401 CMGMP_Device_Unknown               the device is not registered here (any more): register again
//	401 CMGMP_Proof_Invalid                ClientToken or CCMClient… headers: bad signature or time, or unknown key
//	401 CMGMP_Proof_Required               no token, no device in the certificate, no signed headers
//	401 CMGMP_Signature_Invalid            the message's signature does not hold
//	401 CMGMP_Signature_Required           the message has to be signed
//	403 CMGMP_Caller_Not_Trusted           CMG-Caller from somebody who is no connection point
//	403 CMGMP_Chain_Not_Trusted            a gateway asked about a chain under no anchor
//	403 CMGMP_Connection_Point_Required    only a connection point may have this
//	403 CMGMP_Depth_Infinite               this folder is listed with Depth 0 or 1 only
//	403 CMGMP_Device_Blocked               an administrator blocked the device
//	403 CMGMP_Device_Not_Approved          the device waits for approval
//	403 CMGMP_Listing_Off                  folders of packages are not listed as HTML
//	403 CMGMP_Proof_Replayed               the signed time was used before
//	403 CMGMP_Registration_Token_…         Unknown, Blocked, Not_Yet_Valid, Expired, Used_Up, Wrong_Address
//	403 CMGMP_Sender_Mismatch              the message names another device than the proof
//	403 CMGMP_Token_Blocked                an administrator blocked the token
//	403 CMGMP_Token_Kind                   this kind of token is not for this
//	403 CMGMP_Uploads_Kept                 as much is kept of this device as may be
//	404 CMGMP_Content_Unknown              no such version of a package, or file in it
//	401 CMGMP_Windows_Login_Off            the endpoints for Windows logins take none
//	404 CMGMP_Endpoint_Unknown             no such message endpoint
//	404 CMGMP_Path_Unknown                 no such path or verb
//	404 CMGMP_Policy_Unknown               no such policy in force with that digest
//	404 CMGMP_Revocation_List_Unknown      no list has that digest any more
//	404 CMGMP_Tenant_Unknown               no such tenant
//	405 CMGMP_Method_Not_Allowed           another method is needed
//	409 CMGMP_Device_Conflict              the id or the certificate belongs to another device
//	413 CMGMP_Too_Large                    the message is over a limit
//	501 CMGMP_Uploads_Off                  no uploads are taken here
//	503 CMGMP_Too_Many_Waiting             as many devices wait for notification as may
//	503 CMGMP_Too_Many_Pending             too many devices that nothing proves wait for approval
//	503 CMGMP_No_Gateway                   no gateway service is known to serve content
package managementpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencmg/cmg"
	"github.com/opencmg/cmg/auth"
	"github.com/opencmg/cmg/bits"
	"github.com/opencmg/cmg/distribution"
	"github.com/opencmg/cmg/web"
)

const (
	grace      = 10 * time.Second // for requests under way when Run is told to end
	seenEvery  = 30 * time.Second // how often devices' last contact is written
	pruneEvery = time.Hour
	keepTokens = 30 * 24 * time.Hour // records of tokens, after they expired
	// keepDeviceTokens is longer than any of them can be renewed.
	keepDeviceTokens = auth.MaxGrace + 24*time.Hour
)

// A Point is a management point. Run it once.
type Point struct {
	cfg     Config // as it was at the start; of live what may change
	live    atomic.Pointer[snapshot]
	reload  *web.Reloader
	callers *auth.CallerReader
	health  *web.Health
	fetcher *auth.Fetcher
	asked   asked
	uploads *bits.Server // nil where none are taken

	packages *distribution.View // nil where none are shown

	maps  maps
	seen  lastSeen
	conns connections
	count counters
	hub   *hub

	refusals *web.RefusalRing
	headKept int64 // number of the audit log's entry that upkeep kept last

	ending chan struct{} // closed when Run is told to end
}

// New reads the files c names, checks them against one another and returns a
// Point that has started nothing.
func New(c Config) (*Point, error) {
	s, err := build(c)
	if err != nil {
		return nil, err
	}
	p := &Point{cfg: s.cfg, health: c.Health, ending: make(chan struct{}), refusals: web.NewRefusalRing(true)}
	if p.health == nil {
		p.health = web.NewHealth(string(cmg.RoleManagementPoint))
	}
	p.live.Store(s)
	p.cfg.Site.Actor = s.id.Name().String()
	p.callers = auth.NewCallerReader(p.gatewayCertificate)
	p.reload = web.NewReloader(p.health, p.cfg.Log, c.Again, func() Config { return p.live.Load().given }, p.install, p.files)
	if p.fetcher, err = auth.NewFetcher(nil); err != nil {
		return nil, fmt.Errorf("management point: %w", err)
	}
	p.hub = newHub(p.cfg.Site, p.cfg.Now)
	p.publishProofs()
	if err := errors.Join(p.openUploads(), p.openDistribution()); err != nil {
		return nil, fmt.Errorf("management point: %w", err)
	}
	p.publishStatus()
	return p, nil
}

// Run serves until ctx ends. It returns after every goroutine it started.
func (p *Point) Run(ctx context.Context) error {
	ln, err := p.cfg.Sockets.Listen(ctx, "management-point", p.cfg.Listen, nil)
	if err != nil {
		return fmt.Errorf("management point: %w", err)
	}
	var plain, status net.Listener
	if p.cfg.ListenHTTP != "" {
		if plain, err = p.cfg.Sockets.Listen(ctx, "management-point-http", p.cfg.ListenHTTP, nil); err != nil {
			ln.Close()
			return fmt.Errorf("management point without TLS: %w", err)
		}
	}
	if p.cfg.Status != "" {
		if status, err = p.cfg.Sockets.Listen(ctx, "status", p.cfg.Status, nil); err != nil {
			closeAll(ln, plain)
			return fmt.Errorf("management point status: %w", err)
		}
	}
	notify, err := p.listenNotify(ctx)
	if err != nil {
		closeAll(ln, plain, status)
		return fmt.Errorf("management point notification: %w", err)
	}
	return p.run(ctx, ln, plain, status, notify)
}

func closeAll(all ...net.Listener) {
	for _, ln := range all {
		if ln != nil {
			ln.Close()
		}
	}
}

// run is Run on listeners, which it closes; plain, status and notify may be
// nil.
func (p *Point) run(ctx context.Context, ln, plain, status, notify net.Listener) error {
	if err := p.prepare(ctx); err != nil {
		closeAll(ln, plain, status, notify)
		if ctx.Err() != nil {
			return nil // told to end before it began
		}
		return fmt.Errorf("management point: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(ctx, func() { close(p.ending) })()
	var (
		all  sync.WaitGroup
		once sync.Mutex
		errs []error
	)
	start := func(f func() error) {
		all.Go(func() {
			defer stop() // one part ends all
			if err := f(); err != nil {
				once.Lock()
				errs = append(errs, err)
				once.Unlock()
			}
		})
	}
	handler := p.Handler()
	start(func() error {
		srv := p.server(handler)
		srv.TLSConfig = auth.Following(p.tls())
		return web.Serve(ctx, srv, ln, grace)
	})
	if plain != nil {
		p.cfg.Log.Warn("listens without TLS: whoever sees the network reads and changes what passes there", slog.String("addr", plain.Addr().String()))
		start(func() error { return web.Serve(ctx, p.server(handler), plain, grace) })
	}
	if status != nil {
		start(func() error { return web.Serve(ctx, &http.Server{Handler: p.health.Handler()}, status, grace) })
	}
	start(func() error { return p.upkeep(ctx) })
	start(func() error { p.reload.Run(ctx); return nil })
	start(func() error { return p.follow(ctx) })
	start(func() error { return p.tendNotification(ctx) })
	if notify != nil {
		start(func() error { return p.serveNotify(ctx, notify) })
	}
	p.cfg.Log.Info("management point listens", slog.String("addr", ln.Addr().String()), slog.String("name", p.cfg.Name))
	p.health.Set("up", nil)
	all.Wait()
	return errors.Join(errs...)
}

func (p *Point) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ConnState: p.conns.changed,
		ReadTimeout: time.Minute, WriteTimeout: 2 * time.Minute, // a handler that lets its request wait has to move them
		HTTP2: web.Waits(),
	}
}

// tls gives a function for the settings in force, made once for each snapshot.
func (p *Point) tls() func() *tls.Config {
	var mu sync.Mutex
	var of *snapshot
	var made *tls.Config
	return func() *tls.Config {
		mu.Lock()
		defer mu.Unlock()
		if s := p.live.Load(); s != of {
			of, made = s, s.id.Server()
		}
		return made
	}
}

// prepare checks that the database is of the identity's site, and publishes
// the keys that tokens will be signed with.
func (p *Point) prepare(ctx context.Context) error {
	st, err := p.cfg.Site.Settings(ctx)
	if err != nil {
		return err
	}
	if site := p.live.Load().id.Name().Site; st.Code != site {
		return fmt.Errorf("the database is of site %s, the identity of %s: %w", st.Code, site, cmg.ErrInvalid)
	}
	return p.cfg.Site.AddTokenKeys(ctx, p.live.Load().keyring.PublicKeys())
}

// upkeep writes what was gathered in memory and forgets what has expired. It
// writes once more when ctx has ended.
func (p *Point) upkeep(ctx context.Context) error {
	refused := time.NewTicker(refusalsEvery)
	defer refused.Stop()
	write, prune := time.NewTicker(seenEvery), time.NewTicker(pruneEvery)
	defer write.Stop()
	defer prune.Stop()
	for {
		select {
		case <-refused.C:
			p.report("refusals", p.storeRefusals(ctx))
		case <-write.C:
			p.report("last seen", p.cfg.Site.Touch(ctx, p.seen.take()))
			p.report("audit head", p.keepAuditHead(ctx))
		case <-prune.C:
			now := p.cfg.Now()
			_, err := p.cfg.Site.PruneTokens(ctx, now.Add(-keepTokens), now.Add(-keepDeviceTokens))
			p.report("prune", err)
			p.report("uploads", p.tendUploads(ctx))
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
			defer cancel()
			return errors.Join(p.cfg.Site.Touch(last, p.seen.take()), p.keepAuditHead(last), p.storeRefusals(last))
		}
	}
}

// report tells of upkeep that did not work; it is tried again.
func (p *Point) report(check string, err error) {
	p.health.Set(check, err)
	if err != nil {
		p.cfg.Log.Warn("upkeep", slog.String("what", check), slog.Any("err", err))
	}
}
